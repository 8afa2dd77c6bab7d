"""
What the pages say is so: each example runs, each link leads somewhere, each named thing exists.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from allele_mlflow.settings import environment
from tests.docs.pages import (
    ALL_PAGES,
    READ_PAGES,
    ROOT,
    anchors_of,
    blocks_of,
    code_spans,
    functions_in,
    links_of,
    links_to_code,
    name_of,
    prose_of,
)
from tests.docs.run_page import commands_of
from tests.integration.runs import Station

LANGUAGES = {"python", "console", "sh", "text", "toml"}
RUN_LANGUAGES = LANGUAGES - {"text"}
PAGES_TO_RUN = [
    page for page in READ_PAGES if any(one.language in RUN_LANGUAGES for one in blocks_of(page))
]
#: Pages that show a folder, a spool or a store with nothing else in it; the others share theirs.
ALONE = {"README.md", "docs/getting-started.md", "docs/guides/offline-and-sync.md"}
PAGE_DEADLINE_S = 150
SPOOL_PARENT = ".allele_mlflow"


@pytest.fixture(scope="session")
def shared_folder(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    A folder with a store and a spool for several pages, so that one sidecar serves them all.
    """
    folder = tmp_path_factory.mktemp("shared")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    (folder / SPOOL_PARENT).mkdir()
    yield folder
    Station(folder / SPOOL_PARENT, "").stop()


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(PAGE_DEADLINE_S + 60)
@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=name_of)
def test_page_does_what_it_says(
    page: Path, empty_store: Path, shared_folder: Path, tmp_path: Path
) -> None:
    """
    All examples of a page run in order in a fresh folder, and print what the page shows.
    """
    if name_of(page) in ALONE:
        shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    else:
        for name in ("mlflow.db", SPOOL_PARENT):
            (tmp_path / name).symlink_to(shared_folder / name)
    try:
        _run_page(page, tmp_path)
    finally:
        if name_of(page) in ALONE:
            Station(tmp_path / SPOOL_PARENT, "").stop()


def _run_page(page: Path, folder: Path) -> None:
    environ = environment() | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "HOME": str(folder / "home"),
        # beside the page's folder, whose contents a page may show
        "XDG_STATE_HOME": str(folder.with_name(f"{folder.name}-state")),
        # one sidecar for a whole page, at full speed
        "ALLELE_MLFLOW_IDLE_TIMEOUT_S": "120",
        "ALLELE_MLFLOW_SIDECAR_CPU_PERCENT": "100",
        # the machine may be busy, and what a page shows is what a close that was in time shows
        "ALLELE_MLFLOW_EXIT_TIMEOUT_S": "120",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.run_page", str(page)],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """
    Each link to a file or heading of the repository finds it.
    """
    broken = []
    for link in links_of(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and (not anchor or anchor in anchors_of(target))
        broken += [] if is_there else [link]
    assert broken == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_named_tests_exist(page: Path) -> None:
    """
    Each `path::test` that a page names is there, and each link whose text is a test leads to it.
    """
    text = prose_of(page)
    spans = [span.partition("::") for span in code_spans(text) if "::" in span]
    named = [(ROOT / path, name) for path, _, name in spans]
    named += [(page.parent / path, name) for name, path in links_to_code(text)]
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (path.is_file() and name in functions_in(path))
    ]
    assert missing == []


def test_every_page_is_found_from_the_readme() -> None:
    """
    Who follows links from the README comes to every page.
    """
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found:
            continue
        found.add(page)
        targets = [link.partition("#")[0] for link in links_of(page) if "://" not in link]
        waiting += [
            target
            for path in targets
            if path.endswith(".md") and (target := (page.parent / path).resolve()).exists()
        ]
    assert set(READ_PAGES) <= found


@pytest.mark.parametrize("page", READ_PAGES, ids=name_of)
def test_blocks_are_of_a_kind_that_is_run(page: Path) -> None:
    """
    No example hides from this test behind another language, or behind none.
    """
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


def test_console_blocks_are_taken_apart() -> None:
    """
    Commands, their continuations and their output are told apart.
    """
    text = "$ a | b\n$ for x in 1; do\n>   y\n> done\none\n\ntwo\n$ c\n"
    assert commands_of(text) == [
        ("a | b\n", ""),
        ("for x in 1; do\n  y\ndone\n", "one\n\ntwo\n"),
        ("c\n", ""),
    ]
