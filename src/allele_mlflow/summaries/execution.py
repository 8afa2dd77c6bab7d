"""
An execution of a suite, gathered from MLflow.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import ExperimentFrames, counted_runs, params_by_run
from allele_mlflow.analysis.selection import (
    ENVIRONMENT_FILE,
    SUITE_FILE,
    FoundRuns,
    SuiteFacts,
    facts_of_suite,
)
from allele_mlflow.environment.fingerprint import Environment, read_environment
from allele_mlflow.numerals import whole_number
from allele_mlflow.reports.summary import FINISHED, FailureGroup, Objective, SuiteSummary
from allele_mlflow.summaries.evidence import compare_with_before, search_curves
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.tracking.reader import artifact_bytes

#: Readings of objectives that are drawn, at most.
MOST_READINGS = 1_000_000
ERRORS_FILE = "errors.json"
SECONDS = "trial/seconds"
_ERROR_TAGS = ("allele.error.category", "allele.error.type", "allele.error.message")
_NOT_RUN = "allele.suite.not_run"
#: Metrics that the runner and the sidecar add to those of the benchmark.
_NOT_THEIRS = ("system/", "phase/", "trial/", "allele/")
_SETTINGS = ("benchmark", "repeats", "warm_ups", "seed", "timeout_s", "executor")


def summarise_execution(reader: Reader, tracking_uri: str, found: FoundRuns) -> SuiteSummary:
    """
    All that a report says of an execution.

    Args:
        reader: Of the store.
        tracking_uri: The same store's address, for its artifacts.
        found: An execution, as `find_runs` finds it.
    Raises:
        TrackingError: the store does not answer.
    """
    execution = found.execution
    assert execution is not None
    run_id = str(execution["run_id"])
    suite = _suite_of(tracking_uri, run_id)
    facts = facts_of_suite(suite)
    counted = counted_runs(found.runs)
    results = results_of(found.frames.of(counted))
    objectives = objectives_of(facts)
    history, notes = objective_history(reader, results, [one.name for one in objectives])
    comparison, note = compare_with_before(tracking_uri, found)
    told = _tags_of(reader, execution, [_NOT_RUN])
    running = int(found.runs["is_failed"].isna().sum())
    left = _whole(told.get(_NOT_RUN))
    return SuiteSummary(
        suite=str(execution["suite"] or execution["name"]),
        execution=str(execution["run_uid"] or run_id),
        started_at=execution["started_at"].to_pydatetime(),
        ended_at=_end_of(execution),
        where=", ".join(map(str, counted["host"].dropna().unique())),
        objectives=objectives,
        results=results,
        history=history,
        failures=_failures(reader, tracking_uri, run_id, found.runs),
        planned_count=len(results) + running + left,
        settings={name.replace("_", "-"): suite[name] for name in _SETTINGS if name in suite},
        environment=_environment_of(tracking_uri, run_id),
        comparison=comparison,
        searches=tuple(search_curves(history, objectives)),
        notes=(
            *_not_counted(running, left),
            *notes,
            *((note,) if note else ()),
        ),
    )


def results_of(frames: ExperimentFrames) -> pd.DataFrame:
    """
    Runs of cells as `SuiteSummary.results`, in the order in which they were to be run.

    Args:
        frames: Of an execution, one run a trial.
    """
    runs = frames.runs.sort_values(["order", "started_at"], kind="stable", na_position="last")
    ids = runs["run_id"]
    wide = frames.metrics.pivot_table(
        index="run_id", columns="key", values="value", aggfunc="last", dropna=False
    ).reindex(ids)
    seconds = wide[SECONDS] if SECONDS in wide else pd.Series(float("nan"), index=ids)
    found = runs[["cell", "cell_key", "repeat", "attempt", "seed", "order", "host"]].assign(
        run_id=ids,
        run_uid=runs["run_uid"],
        status=["failed" if failed else FINISHED for failed in runs["is_failed"]],
        category=runs["error_category"],
        seconds=seconds.fillna(runs.set_index("run_id")["seconds"]).to_numpy(),
    )
    told = params_by_run(frames.params)
    names = dict.fromkeys(name for run_id in ids for name in told.get(run_id, {}))
    columns = {f"param.{name}": [told.get(one, {}).get(name) for one in ids] for name in names}
    own = [key for key in map(str, wide) if not key.startswith(_NOT_THEIRS)]
    columns |= {f"metric.{key}": wide[key].to_numpy() for key in own}
    return pd.concat([found.reset_index(drop=True), pd.DataFrame(columns)], axis=1)


def objectives_of(facts: SuiteFacts) -> tuple[Objective, ...]:
    """
    What the suite is about, in its order.
    """
    return tuple(
        Objective(name, one.unit, one.direction)
        for name, one in facts.metrics.items()
        if one.is_objective
    )


def objective_history(
    reader: Reader, results: pd.DataFrame, names: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """
    The readings of objectives as `SuiteSummary.history`, and what was left out.

    Raises:
        TrackingError: the store does not answer.
    """
    wanted = results[results["run_id"].notna()].set_index("run_id")
    pages, count = [], 0
    if names and len(wanted):
        for page in reader.history(list(wanted.index), list(names)):
            pages.append(page)
            count += len(page)
            if count >= MOST_READINGS:
                break
    if not count:
        return pd.DataFrame(), []
    readings = pd.concat(pages, ignore_index=True)
    joined = readings.join(wanted[["cell", "cell_key", "repeat"]], on="run_id")
    is_cut = count >= MOST_READINGS
    return joined, [f"Curves are of the first {count:,} readings."] if is_cut else []


def environment_lines(environment: Environment) -> dict[str, object]:
    """
    What a reader wants to know of a machine, in few lines.
    """
    told = msgspec.to_builtins(environment)
    names = ("host", "system", "cpu_model", "usable_cpu_count", "python", "commit", "is_dirty")
    found = {name.replace("_", " "): told[name] for name in names if told.get(name) is not None}
    if environment.memory_bytes is not None:
        found["memory"] = f"{environment.memory_bytes / (1 << 30):.0f} GiB"
    gpus = [gpu.name for gpu in environment.gpus or ()]
    if gpus:
        found["GPUs"] = ", ".join(map(str, gpus))
    return found


def _suite_of(tracking_uri: str, run_id: str) -> dict[str, Any]:
    data = artifact_bytes(tracking_uri, run_id, SUITE_FILE)
    if data is not None:
        with contextlib.suppress(UnicodeDecodeError, tomllib.TOMLDecodeError):
            return tomllib.loads(data.decode("utf-8"))
    return {}


def _environment_of(tracking_uri: str, run_id: str) -> dict[str, object]:
    data = artifact_bytes(tracking_uri, run_id, ENVIRONMENT_FILE)
    if data is not None:
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            return environment_lines(read_environment(data))
    return {}


def _end_of(execution: Mapping[str, Any]) -> Any:
    seconds = execution["seconds"]
    if pd.isna(seconds):
        return None
    return (execution["started_at"] + pd.Timedelta(seconds=seconds)).to_pydatetime()


def _tags_of(reader: Reader, run: Mapping[str, Any], keys: Sequence[str]) -> dict[str, str]:
    told = reader.runs(
        [str(run["experiment_id"])],
        with_tags={tags.RUN_UID: str(run["run_uid"])},
        tag_keys=keys,
        param_keys=[],
        metric_keys=[],
    ).tags
    return dict(zip(told["key"], told["value"], strict=True))


def _whole(text: str | None) -> int:
    return whole_number(text) or 0


def _failures(
    reader: Reader, tracking_uri: str, run_id: str, runs: pd.DataFrame
) -> tuple[FailureGroup, ...]:
    """
    Every failed attempt by what it was: as the suite's end grouped them, else by the runs' tags.
    """
    data = artifact_bytes(tracking_uri, run_id, ERRORS_FILE)
    if data is not None:
        with contextlib.suppress(msgspec.MsgspecError):
            return tuple(map(_group_of, msgspec.json.decode(data, type=_Errors).errors))
    failed = runs[runs["is_failed"].fillna(False).astype(bool)]
    if not len(failed):
        return ()
    told = reader.runs(
        list(failed["experiment_id"].unique()), tag_keys=_ERROR_TAGS, param_keys=[], metric_keys=[]
    ).tags
    wide = told.pivot_table(index="run_id", columns="key", values="value", aggfunc="last")
    wide = wide.reindex(index=failed["run_id"], columns=list(_ERROR_TAGS)).astype("object")
    wide = wide.where(wide.notna(), "")
    cells = dict(zip(failed["run_id"], failed["cell"].fillna(""), strict=True))
    groups = [
        FailureGroup(
            str(key[0]) or "unknown",
            "",
            len(rows),
            ": ".join(part for part in map(str, key[1:]) if part),
            tuple(dict.fromkeys(str(cells[one]) for one in rows.index)),
        )
        for key, rows in wide.groupby(list(_ERROR_TAGS), sort=False)
    ]
    return tuple(sorted(groups, key=lambda group: -group.count))


class _Error(msgspec.Struct):
    category: str = "unknown"
    error_type: str = ""
    fingerprint: str = ""
    count: int = 0
    message: str = ""
    cells: list[str] = []


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


def _group_of(error: _Error) -> FailureGroup:
    message = f"{error.error_type}: {error.message}"
    return FailureGroup(error.category, error.fingerprint, error.count, message, tuple(error.cells))


def _not_counted(running: int, left: int) -> Iterator[str]:
    if running:
        go = "1 run goes on, and is" if running == 1 else f"{running} runs go on, and are"
        yield f"{go} not in this report."
    if left:
        yield "1 trial was not run." if left == 1 else f"{left} trials were not run."
