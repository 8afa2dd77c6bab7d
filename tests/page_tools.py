"""
Invented runs and experiments, for tests of their reports.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd

from allele_mlflow.reports.experiment_page import ExperimentSummary
from allele_mlflow.reports.run_page import RunSummary
from allele_mlflow.reports.summary import FailureGroup
from tests.report_tools import (
    BEGAN_MS,
    make_alert,
    make_finding,
    make_history,
    make_phases,
    make_samples,
    make_series,
)

BEGAN = datetime.fromtimestamp(BEGAN_MS / 1000, UTC)


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
