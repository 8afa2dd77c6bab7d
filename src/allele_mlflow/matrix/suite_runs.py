"""
The runs of a suite: its own, and what the process of a cell is asked to make of that cell's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.logger import start_logger
from allele_mlflow.matrix.cells import repeat_seed
from allele_mlflow.matrix.executors import CellExecutor
from allele_mlflow.matrix.messages import CellRequest, Place
from allele_mlflow.matrix.plan import Submit
from allele_mlflow.matrix.prepared import SUITE_FILE, Prepared
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings


def start_suite_log(
    prepared: Prepared,
    settings: Settings,
    *,
    executor: str,
    is_tracked: bool,
    run_uid: str | None = None,
    run_name: str | None = None,
    told: Mapping[str, str] | None = None,
) -> RunLogger:
    """
    The logger of a suite's own run, with all that is known before its cells.

    Args:
        prepared: The suite.
        settings: Of the logger.
        executor: The name of where its cells run.
        is_tracked: Whether there is a run at all.
        run_uid: Of the run that goes on.
        run_name: Instead of the suite's.
        told: Tags beside and instead of the usual ones.
    """
    suite = prepared.suite
    log = start_logger(
        suite.name,
        run_name=run_name or suite.name,
        run_uid=run_uid,
        tags={
            **suite.tags,
            **prepared.environment.tags,
            tags.KIND: tags.RunKind.SUITE,
            tags.SUITE: suite.name,
            tags.BENCHMARK: suite.benchmark,
            tags.BENCHMARK_VERSION: prepared.version,
            tags.EXECUTOR: executor,
            tags.FOLDER: str(prepared.folder),
            tags.HOST: os.uname().nodename,
            **(told or {}),
        },
        **said_settings(settings) | {"enabled": is_tracked, "log_level": "error"},
    )
    if suite.description:
        log.tag("mlflow.note.content", suite.description)
    log.params({name: getattr(suite, name) for name in ("repeats", "warm_ups", "seed")})
    log.params({f"matrix.{name}": values for name, values in suite.matrix.items()})
    for group in suite.zip:
        log.params({f"zip.{name}": values for name, values in group.items()})
    log.param("cells", len(prepared.cells))
    log.text(prepared.text, SUITE_FILE)
    return log


def cell_request(
    prepared: Prepared,
    step: Submit,
    executor: CellExecutor,
    log: RunLogger,
    *,
    settings: Settings,
    parent: tuple[str, str | None],
    is_tracked: bool = True,
    kind: tags.RunKind = tags.RunKind.CELL,
    place: Place | None = None,
) -> CellRequest:
    """
    What the process of a cell is asked for.

    Args:
        prepared: The suite.
        step: The attempt.
        executor: What carries it.
        log: Of the suite's own run.
        settings: Of the logger.
        parent: Handle of that run where it is on this machine, and its id in MLflow.
        is_tracked: Whether there are runs at all.
        kind: Of the cell's run.
        place: Where it runs, where that is not here.
    """
    suite, trial = prepared.suite, step.trial
    cell, seed = trial.cell, repeat_seed(suite.seed, trial.repeat)
    hash_seed = str(repeat_seed(suite.seed, -1))
    return CellRequest(
        suite=suite.name,
        benchmark=suite.benchmark,
        folder=str(prepared.folder),
        cell=cell.name,
        cell_key=cell.key,
        params=dict(cell.params),
        seed=seed,
        repeat=trial.repeat,
        attempt=step.attempt,
        warm_ups=suite.warm_ups,
        experiment=suite.name,
        settings=said_settings(settings) | {"log_level": "error"},
        parent=parent[0],
        parent_run_id=parent[1],
        correlation_id=log.correlation_id,
        tags={
            **suite.tags,
            **_place_tags(prepared, executor),
            tags.KIND: kind,
            tags.SUITE: suite.name,
            tags.EXECUTION: log.run_uid,
            tags.CELL: cell.name,
            tags.CELL_KEY: cell.key,
            tags.PARAMS_HASH: cell.params_hash,
            tags.REPEAT: str(trial.repeat),
            tags.ATTEMPT: str(step.attempt),
            tags.SEED: str(seed),
            tags.ORDER: str(trial.order),
            tags.BENCHMARK: suite.benchmark,
            tags.BENCHMARK_VERSION: prepared.version,
            tags.EXECUTOR: executor.name,
            tags.CONCURRENCY: str(min(executor.width, len(prepared.cells))),
            tags.HASH_SEED: hash_seed,
            tags.FOLDER: str(prepared.folder),
        },
        is_tracked=is_tracked,
        objectives=list(suite.objectives),
        artifacts=suite.artifacts,
        alerts=suite.alerts,
        timeout_s=suite.timeout_s,
        memory_limit_bytes=suite.memory_limit_bytes,
        hash_seed=hash_seed,
        place=place,
    )


def said_settings(settings: Settings) -> dict[str, Any]:
    """
    The settings that were said, to say them again in other processes.
    """
    said = msgspec.to_builtins(settings)
    names = [name for name, origin in settings.origins.items() if origin != "CI"]
    found = {name: said[name] for name in names}
    # addresses and folders are relative to where the runner was started
    found["tracking_uri"] = settings.tracking_uri
    found["spool_dir"] = settings.spool_dir
    if settings.experiment_artifact_location is not None:
        found["artifact_location"] = settings.artifact_location
    return found


def _place_tags(prepared: Prepared, executor: CellExecutor) -> dict[str, str]:
    """
    Where a cell runs, as far as that is here: of another machine its own sidecar tells.
    """
    found = dict(prepared.environment.tags)
    if not executor.is_local:
        found.pop(tags.ENVIRONMENT, None)
    return found
