"""
The plan of a clean-up: what `allele-mlflow gc` would delete, and why the rest stays.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.selection import find_experiments, read_facts
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import ErrorKind, RegistryError, TrackingError, TransientTrackingError
from allele_mlflow.registry.reachability import KnownRun, KnownRuns, reach
from allele_mlflow.registry.retention import (
    Decision,
    Rules,
    Verdict,
    best_runs,
    clock_problem,
    decide,
    weigh,
)
from allele_mlflow.registry.retention_roots import Registries, open_registries, own_roots
from allele_mlflow.settings import Settings
from allele_mlflow.tracking.client_registry import MODEL_TAG
from allele_mlflow.tracking.frames import Reader
from allele_mlflow.tracking.reader import open_reader
from allele_mlflow.tracking.run_artifacts import RunArtifacts
from allele_mlflow.units import Direction

#: Of a run: why its artifacts stay, and those of all runs below it.
PIN_TAG = "allele.pin"
#: Of a run: what was deleted of it, as of `Mark`.
RETENTION_TAG = "allele.retention"
_LISTERS = 8
#: Stores that do not answer for so many runs one after the other are away.
MOST_FAILURES = 5

#: Told what is done and how far: of so many, so many.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RetentionPlan:
    """
    A decision for every run that was looked at, newest first.
    """

    decisions: tuple[Decision, ...]

    @property
    def deleted(self) -> tuple[Decision, ...]:
        """
        Those whose artifacts go.
        """
        return tuple(one for one in self.decisions if one.is_deleted)

    @property
    def size_bytes(self) -> int:
        """
        All that goes.
        """
        return sum(one.size_bytes or 0 for one in self.deleted)

    @property
    def file_count(self) -> int:
        """
        All that goes.
        """
        return sum(one.files or 0 for one in self.deleted)


def plan_retention(
    settings: Settings,
    rules: Rules,
    *,
    experiments: Sequence[str] = (),
    has_registry: bool = True,
    registries: Registries | None = None,
    on_progress: OnProgress = lambda doing, done, total: None,
) -> RetentionPlan:
    """
    What a clean-up by these rules would delete.

    Args:
        settings: Of store, registry and prefix.
        rules: What may go.
        experiments: Their names, with or without the prefix; by default all that have it.
        has_registry: Whether there is a registry beside the store.
        registries: The same, where they were opened before.
        on_progress: Called now and then.
    Raises:
        RegistryError: what is reached cannot be told (UNCLEAR), or the registry is disabled.
        AnalysisError: there is no such experiment.
        TrackingError: store or registry do not answer.

    Cost: one look at all runs of the store and their tags, and for each run that may go a listing
    of its artifacts.
    """
    decisions = decide_retention(
        settings,
        rules,
        experiments=experiments,
        registries=registries or open_registries(settings, has_registry=has_registry),
        on_progress=on_progress,
    )
    artifacts = RunArtifacts(settings.tracking_uri)
    return RetentionPlan(tuple(weigh_decisions(artifacts, decisions, rules, on_progress)))


def decide_retention(
    settings: Settings,
    rules: Rules,
    *,
    experiments: Sequence[str],
    registries: Registries,
    on_progress: OnProgress = lambda doing, done, total: None,
) -> list[Decision]:
    """
    The same before anybody has looked at what the runs have: those that go may have nothing that
    goes. Arguments and errors as of `plan_retention`.
    """
    uri, now_ms = settings.tracking_uri, now_ns() // 1_000_000
    with contextlib.closing(open_reader(uri)) as reader:
        on_progress("reading runs", 0, 0)
        runs = read_runs(reader)
        names = _names(reader, experiments, settings.experiment_prefix)
        wanted = [run for run in runs.by_id.values() if run.experiment in names]
        problem = clock_problem(wanted, now_ms)
        if problem is not None:
            raise RegistryError(problem, kind=ErrorKind.UNCLEAR)
        on_progress("reading the registry", 0, 0)
        reached = reached_runs(runs, registries)
        best = _best(reader, uri, wanted, rules) if rules.keep_best else None
    return decide(runs, wanted, reached, rules, now_ms=now_ms, best=best)


def reached_runs(runs: KnownRuns, registries: Registries) -> dict[str, str]:
    """
    What is reached from registries, journals and pins, and why.

    Raises:
        RegistryError: it cannot be told (UNCLEAR).
        TrackingError: a registry does not answer.
    """
    return reach([*own_roots(runs), *registries.roots(runs)], runs.references())


def read_runs(reader: Reader) -> KnownRuns:
    """
    All runs of a store, deleted ones too, with what their tags name.

    Raises:
        TrackingError: the store does not answer.
    """
    experiments = reader.experiments()
    names = dict(zip(experiments["experiment_id"], experiments["name"], strict=True))
    told = reader.runs(with_deleted=True, param_keys=[], metric_keys=[])
    own = told.tags[told.tags["key"] == tags.RUN_UID]["value"]
    ids = set(told.runs["run_id"]) | set(own)
    by_run: dict[str, dict[str, str]] = {run_id: {} for run_id in told.runs["run_id"]}
    for run_id, key, value in told.tags[["run_id", "key", "value"]].itertuples(index=False):
        by_run[run_id][key] = value
    return KnownRuns(
        _known(row, by_run[row.run_id], names, ids) for row in told.runs.itertuples(index=False)
    )


def _known(row: Any, told: dict[str, str], names: dict[str, str], ids: set[str]) -> KnownRun:
    return KnownRun(
        run_id=row.run_id,
        experiment=names.get(row.experiment_id, ""),
        name=row.name or "",
        status=row.status,
        artifact_uri=row.artifact_uri or "",
        is_active=row.lifecycle == "active",
        started_ms=_ms(row.start_time),
        ended_ms=_ms(row.end_time),
        uid=told.get(tags.RUN_UID),
        kind=told.get(tags.KIND),
        suite=told.get(tags.SUITE),
        cell=told.get(tags.CELL_KEY),
        execution=told.get(tags.EXECUTION),
        parent=told.get("mlflow.parentRunId"),
        kept=_kept(told),
        retention=told.get(RETENTION_TAG),
        named=tuple(value for key, value in told.items() if value in ids and key != tags.RUN_UID),
    )


def _kept(told: dict[str, str]) -> str | None:
    if MODEL_TAG in told:
        return f"the journal of {told[MODEL_TAG]}"
    return f"pinned: {told[PIN_TAG]}" if PIN_TAG in told else None


def _ms(time: pd.Timestamp) -> int | None:
    return None if pd.isna(time) else int(time.value // 1_000_000)


def _names(reader: Reader, experiments: Sequence[str], prefix: str) -> set[str]:
    known = reader.experiments()
    active = known[known["lifecycle"] == "active"]
    if experiments:
        ids = find_experiments(reader, experiments, prefix=prefix)
        return set(active[active["experiment_id"].isin(ids)]["name"])
    return {name for name in active["name"] if name.startswith(prefix)}


def _best(reader: Reader, uri: str, wanted: Sequence[KnownRun], rules: Rules) -> dict[str, str]:
    """
    The best of each cell, by the metrics that were named or the objectives of each suite.
    """
    directions = _directions(uri, wanted, rules)
    metrics = sorted({name for known in directions.values() for name in known})
    experiments = reader.experiments()
    names = {run.experiment for run in wanted}
    ids = list(experiments[experiments["name"].isin(names)]["experiment_id"])
    told = reader.runs(ids, tag_keys=[], param_keys=[], metric_keys=metrics).metrics
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    for run_id, key, value in told[["run_id", "key", "value"]].itertuples(index=False):
        values[key][run_id] = value
    return best_runs(
        wanted,
        values,
        lambda run, metric: directions[_suite_of(run)].get(metric, Direction.NONE),
        rules.keep_best,
    )


def _directions(
    uri: str, wanted: Sequence[KnownRun], rules: Rules
) -> dict[tuple[str, str | None], dict[str, Direction]]:
    """
    What is best in each suite, as the file of its newest execution says.
    """
    found = {_suite_of(run): dict(rules.metrics or {}) for run in wanted}
    if rules.metrics:
        return found
    newest: dict[tuple[str, str | None], KnownRun] = {}
    for run in wanted:
        if run.kind == tags.RunKind.SUITE:
            newest.setdefault(_suite_of(run), run)
    for suite in found:
        facts = read_facts(uri, newest[suite].run_id).metrics if suite in newest else {}
        found[suite] = {
            name: one.direction
            for name, one in facts.items()
            if one.is_objective and one.direction is not Direction.NONE
        }
        if not found[suite]:
            raise RegistryError(
                f"what is best in {suite[1] or suite[0]} cannot be told: it has no objective with "
                "a direction; want --higher METRIC or --lower METRIC",
                kind=ErrorKind.UNCLEAR,
            )
    return found


def _suite_of(run: KnownRun) -> tuple[str, str | None]:
    return run.experiment, run.suite


def weigh_decisions(
    artifacts: RunArtifacts,
    decisions: Sequence[Decision],
    rules: Rules,
    on_progress: OnProgress = lambda doing, done, total: None,
) -> Iterator[Decision]:
    """
    The decisions, once it is known what the runs that may go have.

    Raises:
        TrackingError: the store of artifacts does not answer.

    Cost: for each run that may go a listing of its artifacts.
    """
    total, done, failures = sum(one.is_deleted for one in decisions), 0, 0

    def look(decision: Decision) -> Decision | TrackingError:
        try:
            return weigh(decision, artifacts.sizes(decision.run.artifact_uri), rules)
        except TrackingError as exc:
            return exc

    with ThreadPoolExecutor(_LISTERS) as pool:
        waiting = [pool.submit(look, one) if one.is_deleted else None for one in decisions]
        try:
            for decision, future in zip(decisions, waiting, strict=True):
                if future is None:
                    yield decision
                    continue
                found = future.result()
                done += 1
                on_progress("looking at artifacts", done, total)
                if isinstance(found, Decision):
                    failures = 0
                    yield found
                    continue
                failures += isinstance(found, TransientTrackingError)
                if failures >= MOST_FAILURES:
                    raise found
                yield replace(decision, verdict=Verdict.UNCLEAR, why=str(found))
        finally:
            pool.shutdown(cancel_futures=True)


def count_verdicts(decisions: Iterable[Decision]) -> dict[str, int]:
    """
    How many runs have which verdict.
    """
    return dict(Counter(one.verdict.value for one in decisions).most_common())
