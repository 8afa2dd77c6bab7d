"""
From what a page found to HTML: templates, with everything from outside escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup
from rich.filesize import decimal
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from allele_mlflow.dashboard.addresses import Addresses, ServerAddresses
from allele_mlflow.dashboard.looks import look_of, sparkline
from allele_mlflow.dashboard.pages.page import Column, Kind, Page, Params
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.security import Visitor
from allele_mlflow.dashboard.static_files import PLOTLY
from allele_mlflow.dashboard.views import View
from allele_mlflow.reports.wording import (
    MISSING,
    clean,
    shorten,
    write_duration,
    write_number,
    write_time,
)
from allele_mlflow.version import __version__

LONGEST_NAME, LONGEST_TEXT = 200, 1000


def render_page(
    page: Page,
    content: Any,
    *,
    params: Params,
    view: View,
    visitor: Visitor,
    addresses: Addresses,
    pages: Sequence[Page],
    figures: Mapping[str, Markup] | None = None,
) -> str:
    """
    The page as HTML.

    Args:
        page: Which.
        content: What its query found.
        params: The values in its path.
        view: How it is seen.
        visitor: Who sees it.
        addresses: How it refers to others.
        pages: All pages, for the bar at the top and the tabs.
        figures: JSON of figures that the page holds itself, by name.
    """
    return (
        _environment()
        .get_template(page.template)
        .render(
            page=page,
            content=content,
            params=params,
            view=view,
            visitor=visitor,
            to=addresses,
            pages=pages,
            columns={
                name: one(content) if callable(one) else one for name, one in page.columns.items()
            },
            held=figures or {},
            plotly=PLOTLY,
            version=__version__,
        )
    )


def render_live(told: dict[str, Any] | None) -> str:
    """
    The part of a run's page that changes while it goes on.
    """
    return _environment().get_template("live.html").render(live=told)


def render_refusal(request: Request, refusal: RefusalError) -> Response:
    """
    An error as whoever asked can read it: JSON below `/api`, else a page.
    """
    if is_api(request):
        body = {"error": refusal.title, "detail": refusal.text}
        return Response(msgspec.json.encode(body), refusal.status, media_type="application/json")
    addresses = ServerAddresses(request.scope.get("root_path", ""))
    return HTMLResponse(render_refusal_page(refusal, addresses), refusal.status)


def render_refusal_page(refusal: RefusalError, addresses: Addresses, **asked: Any) -> str:
    """
    An error as a page.

    Args:
        refusal: Why.
        addresses: How it refers to others.
        asked: `page`, `params`, `view` and `pages` of a page whose form could not be answered: it
            is shown as it was filled in.
    """
    template = _environment().get_template("refusal.html")
    return template.render(refusal=refusal, to=addresses, version=__version__, **asked)


def is_api(request: Request) -> bool:
    """
    Whether a program asks.
    """
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", "")).startswith("/api/")


def write_value(value: Any, kind: Kind) -> str:
    """
    A value as a column of its kind shows it, in one line, bounded.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    match kind:
        case Kind.NUMBER:
            return write_number(float(value))
        case Kind.COUNT:
            return f"{value:,}"
        case Kind.SECONDS:
            return write_duration(float(value))
        case Kind.BYTES:
            return decimal(value)
        case Kind.RATIO:
            return f"{value:.0%}".replace("%", " %")
        case Kind.TIME:
            return write_moment(value)
        case Kind.NAME:
            return shorten(clean(value), LONGEST_NAME) or MISSING
        case _:
            return shorten(clean(value), LONGEST_TEXT) or MISSING


def write_moment(value: datetime | int | str) -> str:
    """
    A moment, given as such, in ms since 1970, or as it is written in ISO 8601.
    """
    if isinstance(value, str):
        return shorten(clean(value.replace("T", " ").partition("+")[0]), 40)
    if isinstance(value, int):
        try:
            value = datetime.fromtimestamp(value / 1000, tz=UTC)
        except (OverflowError, OSError, ValueError):
            return MISSING  # MLflow takes any number for a time
    return write_time(value).removesuffix(" UTC")  # the page says so once


def _sort_state(view: View, column: Column) -> str:
    """
    As `aria-sort` says it.
    """
    if view.sort_name != column.name:
        return "none"
    return "descending" if view.is_descending else "ascending"


def _field(row: Any, name: str) -> Any:
    """
    An attribute of a row; `metric.x` is the value of x in its `metrics`.
    """
    group, _, key = name.partition(".")
    return getattr(row, f"{group}s").get(key) if key else getattr(row, name)


def _row_view(view: View, row: Any, column: Column) -> View:
    """
    The view to which the link of a row leads.
    """
    view = view.with_option(column.option, str(_field(row, column.name)))
    for name in column.also:
        view = view.with_option(name, str(getattr(row, name)))
    return view


def _row_params(row: Any, path: str) -> dict[str, str]:
    """
    The attributes of a row that a path names; nothing where one is missing.
    """
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    values = {name: getattr(row, name, None) for name in names}
    return {} if None in values.values() else {name: str(value) for name, value in values.items()}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("allele_mlflow.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "clean": clean,
        "name": lambda value: write_value(value, Kind.NAME),
        "number": lambda value: write_value(value, Kind.NUMBER),
        "count": lambda value: write_value(value, Kind.COUNT),
        "seconds": lambda value: write_value(value, Kind.SECONDS),
        "moment": lambda value: write_value(value, Kind.TIME),
        "written": write_value,
        "reading": lambda value: (
            value if isinstance(value, str) else write_value(value, Kind.NUMBER)
        ),
        "field": _field,
    }
    environment.globals |= {
        "sort_state": _sort_state,
        "row_params": _row_params,
        "view_of": lambda options, lists=None: View(options=options, lists=lists or {}),
        "row_view": _row_view,
        "look_of": look_of,
        "sparkline": sparkline,
        "MISSING": MISSING,
    }
    return environment
