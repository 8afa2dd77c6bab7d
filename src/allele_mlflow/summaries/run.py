"""
One run, gathered from MLflow: what it was told, how it went, what became of its records.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.analysis.frames import (
    ExperimentFrames,
    read_alerts,
    read_phases,
    resource_keys,
    whole_histories,
)
from allele_mlflow.numerals import whole_number
from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.reports.run_page import RunSummary
from allele_mlflow.reports.summary import FailureGroup
from allele_mlflow.summaries.genomes import genomes_of
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.tracking.reader import artifact_bytes

#: Keys of the benchmark whose readings are drawn, and of resources: at most.
MOST_CURVES = 4
ERRORS_FILE = f"{OWN_ARTIFACTS}/errors.json"
_DELIVERY, _OVERHEAD = "allele.delivery", "allele.logger_overhead_percent"
_SIDECAR_CPU = "allele.sidecar_cpu_s"
_FACTS = {
    "Ended by": "allele.ended_by",
    "Suite": "allele.suite",
    "Cell": "allele.cell",
    "Repeat": "allele.repeat",
    "Seed": "allele.seed",
    "Host": "allele.host",
    "Commit": "mlflow.source.git.commit",
}
_GPU_END = "_utilization_percentage"
_DRAWN = ("system/process_cpu_percent", "system/process_rss_megabytes")
_NOT_THEIRS = ("system/", "phase/", "trial/", "allele/")


def summarise_run(
    reader: Reader, tracking_uri: str, frames: ExperimentFrames, run_id: str
) -> RunSummary:
    """
    All that a report says of a run.

    Args:
        reader: Of the store.
        tracking_uri: The same store's address, for its artifacts.
        frames: Of its experiment.
        run_id: MLflow's id.
    Raises:
        TrackingError: the store does not answer.
    """
    runs = frames.runs
    run = runs[runs["run_id"] == run_id].iloc[0].to_dict()
    told = _pairs_of(_tags_of(reader, run), run_id)
    metrics = frames.metrics[frames.metrics["run_id"] == run_id]
    genomes, traits = genomes_of(tracking_uri, run_id)
    seconds = run["seconds"]
    end = None if pd.isna(seconds) else run["started_at"] + pd.Timedelta(seconds=seconds)
    return RunSummary(
        name=str(run["name"] or run_id),
        started_at=run["started_at"].to_pydatetime(),
        ended_at=None if end is None else end.to_pydatetime(),
        facts={
            "Experiment": run["experiment"],
            "Status": run["status"],
            "Run": run_id,
            **{name: told[tag] for name, tag in _FACTS.items() if told.get(tag)},
        },
        params=_pairs_of(frames.params, run_id),
        tags=told,
        metrics=metrics[["key", "step", "value"]],
        history=_curves(reader, run, metrics),
        phases=read_phases(tracking_uri, [run_id]),
        samples=_samples(reader, run_id, metrics),
        alerts=read_alerts(tracking_uri, [run_id]),
        errors=_errors(tracking_uri, run_id, told),
        genomes=genomes,
        traits=traits,
        delivery=dict(_delivery(told)),
        notes=("The run goes on: this is what has arrived.",) if end is None else (),
    )


def _tags_of(reader: Reader, run: Mapping[str, Any]) -> pd.DataFrame:
    return reader.runs([str(run["experiment_id"])], param_keys=[], metric_keys=[]).tags


def _pairs_of(frame: pd.DataFrame, run_id: str) -> dict[str, str]:
    own = frame[frame["run_id"] == run_id]
    return dict(zip(own["key"], own["value"], strict=True))


def _curves(reader: Reader, run: Mapping[str, Any], metrics: pd.DataFrame) -> pd.DataFrame:
    """
    The readings of the first keys of the benchmark's own that have several steps.
    """
    keys = sorted(key for key in metrics["key"].unique() if not key.startswith(_NOT_THEIRS))
    readings = whole_histories(reader, [run["run_id"]], keys[: 4 * MOST_CURVES])
    steps = readings.groupby("key")["step"].nunique()
    drawn = [key for key in keys if steps.get(key, 0) > 1][:MOST_CURVES]
    found = readings[readings["key"].isin(drawn)].sort_values("key", kind="stable")
    name = run["name"] or run["run_id"]
    return found.assign(cell=name, cell_key=run["run_id"], repeat=0)


def _samples(reader: Reader, run_id: str, metrics: pd.DataFrame) -> pd.DataFrame:
    wanted = [key for key in resource_keys(metrics) if key in _DRAWN or key.endswith(_GPU_END)]
    return whole_histories(reader, [run_id], wanted)


def _errors(tracking_uri: str, run_id: str, told: Mapping[str, str]) -> tuple[FailureGroup, ...]:
    """
    The errors by fingerprint: of its file, else the last one, which the tags name.
    """
    data = artifact_bytes(tracking_uri, run_id, ERRORS_FILE)
    if data is not None:
        with contextlib.suppress(msgspec.MsgspecError):
            return _groups_of(msgspec.json.decode(data, type=_Document))
    if "allele.error.category" not in told:
        return ()
    count = told.get("allele.error.count", "1")
    parts = (told.get("allele.error.type", ""), told.get("allele.error.message", ""))
    message = ": ".join(part for part in parts if part)
    number = whole_number(count) or 1
    return (FailureGroup(told["allele.error.category"], "", number, message),)


class _Error(msgspec.Struct):
    category: str = "unknown"
    error_type: str = ""
    message: str = ""
    fingerprint: str = ""


class _Document(msgspec.Struct):
    errors: list[_Error] = []
    by_fingerprint: dict[str, int] = {}


def _groups_of(document: _Document) -> tuple[FailureGroup, ...]:
    seen = Counter(one.fingerprint for one in document.errors)
    firsts = {one.fingerprint: one for one in reversed(document.errors)}
    groups = [
        FailureGroup(
            one.category,
            fingerprint,
            document.by_fingerprint.get(fingerprint, seen[fingerprint]),
            f"{one.error_type}: {one.message}",
        )
        for fingerprint, one in firsts.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.count))


def _delivery(told: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """
    The ledger, and what logging cost.
    """
    try:
        ledger = msgspec.json.decode(told.get(_DELIVERY, "{}"), type=dict[str, Any])
    except msgspec.MsgspecError:
        ledger = {}
    for name, value in ledger.items():
        if isinstance(value, dict):
            yield from ((f"{name}: {kind}", f"{count:,}") for kind, count in value.items())
        elif isinstance(value, int):
            yield name, f"{value:,}"
        elif value is not None:
            yield name, value
    if _OVERHEAD in told:
        yield "log calls, percent of the run's time", told[_OVERHEAD]
    if _SIDECAR_CPU in told:
        yield "CPU of the sidecar (s)", told[_SIDECAR_CPU]
