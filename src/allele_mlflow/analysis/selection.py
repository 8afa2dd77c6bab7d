"""
What a person means by `evolution~1[mutation_rate < 0.2]`: runs of the store, ready to be compared.

    NAME              an experiment (its prefix may be left out), or the id, uid or name of a run.
                      Of a suite: its newest execution; of a suite's own run: that execution; of
                      one side of a confirmation, of a verification: its runs; of anything else:
                      all runs that are over
    NAME~N            the execution N before the newest
    NAME[EXPRESSION]  of these the runs of which the expression is true, over params and tags (in
                      whose names all but letters and digits is written as _)
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.frames import (
    ExperimentFrames,
    counted_runs,
    params_by_run,
    read_experiments,
)
from allele_mlflow.analysis.run_expressions import runs_that_hold
from allele_mlflow.analysis.sides import CELL, IS_FAILED, SEED
from allele_mlflow.environment.fingerprint import Environment, read_environment
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.expressions import Expression, parse_expression
from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.tracking.frames import MOST_RUN_IDS, Reader
from allele_mlflow.tracking.reader import artifact_bytes
from allele_mlflow.units import Direction

SUITE_FILE = "suite.toml"
ENVIRONMENT_FILE = "environment.json"
_TARGET = re.compile(r"(?P<name>[^\[]+?)(?:~(?P<back>\d+))?(?:\[(?P<wanted>.*)\])?", re.DOTALL)
#: What tells which runs a name means.
_TELLING = ("kind", "suite", "execution", "run_uid")
_NAMES_SHOWN = 12
_SHORT_ID = 8


class Target(NamedTuple):
    """
    A selection as it was written, in its parts.
    """

    text: str
    name: str
    back: int
    wanted: Expression | None


class KnownMetric(NamedTuple):
    """
    What a suite says of a metric.
    """

    direction: Direction
    unit: str
    is_objective: bool


@dataclass(frozen=True)
class SuiteFacts:
    """
    What a suite's file says: metrics by name, and the parameters that tell its cells apart.
    """

    metrics: Mapping[str, KnownMetric] = field(default_factory=dict)
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """
    Runs that stand on one side of a comparison.

    Attributes:
        target: As it was written.
        label: For people: name, time and short id of the execution.
        frames: The runs, of a suite one for each trial.
        facts: Of the suite, where it is one.
        running_count: Runs left out because they go on.
        environment: Where they ran; None where that is not known.
        environment_ids: All the environments they ran in, by identity.
    """

    target: Target
    label: str
    frames: ExperimentFrames
    facts: SuiteFacts
    running_count: int
    environment: Environment | None
    environment_ids: tuple[str, ...]


class FoundRuns(NamedTuple):
    """
    What a name means in a store.

    Attributes:
        target: The name as it was written.
        frames: All runs of the experiments that it is of.
        runs: Those that are meant.
        execution: The suite's own run, where they are an execution.
    """

    target: Target
    frames: ExperimentFrames
    runs: pd.DataFrame
    execution: Mapping[str, Any] | None


def parse_target(text: str) -> Target:
    """
    The parts of a selection.

    Raises:
        AnalysisError: it has none of the forms.
        MatrixError: the expression is none.
    """
    found = _TARGET.fullmatch(text.strip())
    if found is None:
        raise _none(text, "want NAME, NAME~N or NAME[EXPRESSION]")
    wanted = found["wanted"]
    return Target(
        text,
        found["name"].strip(),
        int(found["back"] or 0),
        None if wanted is None else parse_expression(wanted),
    )


def select(reader: Reader, tracking_uri: str, text: str, *, prefix: str = "") -> Selection:
    """
    The runs that a text means.

    Args:
        reader: Of the store.
        tracking_uri: The same store's address, for its artifacts.
        text: As at the top of this module.
        prefix: What may be left out before an experiment's name.
    Raises:
        AnalysisError: there is no such experiment or run, or nothing of it is over.
        TrackingError: the store does not answer.

    Cost: of all runs of the experiment it reads what tells them apart, and their params where there
    is an expression; of those that are meant everything, and with more than `MOST_RUN_IDS` of them
    of all runs of the execution.
    """
    target = parse_target(text)
    ids = _experiments_of(reader, target, prefix)
    param_keys: list[str] | None = None if target.wanted is not None else []
    frames = read_experiments(reader, ids, param_keys=param_keys, metric_keys=[], columns=_TELLING)
    meant, execution = _of_target(frames, target)
    if target.wanted is not None:
        meant = _that_hold(reader, frames.of(meant), target)
    few = list(meant["run_id"]) if len(meant) <= MOST_RUN_IDS else None
    of_execution = {tags.EXECUTION: execution["run_uid"]} if execution is not None else None
    whole = read_experiments(reader, ids, run_ids=few, with_tags=of_execution)
    runs = whole.runs[whole.runs["run_id"].isin(meant["run_id"])]
    return select_found(tracking_uri, FoundRuns(target, whole, runs, execution))


def find_runs(reader: Reader, text: str, *, prefix: str = "") -> FoundRuns:
    """
    The runs that a name means, whether they are over or not; its expression is left aside.

    Raises:
        AnalysisError: there is no such experiment or run.
        TrackingError: the store does not answer.
    """
    target = parse_target(text)
    frames = read_experiments(reader, _experiments_of(reader, target, prefix))
    return FoundRuns(target, frames, *_of_target(frames, target))


def select_found(
    tracking_uri: str,
    found: FoundRuns,
    *,
    facts: SuiteFacts | None = None,
    environment: Environment | None = None,
) -> Selection:
    """
    Of the runs that were found those that count, with what their suite says of itself.

    Args:
        tracking_uri: Of the store that they are in.
        found: By `find_runs`.
        facts: Of the suite, where the caller knows them.
        environment: Likewise where they ran.
    Raises:
        AnalysisError: none of them is over.
        TrackingError: the store does not answer.
    """
    target, frames, runs, execution = found
    over = counted_runs(runs) if execution is not None else runs[runs["is_failed"].notna()]
    if not len(over):
        none = "its one run is not" if len(runs) == 1 else f"none of its {len(runs):,} runs is"
        raise _none(target.text, f"{none} over")
    of_suite = execution["run_id"] if execution is not None else _parent_of(over)
    return Selection(
        target,
        _label(target, execution),
        frames.of(over),
        facts or read_facts(tracking_uri, of_suite),
        int(runs["is_failed"].isna().sum()),
        environment or _environment(tracking_uri, of_suite, over),
        tuple(dict.fromkeys(over["environment"].dropna())),
    )


def find_experiments(reader: Reader, names: Sequence[str], *, prefix: str = "") -> list[str]:
    """
    The ids of active experiments, in whose names the prefix may be left out.

    Raises:
        AnalysisError: one is not there.
        TrackingError: the store does not answer.
    """
    experiments = reader.experiments()
    active = experiments[experiments["lifecycle"] == "active"]
    ids = dict(zip(active["name"], active["experiment_id"], strict=True))
    found = []
    for name in names:
        known = next((one for one in (name, f"{prefix}{name}") if one in ids), None)
        if known is None:
            raise _none(name, f"there is no such experiment; {_listed(ids, prefix)}")
        found.append(str(ids[known]))
    return list(dict.fromkeys(found))


def read_facts(tracking_uri: str, run_id: str | None) -> SuiteFacts:
    """
    What the suite says of itself in the artifacts of its own run; nothing where there is none.

    Raises:
        TrackingError: the store does not answer.
    """
    data = artifact_bytes(tracking_uri, run_id, SUITE_FILE) if run_id else None
    if data is None:
        return SuiteFacts()
    try:
        suite = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return SuiteFacts()
    return facts_of_suite(suite)


def facts_of_suite(suite: Mapping[str, Any]) -> SuiteFacts:
    """
    The facts in a suite's file, as tables; what is not as it should be is left out.
    """
    metrics = {}
    for name, told in _table(suite.get("metrics")).items():
        with contextlib.suppress(ValueError):
            facts = _table(told)
            metrics[name] = KnownMetric(
                Direction(facts.get("direction", Direction.NONE)),
                str(facts.get("unit", "")),
                bool(facts.get("objective", False)),
            )
    more = [group for name in ("zip", "include") for group in _list(suite.get(name))]
    groups = [_table(group) for group in (suite.get("matrix"), *more)]
    return SuiteFacts(metrics, tuple(dict.fromkeys(name for group in groups for name in group)))


def side_table(
    selection: Selection, *, without: Collection[str] = (), by: Sequence[str] = ()
) -> pd.DataFrame:
    """
    A row a run, as `comparison.compare` takes it.

    Args:
        selection: The runs.
        without: Parameters by which the sides were chosen: no part of a cell's name.
        by: Parameters that name the cell, for runs of no suite.
    """
    frames = selection.frames
    runs = frames.runs.set_index("run_id")
    told = params_by_run(frames.params)
    axes = [name for name in (by or selection.facts.axes) if name not in without]
    known = [_named(told.get(run_id, {}), axes) for run_id in runs.index]
    table = run_table(frames)
    is_told = not by and not without and runs["cell"].notna().all()
    table.insert(0, CELL, runs["cell"] if is_told else known)
    return table


def run_table(frames: ExperimentFrames) -> pd.DataFrame:
    """
    A row a run: its seed, whether it failed, and a column a metric.
    """
    runs = frames.runs.set_index("run_id")
    values = frames.metrics.pivot_table(
        index="run_id", columns="key", values="value", aggfunc="last"
    )
    seeds = runs["seed"]
    if seeds.isna().all():
        told = params_by_run(frames.params)
        given = [told.get(run_id, {}).get("seed") for run_id in runs.index]
        seeds = pd.Series(pd.to_numeric(pd.Series(given), errors="coerce").to_numpy(), runs.index)
    head = pd.DataFrame({SEED: seeds, IS_FAILED: runs["is_failed"].astype(bool)}, index=runs.index)
    return head.join(values)


def _named(params: Mapping[str, Any], axes: Sequence[str]) -> str:
    return " ".join(f"{name}={params[name]}" for name in axes if name in params)


def _experiments_of(reader: Reader, target: Target, prefix: str) -> list[str]:
    """
    The ids of the experiments that the runs of a name are in.
    """
    experiments = reader.experiments()
    active = experiments[experiments["lifecycle"] == "active"]
    ids = dict(zip(active["name"], active["experiment_id"], strict=True))
    for name in (target.name, f"{prefix}{target.name}"):
        if name in ids:
            return [str(ids[name])]
    by_id = reader.runs(run_ids=[target.name], tag_keys=[], param_keys=[], metric_keys=[]).runs
    if len(by_id):
        return list(by_id["experiment_id"].unique())
    told = reader.runs(tag_keys=[tags.RUN_UID], param_keys=[], metric_keys=[])
    by_uid = told.tags[told.tags["value"] == target.name]["run_id"]
    runs = told.runs
    for meant in (runs["run_id"].isin(by_uid), runs["name"] == target.name):
        if meant.any():
            return list(runs[meant]["experiment_id"].unique())
    raise _none(
        target.text, f"there is no such experiment, run id, uid or name; {_listed(ids, prefix)}"
    )


def _listed(names: Collection[str], prefix: str) -> str:
    plain = sorted(name.removeprefix(prefix) for name in names)
    more = f" and {len(plain) - _NAMES_SHOWN} more" if len(plain) > _NAMES_SHOWN else ""
    return f"experiments: {', '.join(plain[:_NAMES_SHOWN]) or 'none'}{more}"


def _of_target(
    frames: ExperimentFrames, target: Target
) -> tuple[pd.DataFrame, Mapping[str, Any] | None]:
    """
    The runs that are meant, and the suite's own run where they are an execution.
    """
    runs = frames.runs
    is_one = (runs[["run_id", "run_uid", "name"]] == target.name).any(axis=1)
    meant = runs[is_one & (runs["experiment"] != target.name)]
    suites = runs[runs["kind"] == tags.RunKind.SUITE]
    chosen = meant[meant["kind"].isin(list(tags.CELLS_OF))]
    if len(meant) and not len(chosen):
        if target.back:
            raise _none(target.text, "~N is of a suite's executions, and this is a run")
        return meant, None
    if not len(suites) and not len(chosen):
        if target.back:
            raise _none(target.text, "~N is of a suite's executions, and this is no suite")
        beside = [pair for pair in tags.CELLS_OF.items() if pair[0] is not tags.RunKind.SUITE]
        others = [kind for pair in beside for kind in pair]
        return runs[~runs["kind"].isin(others)], None
    among = chosen if len(chosen) else suites
    if target.back >= len(among):
        raise _none(
            target.text, f"the suite has {len(among)} execution{'' if len(among) == 1 else 's'}"
        )
    execution = among.iloc[target.back].to_dict()
    is_cell = runs["kind"] == tags.CELLS_OF[tags.RunKind(execution["kind"])]
    return runs[(runs["execution"] == execution["run_uid"]) & is_cell], execution


def _that_hold(reader: Reader, frames: ExperimentFrames, target: Target) -> pd.DataFrame:
    assert target.wanted is not None
    found = runs_that_hold(reader, frames, target.wanted, text=target.text)
    if not len(found):
        count = len(frames.runs)
        raise _none(target.text, f"of {count} run{'' if count == 1 else 's'} it is true of none")
    return found


def _label(target: Target, execution: Mapping[str, Any] | None) -> str:
    wanted = f"[{target.wanted.text}]" if target.wanted is not None else ""
    if execution is None:
        return f"{target.name}{wanted}"
    when = execution["started_at"].strftime("%Y-%m-%d %H:%M")
    return f"{execution['suite']}{wanted} of {when} UTC ({str(execution['run_uid'])[:_SHORT_ID]})"


def _parent_of(runs: pd.DataFrame) -> str | None:
    parents = runs["parent_run_id"].dropna().unique()
    return str(parents[0]) if len(parents) == 1 else None


def _environment(tracking_uri: str, of_suite: str | None, runs: pd.DataFrame) -> Environment | None:
    places = [(of_suite, ENVIRONMENT_FILE)] if of_suite else []
    places.append((runs["run_id"].iloc[0], f"{OWN_ARTIFACTS}/{ENVIRONMENT_FILE}"))
    for run_id, path in places:
        data = artifact_bytes(tracking_uri, str(run_id), path)
        if data is not None:
            with contextlib.suppress(msgspec.MsgspecError, ValueError):
                return read_environment(data)
    return None


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _none(text: str, what: str) -> AnalysisError:
    return AnalysisError(f"{text!r}: {what}", kind=ErrorKind.BAD_DATA, selection=text)
