"""
Reports of runs and experiments: which sections they have, and that any text in them is text.
"""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from allele_mlflow.reports.experiment_page import (
    MOST_HISTORIES,
    ExperimentSummary,
    experiment_page,
)
from allele_mlflow.reports.html import write_report
from allele_mlflow.reports.markdown import write_markdown
from allele_mlflow.reports.run_page import RunSummary, run_page
from allele_mlflow.reports.wording import MISSING
from allele_mlflow.summaries.experiment import overhead_of
from tests.page_tools import BEGAN, make_experiment, make_run
from tests.report_tools import HOSTILE, ReadPage

EMPTY_RUN = RunSummary(
    name="quiet",
    started_at=BEGAN,
    ended_at=None,
    facts={},
    params={},
    tags={},
    metrics=pd.DataFrame(),
)


def titles_of(page: ReadPage) -> list[str]:
    return [text for tag, text in page.texts if tag == "h2"]


def test_run_has_its_sections() -> None:
    """
    Time, alerts, metrics with units, genomes, errors, delivery, parameters and tags are there, each
    with what it is about.
    """
    page = ReadPage(write_report(run_page(make_run("plain"))))
    assert titles_of(page) == [
        *("Phases and resources", "Alerts", "Metrics", "Genomes", "Errors"),
        *("Delivery", "Parameters", "Tags"),
    ]
    for text in ("1 min 30 s", "6.000", "megabytes", "critical", "f00d", "12", "child"):
        assert text in page.visible()
    names = [[trace["name"] for trace in figure["traces"]] for figure in page.figures()]
    assert names[0] == ["phase", "critical alert", "CPU of the benchmark, of one core"]
    assert "best" in names[2]
    assert len(names) == 4


def test_experiment_has_its_sections() -> None:
    """
    Executions with their state, findings, histories, recommendations and costs are there.
    """
    page = ReadPage(write_report(experiment_page(make_experiment("plain"))))
    assert titles_of(page) == [
        *("Executions", "Trend of the objectives", "Histories"),
        *("Recommendations", "What logging cost"),
    ]
    for text in ("some failed", "goes on", "3 of 4", "75 %", "1 regression", "10.00", "3 runs"):
        assert any(text in one for one in page.visible()), text
    assert len(page.figures()) == 3


def test_histories_with_findings_are_drawn_first() -> None:
    """
    Of many histories some are drawn, those with findings first, and it is said.
    """
    page = ReadPage(write_report(experiment_page(make_experiment("cell", cells=40))))
    captions = [text for tag, text in page.texts if tag == "strong"]
    assert captions[0] == "m of cell 39 over executions"
    assert captions[1] == "m of cell over executions"
    said = f"{MOST_HISTORIES} of 40 histories are drawn, those with findings first."
    assert said in page.visible()


@pytest.mark.parametrize("make", [make_run, make_experiment], ids=["run", "experiment"])
def test_hostile_texts_are_text(make: Any) -> None:
    """
    Markup in any name, message or commit makes no tag and ends no script, and no row of Markdown.
    """
    write = run_page if make is make_run else experiment_page
    evil, tame = (ReadPage(write_report(write(make(one)))) for one in (HOSTILE, "tame"))
    for tag in ("script", "table", "img", "b", "a"):
        assert evil.count(tag) == tame.count(tag)
    assert any("<script>alert(1)</script>" in text for text in evil.visible())
    assert not any("\u202e" in text for text in evil.visible())
    text = write_markdown(write(make(HOSTILE)))
    assert "<script" not in text
    assert len(text.splitlines()) == len(write_markdown(write(make("tame"))).splitlines())


def test_short_runs_have_no_percentage_of_the_sidecar() -> None:
    """
    A run of milliseconds ends before the sidecar has started: a dash, and a note that says why.
    """
    runs = pd.DataFrame(
        {"run_id": ["a", "b"], "experiment_id": "1", "kind": "cell", "cell": ["short", "long"]}
    ).assign(seconds=[0.012, 10.0])
    told = [
        {"run_id": run_id, "key": key, "value": value}
        for run_id in "ab"
        for key, value in (("allele.logger_overhead_percent", "2"), ("allele.sidecar_cpu_s", "0.5"))
    ]
    reader: Any = SimpleNamespace(runs=lambda *_, **__: SimpleNamespace(tags=pd.DataFrame(told)))
    frames: Any = SimpleNamespace(runs=runs)
    costs = overhead_of(reader, frames)
    assert math.isnan(costs.sidecar_percent[0])
    assert list(costs.sidecar_percent[1:]) == [5.0]
    summary = dataclasses.replace(make_experiment("plain"), overhead=costs)
    text = write_markdown(experiment_page(summary))
    assert f"| short | 1 | 2.000 | {MISSING} |" in text
    assert "| long | 1 | 2.000 | 5.000 |" in text
    assert "Runs under 1 s have no percentage of the sidecar" in text
    whole = dataclasses.replace(summary, overhead=costs[1:])
    assert "Runs under 1 s" not in write_markdown(experiment_page(whole))


def test_run_that_has_nothing() -> None:
    """
    A run that has logged nothing yet is reported too, without a figure.
    """
    page = ReadPage(write_report(run_page(EMPTY_RUN)))
    assert "not ended" in page.visible()
    assert page.figures() == []


def test_experiment_without_executions() -> None:
    """
    So is an experiment of which nothing is over.
    """
    summary = ExperimentSummary(
        name="new", executions=pd.DataFrame(), series=pd.DataFrame(), findings=pd.DataFrame()
    )
    page = ReadPage(write_report(experiment_page(summary)))
    assert "No finding." in page.visible()
    assert page.count("script") == 0
