"""
A report as one HTML file: opens from a disk, asks no other address for anything.

Tables say everything without JavaScript; figures are drawn where there is some. Text from outside
passes Jinja's escaping; the file's own policy (CSP) forbids it to load or send anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import jinja2
from markupsafe import Markup

from allele_mlflow.reports import tables
from allele_mlflow.reports.figures import plotly_script
from allele_mlflow.reports.page import Page, Section
from allele_mlflow.reports.suite_page import suite_page
from allele_mlflow.reports.summary import SuiteSummary

#: What a report may weigh, plotly.js and all, and what of it may be tables.
REPORT_BYTES_MAX = 5_900_000
_TABLES_BYTES_MAX = 600_000
#: Rows of a table: the first of these with which all tables fit.
_ROW_COUNTS = (tables.MOST_ROWS, 200, 80, 30)
#: Of the page around a figure.
_FRAME_BYTES = 2000
#: What the title and the legend above a figure take of its height.
_TITLE_PX, _LEGEND_PX = 45, 28
#: What a dark page changes in a trace: looks, never data.
_LOOKS = (
    *("marker", "line", "fillcolor", "hoverlabel"),
    *("insidetextfont", "textfont", "error_x", "error_y"),
)


@dataclass(frozen=True)
class PageFigure:
    """
    A figure as the page draws it: `data` is JSON that may stand in a script tag.
    """

    title: str
    note: str
    height_px: int
    data: Markup


#: A section's figures; None for one that was left out.
Figures: TypeAlias = tuple[PageFigure | None, ...]


def suite_report(summary: SuiteSummary) -> str:
    """
    The report of one execution, a whole HTML document.

    Raises:
        ValueError: a frame lacks a column, or a moment its time zone.
    """
    return write_report(suite_page(summary))


def write_report(page: Page) -> str:
    """
    A report as a whole HTML document.

    Raises:
        ValueError: a frame that is drawn lacks a column.

    Cost: plotly.js is in it, so some 5 MB, and under 6 MB whatever there is to report: tables and
    figures are bounded, and say so where they leave something out.
    """
    sections = [one for one in page.sections if one.table.rows or not one.is_optional]
    for most_rows in _ROW_COUNTS:
        plain = _render(page, [(one, ()) for one in sections], most_rows=most_rows, script="")
        if len(plain.encode()) <= _TABLES_BYTES_MAX:
            break
    script = plotly_script()
    left_bytes = REPORT_BYTES_MAX - len(plain.encode()) - len(script.encode())
    chosen = list(_choose_figures(sections, left_bytes))
    is_drawn = any(any(figures) for _, figures in chosen)
    return _render(page, chosen, most_rows=most_rows, script=script if is_drawn else "")


def _render(
    page: Page, chosen: list[tuple[Section, Figures]], *, most_rows: int, script: str
) -> str:
    template = _environment().get_template("report.html")
    return template.render(
        page=page,
        sections=[(one, one.table.bounded(most_rows), figures) for one, figures in chosen],
        plotly=Markup(script),
    )


def _choose_figures(sections: list[Section], left_bytes: int) -> Iterator[tuple[Section, Figures]]:
    """
    The sections with their figures; None stands for one that would make the file too large.
    """
    for section in sections:
        chosen: list[PageFigure | None] = []
        for draw in section.draws:
            figure = page_figure(draw(is_dark=False), draw(is_dark=True))
            size_bytes = len(figure.data.encode()) + _FRAME_BYTES
            is_small = size_bytes <= left_bytes
            left_bytes -= size_bytes if is_small else 0
            chosen.append(figure if is_small else None)
        yield section, tuple(chosen)


def page_figure(light: Any, dark: Any) -> PageFigure:
    """
    A figure without its title, which the page writes itself, for there it breaks into lines.

    Args:
        light: Of plotly; it is changed.
        dark: The same for a dark page.
    """
    meta = dict(light.layout.meta)
    left_px = _TITLE_PX if _has_legend_above(light) else _TITLE_PX + _LEGEND_PX
    for figure in (light, dark):
        top_px = figure.layout.margin.t - left_px
        figure.update_layout(title=None, margin={"t": top_px}, meta=None)
    height_px = int(light.layout.height) - left_px + 15
    light_spec, dark_spec = json.loads(light.to_json()), json.loads(dark.to_json())
    for spec in (light_spec, dark_spec):
        spec["layout"].pop("height")
    looks = [{name: one[name] for name in _LOOKS if name in one} for one in dark_spec["data"]]
    data = {
        "traces": light_spec["data"],
        "layouts": {"light": light_spec["layout"], "dark": dark_spec["layout"]},
        "darkLooks": looks,
        "narrowNames": meta.get("narrow_names"),
        "narrowColumns": meta.get("narrow_columns"),
    }
    return PageFigure(meta["title"], meta["note"], height_px, _as_script(data))


def _has_legend_above(figure: Any) -> bool:
    return bool(figure.layout.showlegend) and figure.layout.legend.yref != "container"


def _as_script(data: object) -> Markup:
    """
    JSON that no tag can end.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " "))


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("allele_mlflow.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
