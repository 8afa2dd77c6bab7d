"""
From runs to the series that a scan looks at: one metric of one cell over the executions of a suite,
or over the runs of an experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import ExperimentFrames, counted_runs, shaped

#: What `trend.scan_trends` takes, and `finished_count` of `repeats`.
SERIES = {
    "cell": "object",
    "cell_key": "object",
    "metric": "object",
    "execution_id": "object",
    "started_ms": "int64",
    "value": "float64",
    "spread": "float64",
    "environment": "object",
    "commit": "object",
    "repeats": "int64",
    "finished": "int64",
}
#: The metric of how many trials of a cell finish.
SUCCESS_METRIC = "run/success_ratio"


def execution_series(
    frames: ExperimentFrames, *, metrics: Sequence[str] = (), suite: str | None = None
) -> pd.DataFrame:
    """
    The history of every metric of every cell.

    Args:
        frames: Of an experiment.
        metrics: Names or globs; by default all but resources.
        suite: Of this one alone.
    Returns:
        Columns of `SERIES`, oldest first: the median of the repeats that finished, their standard
        deviation, and the success ratio as a metric of its own. Executions that go on are left out.
        Runs of no suite are one cell, each an execution.
    """
    runs = frames.runs
    cells = runs[runs["kind"] == tags.RunKind.CELL]
    if suite is not None:
        cells = cells[cells["suite"] == suite]
    if len(cells) or suite is not None:
        return _of_suite(frames, cells, metrics)
    return _of_runs(frames, metrics)


def _of_suite(
    frames: ExperimentFrames, cells: pd.DataFrame, metrics: Sequence[str]
) -> pd.DataFrame:
    parents = frames.runs[frames.runs["kind"] == tags.RunKind.SUITE]
    over = parents[parents["is_failed"].notna()]
    heads = over.set_index("run_uid")[["started_at", "environment", "commit"]]
    counted = counted_runs(cells[cells["execution"].isin(heads.index)])
    if not len(counted):
        return shaped(pd.DataFrame(), SERIES)
    is_good = ~counted["is_failed"].astype(bool)
    # a cell is known again by its parameters, whatever version of the benchmark
    keys = ["execution", "cell"]
    totals = counted.assign(is_good=is_good).groupby(keys, sort=False)["is_good"]
    counts = totals.agg(repeats="size", finished="sum").reset_index()
    ids = counted[is_good][["run_id", *keys]]
    values = _chosen(frames.metrics, metrics).merge(ids, on="run_id")
    series = values.groupby([*keys, "key"], sort=False)["value"].agg(["median", "std"])
    series = series.reset_index().rename(
        columns={"key": "metric", "median": "value", "std": "spread"}
    )
    found = series.merge(counts, on=keys)
    if not metrics or _is_like(SUCCESS_METRIC, metrics):
        rates = counts.assign(
            metric=SUCCESS_METRIC, value=counts["finished"] / counts["repeats"], spread=float("nan")
        )
        found = pd.concat([found, rates], ignore_index=True)
    cell_keys = counted.drop_duplicates("cell").set_index("cell")["cell_key"]
    found = found.assign(
        execution_id=found["execution"],
        cell_key=found["cell"].map(cell_keys),
        **{name: found["execution"].map(heads[name]) for name in ("environment", "commit")},
        started_ms=_milliseconds(found["execution"].map(heads["started_at"])),
    )
    return shaped(found.sort_values(["started_ms", "execution_id"], kind="stable"), SERIES)


def _of_runs(frames: ExperimentFrames, metrics: Sequence[str]) -> pd.DataFrame:
    runs = frames.runs[frames.runs["kind"].isna() & frames.runs["is_failed"].eq(False)]
    values = _chosen(frames.metrics, metrics).merge(
        runs[["run_id", "environment", "commit", "started_at"]], on="run_id"
    )
    found = values.assign(
        cell="", cell_key="", metric=values["key"], execution_id=values["run_id"], repeats=1
    )
    found = found.assign(finished=1, started_ms=_milliseconds(found["started_at"]))
    return shaped(found.sort_values(["started_ms", "execution_id"], kind="stable"), SERIES)


def _chosen(metrics: pd.DataFrame, patterns: Sequence[str]) -> pd.DataFrame:
    keys = list(metrics["key"].unique())
    if patterns:
        wanted = [key for key in keys if _is_like(key, patterns)]
    else:
        wanted = [key for key in keys if not key.startswith("system/")]
    return metrics[metrics["key"].isin(wanted)][["run_id", "key", "value"]]


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, one) for one in patterns)


def _milliseconds(times: pd.Series[pd.Timestamp]) -> pd.Series[int]:
    since = times - pd.Timestamp(0, unit="ms", tz="UTC")
    return since // pd.Timedelta(milliseconds=1)
