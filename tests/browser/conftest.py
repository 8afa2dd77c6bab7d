"""
A headless Chromium of the system's own, and reports to open in it. `make test-browser` runs these.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from allele_mlflow.reports.experiment_page import experiment_page
from allele_mlflow.reports.html import suite_report, write_report
from allele_mlflow.reports.run_page import run_page
from allele_mlflow.reports.summary import FailureGroup, Link, Objective
from allele_mlflow.units import Direction
from tests.integration.suites import Place, document
from tests.page_tools import make_experiment, make_run
from tests.report_tools import HOSTILE, make_history, make_results, make_summary

LONG = "a-rather-long-name-without-a-space" * 6
#: What the suite's cells are called, besides a number.
LABELS = ("<script>alert(1)</script>", "<img src=x onerror=alert(2)>", LONG)
SUITE = f"""
name = "hostile"
benchmark = "bench:run"
repeats = 2

[matrix]
label = ["{LABELS[0]}", "{LABELS[1]}", "{LABELS[2]}"]
size = [1, 2]

[metrics.score]
direction = "higher"
unit = "<b>points</b>"
objective = true
"""
BENCHMARK = """
def run(label, size, *, log, seed):
    for step in range(5):
        log.metric("score", size * step + seed % 7, step)
    if size == 2 and label.startswith("<img"):
        raise ValueError(f"no good: {label}")
    return {"other": size}
"""


@dataclass
class Opened:
    """
    A page as it was opened, and what it has done since.

    Attributes:
        requests: Addresses that it asked for, itself first.
        problems: Errors of the console and of scripts, and dialogs.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def evaluate(self, script: str) -> Any:
        """
        What a function of JavaScript returns in the page.
        """
        return self.page.evaluate(script)


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """
    The system's Chromium: nothing is downloaded.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.exit("no Chromium: apt install chromium, or CHROMIUM=/path/to/it", returncode=2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Open]:
    """
    Opens a file of the disk as a person would, in a profile of its own.
    """
    with ExitStack() as closing:

        def open_file(
            path: Path, *, width_px: int = 1200, scheme: Literal["light", "dark"] = "light"
        ) -> Opened:
            context = chromium.new_context(
                viewport={"width": width_px, "height": 800}, color_scheme=scheme
            )
            closing.callback(context.close)
            opened = Opened(context.new_page())
            _listen(opened)
            opened.page.goto(path.as_uri(), wait_until="load")
            return opened

        yield open_file


def _listen(opened: Opened) -> None:
    def note_request(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):  # these are in the page
            opened.requests.append(request.url)

    def note_dialog(dialog: Any) -> None:
        opened.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page = opened.page
    page.on("request", note_request)
    page.on("dialog", note_dialog)
    page.on("pageerror", lambda error: opened.problems.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: (
            opened.problems.append(f"{said.type}: {said.text}")
            if said.type in ("error", "warning")
            else None
        ),
    )


@pytest.fixture(scope="session")
def suites_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    What `allele-mlflow run` leaves of a suite with hostile names and a failure.
    """
    place = Place(tmp_path_factory.mktemp("suite"))
    (place.folder / "hostile.toml").write_text(SUITE)
    (place.folder / "bench.py").write_text(BENCHMARK)
    done = place.run("run", "hostile.toml", "--json")
    assert done.returncode == 3, done.stderr
    return Path(document(done)["report"])


@pytest.fixture(scope="session")
def invented_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    One in which every text that can be anybody's is hostile.
    """
    summary = make_summary(
        make_results({HOSTILE: [1.0, 2.0, None], LONG: [4.0, 8.0]}),
        history=make_history({HOSTILE: [[0.5, 1.0], [1.0, 2.0]], LONG: [[2.0, 4.0]]}),
        suite=HOSTILE,
        execution=HOSTILE,
        where=HOSTILE,
        objectives=(Objective("score", HOSTILE, Direction.HIGHER),),
        failures=(FailureGroup(HOSTILE, "f00d", 3, HOSTILE, (HOSTILE, LONG)),),
        settings={HOSTILE: HOSTILE},
        environment={HOSTILE: LONG},
        links=(Link(HOSTILE, "javascript:alert(3)"),),
        notes=(HOSTILE, LONG),
    )
    path = tmp_path_factory.mktemp("invented") / "report.html"
    path.write_text(suite_report(summary), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The report of a run whose every text is hostile.
    """
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(write_report(run_page(make_run(HOSTILE))), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def experiment_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The report of an experiment, likewise.
    """
    path = tmp_path_factory.mktemp("experiment") / "report.html"
    page = experiment_page(make_experiment(HOSTILE, cells=3))
    path.write_text(write_report(page), encoding="utf-8")
    return path


@pytest.fixture(params=["suites_report", "invented_report", "run_report", "experiment_report"])
def report(request: pytest.FixtureRequest) -> Path:
    """
    Each of them.
    """
    path: Path = request.getfixturevalue(request.param)
    return path
