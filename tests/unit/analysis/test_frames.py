"""
Runs as frames: which attempts count, what cells add up to, and series over executions.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from allele_mlflow.analysis.frames import (
    CELLS,
    METRICS,
    PARAMS,
    RUNS,
    ExperimentFrames,
    cells_frame,
    counted_runs,
    param_value,
    params_by_run,
    shaped,
)
from allele_mlflow.analysis.histories import SERIES, execution_series


def run_row(run_id: str, **told: Any) -> dict[str, Any]:
    """
    A run of a cell, finished unless it is said otherwise.
    """
    usual = {
        "run_id": run_id,
        "kind": "cell",
        "suite": "s",
        "execution": "e1",
        "cell": "a=1",
        "cell_key": "k1",
        "repeat": 0,
        "attempt": 0,
        "is_failed": False,
        "started_at": pd.Timestamp("2026-01-01", tz="UTC"),
    }
    return usual | told


def frames_of(runs: list[dict[str, Any]], values: dict[str, dict[str, float]]) -> ExperimentFrames:
    """
    Frames of rows, and of metrics by run.
    """
    metrics = [
        {"run_id": run_id, "key": key, "step": 0, "timestamp_ms": 1, "value": value}
        for run_id, told in values.items()
        for key, value in told.items()
    ]
    return ExperimentFrames(
        shaped(pd.DataFrame(runs), RUNS),
        shaped(pd.DataFrame(), PARAMS),
        shaped(pd.DataFrame(metrics), METRICS),
    )


def test_one_attempt_of_each_trial_counts() -> None:
    """The one that finished, else the last; what goes on counts nowhere."""
    runs = shaped(
        pd.DataFrame(
            [
                run_row("late", attempt=2, is_failed=True),
                run_row("good", attempt=1),
                run_row("early", attempt=0, is_failed=True),
                run_row("first", repeat=1, attempt=0, is_failed=True),
                run_row("last", repeat=1, attempt=1, is_failed=True),
                run_row("running", repeat=2, is_failed=None),
            ]
        ),
        RUNS,
    )
    assert set(counted_runs(runs)["run_id"]) == {"good", "last"}


def test_cells_add_up() -> None:
    """Repeats and finished ones are counted, metrics are over those that finished."""
    frames = frames_of(
        [run_row("a"), run_row("b", repeat=1), run_row("c", repeat=2, is_failed=True)],
        {"a": {"m": 1.0}, "b": {"m": 4.0}, "c": {"m": 100.0}},
    )
    (row,) = cells_frame(frames).to_dict("records")
    assert (row["repeats"], row["finished"], row["values"]) == (3, 2, 2)
    assert (row["mean"], row["median"], row["min"], row["max"]) == (2.5, 2.5, 1.0, 4.0)
    assert row["std"] == pytest.approx(2.1213, abs=1e-4)


def test_nothing_has_its_columns() -> None:
    """An empty frame has the columns and dtypes of a full one."""
    empty = frames_of([], {})
    assert {str(k): str(v) for k, v in cells_frame(empty).dtypes.items()} == CELLS
    assert list(execution_series(empty).columns) == list(SERIES)


def test_series_over_executions() -> None:
    """One value an execution, the median of its repeats, with spread, environment and commit; the
    success ratio is a series too.
    """
    parents = [
        run_row(
            f"p{number}",
            kind="suite",
            run_uid=f"e{number}",
            execution=None,
            cell=None,
            environment=f"env{number}",
            commit=f"c{number}",
            started_at=pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(days=number),
        )
        for number in (1, 2)
    ]
    cells = [
        run_row("a", execution="e2"),
        run_row("b", execution="e2", repeat=1, is_failed=True),
        run_row("c", execution="e1"),
        run_row("d", execution="e1", repeat=1),
    ]
    frames = frames_of(
        [*parents, *cells],
        {"a": {"m": 7.0, "system/x": 1.0}, "c": {"m": 1.0}, "d": {"m": 2.0}},
    )
    series = execution_series(frames)
    values = series[series["metric"] == "m"]
    assert list(values["value"]) == [1.5, 7.0]
    assert list(values["execution_id"]) == ["e1", "e2"]
    assert list(values["environment"]) == ["env1", "env2"]
    assert list(values["commit"]) == ["c1", "c2"]
    rates = series[series["metric"] == "run/success_ratio"]
    assert list(rates["value"]) == [1.0, 0.5]
    assert "system/x" not in set(series["metric"])


def test_runs_of_no_suite_are_a_series() -> None:
    """Each run that finished is an execution of its own."""
    frames = frames_of(
        [
            run_row("a", kind=None, execution=None),
            run_row("b", kind=None, execution=None, is_failed=True),
        ],
        {"a": {"loss": 1.0}, "b": {"loss": 2.0}},
    )
    (row,) = execution_series(frames).to_dict("records")
    assert (row["execution_id"], row["metric"], row["value"]) == ("a", "loss", 1.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("0.1", 0.1), ("True", True), ("None", None), ("adam", "adam"), ("1e-3", 0.001)],
)
def test_params_as_they_were(text: str, value: Any) -> None:
    """Numbers and truth values come back from the texts that MLflow keeps."""
    found = param_value(text)
    assert found == value
    assert type(found) is type(value)


def test_params_by_run() -> None:
    """Each run has its own."""
    params = pd.DataFrame(
        [("a", "x", "1"), ("a", "y", "z"), ("b", "x", "2")], columns=["run_id", "key", "value"]
    )
    assert params_by_run(params) == {"a": {"x": 1, "y": "z"}, "b": {"x": 2}}
