"""
The pages as a folder of files: opened from a disk or put on any web server, with nothing to run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from allele_mlflow.dashboard.addresses import fill
from allele_mlflow.dashboard.figures import figure_document
from allele_mlflow.dashboard.pages.page import Ask, Page, Params
from allele_mlflow.dashboard.refusals import RefusalError, refusal_of
from allele_mlflow.dashboard.rendering import render_page, render_refusal_page
from allele_mlflow.dashboard.security import Visitor
from allele_mlflow.dashboard.source import Source
from allele_mlflow.dashboard.static_files import NAMES, STYLE, static_file
from allele_mlflow.dashboard.views import MOST_ROWS, View, parse_view
from allele_mlflow.errors import AlleleMlflowError, ErrorKind, SettingsError

STATIC_FOLDER = "static"
_NOBODY = Visitor(name="", csrf="", may_write=False)
#: A name that is a part of a file's as it is.
_PLAIN = re.compile(r"[A-Za-z0-9]{1,80}")
_LONGEST_PLAIN = 120


class FileAddresses:
    """
    Between files of one folder. A page that is not among them has no address.
    """

    is_live = False

    def __init__(self, written: Iterable[tuple[Page, Params]]) -> None:
        """
        Args:
            written: All pages that there will be.
        """
        self._names = {fill(page.path, params): file_name(page, params) for page, params in written}

    def page(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        See `Addresses`. The view is the usual one.
        """
        return self._names.get(fill(path, params), "")

    def api(self, path: str, params: Mapping[str, str], view: View | None = None) -> str:
        """
        See `Addresses`.
        """
        return ""

    def figure(
        self, path: str, params: Mapping[str, str], name: str, view: View | None = None
    ) -> str:
        """
        See `Addresses`.
        """
        return ""

    def static(self, name: str) -> str:
        """
        See `Addresses`.
        """
        return f"{STATIC_FOLDER}/{name}"


def export_pages(
    source: Source,
    pages: Sequence[Page],
    folder: Path,
    *,
    on_written: Callable[[int, int], None] = lambda count, total: None,
) -> int:
    """
    Write every page of every instance, and what they need. Returns how many.

    Args:
        source: What they are made of.
        pages: Which.
        folder: Empty, not there yet, or written by an earlier call.
        on_written: Called with how many are written, and how many there will be.
    Raises:
        SettingsError: the folder holds something else.
        TrackingError: the store does not answer.
        OSError: the folder cannot be written to.
    """
    _check_folder(folder)
    plan = [(page, params) for page in pages for params in page.instances(source)]
    addresses = FileAddresses(plan)
    (folder / STATIC_FOLDER).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        found = static_file(name)
        assert found is not None
        (folder / STATIC_FOLDER / name).write_bytes(found.body)
    for count, (page, params) in enumerate(plan, 1):
        text = _page_text(source, page, params, addresses, pages)
        (folder / file_name(page, params)).write_text(text, encoding="utf-8")
        on_written(count, len(plan))
    return len(plan)


def file_name(page: Page, params: Params) -> str:
    """
    The file of a page: its path, in which all but letters and digits is a dash. Names that are more
    than letters and digits, or long, are told apart by a digest.
    """
    path = fill(page.path, params)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-") or "index"
    if all(_PLAIN.fullmatch(value) for value in params.values()):
        return f"{plain}.html"
    return f"{plain[:_LONGEST_PLAIN]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}.html"


def _check_folder(folder: Path) -> None:
    is_ours = (folder / STATIC_FOLDER / STYLE).is_file()
    if folder.exists() and not is_ours and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(
            f"--export {folder}: there is something else: want a folder that is empty, new, or of "
            "an earlier export",
            kind=ErrorKind.BAD_SETTING,
            name="export",
        )


def _page_text(
    source: Source,
    page: Page,
    params: Params,
    addresses: FileAddresses,
    pages: Sequence[Page],
) -> str:
    usual = parse_view([], page.knobs)
    rows = MOST_ROWS if page.knobs.has_pages else usual.rows
    view = msgspec.structs.replace(usual, rows=rows)
    ask = Ask(source, params, view)
    try:
        content = page.query(ask)
        figures = {
            f"{name}-{scheme}": document
            for name in page.figures
            for scheme in ("light", "dark")
            if (document := _held(page, name, ask, is_dark=scheme == "dark"))
        }
    except RefusalError as refusal:
        return render_refusal_page(refusal, addresses)
    except AlleleMlflowError as exc:
        return render_refusal_page(refusal_of(exc), addresses)
    return render_page(
        page,
        content,
        params=params,
        view=view,
        visitor=_NOBODY,
        addresses=addresses,
        pages=pages,
        figures=figures,
    )


def _held(page: Page, name: str, ask: Ask, *, is_dark: bool) -> Markup | None:
    """
    A figure as JSON that no tag can end.
    """
    found = figure_document(page.figures[name](ask, is_dark))
    if found is None:
        return None
    return Markup(found.decode().replace("<", "\\u003c"))
