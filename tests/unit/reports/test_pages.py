"""
Reports of runs and experiments: which sections they have, and that any text in them is text.
"""

from __future__ import annotations

from datetime import UTC, datetime
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
from allele_mlflow.reports.summary import FailureGroup
from tests.report_tools import (
    BEGAN_MS,
    HOSTILE,
    ReadPage,
    make_alert,
    make_finding,
    make_history,
    make_phases,
    make_samples,
    make_series,
)

BEGAN = datetime.fromtimestamp(BEGAN_MS / 1000, UTC)
EMPTY_RUN = RunSummary(
    name="quiet",
    started_at=BEGAN,
    ended_at=None,
    facts={},
    params={},
    tags={},
    metrics=pd.DataFrame(),
)


def make_run(text: str) -> RunSummary:
    """
    A run with something of everything, every text of it the given one.
    """
    return RunSummary(
        name=text,
        started_at=BEGAN,
        ended_at=datetime.fromtimestamp(BEGAN_MS / 1000 + 90, UTC),
        facts={text: text},
        params={text: text},
        tags={text: text},
        metrics=pd.DataFrame({"key": ["loss", "system/process_rss_megabytes", text]}).assign(
            step=3, value=[0.5, 120.0, 7.0]
        ),
        history=make_history({text: [[1.0, 2.0]]}),
        phases=make_phases([(text, 0, 2), (text, 3, 4)]),
        samples=make_samples("system/process_cpu_percent", [10.0, 90.0]),
        alerts=pd.DataFrame([make_alert(text, 1, "critical", phase=text, status="active")]),
        genomes=pd.DataFrame(
            {"genome_id": [text, "child"], "generation": [0, 1], "fitness": [0.1, 0.9]}
        ).assign(parents=[[], [text]]),
        traits=pd.DataFrame({"generation": [0, 1], "trait": text, "value": [0.1, 0.2]}),
        errors=(FailureGroup(text, "f00d", 2, text),),
        delivery={text: "12"},
        notes=(text,),
    )


def make_experiment(text: str, *, cells: int = 1) -> ExperimentSummary:
    """
    An experiment of two executions, every text of it the given one.
    """
    names = [f"{text} {number}" if number else text for number in range(cells)]
    series = [
        make_series([1.0, 2.0], commit=[text, text]).assign(cell=name, metric="m") for name in names
    ]
    finding = make_finding("change", "regression", "e1", words=text, cell=names[-1], metric="m")
    executions = pd.DataFrame(
        {
            "name": text,
            "run_uid": [f"uid {number} {text}" for number in range(2)],
            "started_at": [pd.Timestamp(BEGAN), pd.Timestamp(BEGAN)],
            "seconds": [60.0, None],
            "is_over": [True, False],
            "cells": cells,
            "finished": [3, 0],
            "failed": [1, 0],
            "commit": [text, None],
            "environment": text,
        }
    )
    advice = {"source": text, "title": text, "verdict": text, "reason": text, "follow_ups": 3}
    ends = ("expected", "expected_low", "expected_high", "gain", "gain_low", "gain_high")
    return ExperimentSummary(
        name=text,
        executions=executions,
        series=pd.concat(series, ignore_index=True),
        findings=pd.DataFrame([finding]),
        units={"m": text},
        overhead=pd.DataFrame({"cell": [text], "logger_percent": 0.1, "sidecar_percent": 2.0}),
        advice=pd.DataFrame([advice | dict.fromkeys(ends, 0.1)]),
        notes=(text,),
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
