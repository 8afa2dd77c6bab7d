"""
Running a cell again from what MLflow holds of it: suite, parameters, seed, commit, environment.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from allele_mlflow import suite_tags as tags
from allele_mlflow.environment.comparability import Comparability, compare_environments
from allele_mlflow.environment.fingerprint import read_environment
from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix import supervisor
from allele_mlflow.matrix.cells import Cell
from allele_mlflow.matrix.messages import CellRequest, CellResult, decode, encode
from allele_mlflow.matrix.prepared import (
    ENVIRONMENT_FILE,
    SUITE_FILE,
    Prepared,
    prepare_suite,
)
from allele_mlflow.matrix.suite import MetricFacts
from allele_mlflow.matrix.suite_file import parse_suite


class StoredCell(NamedTuple):
    """
    A run of a suite, as MLflow has it. `metrics` are the last reading of each key.
    """

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    suite_text: str
    environment: bytes | None


class Compared(NamedTuple):
    """
    One objective then and now; `is_same` within the tolerance.
    """

    name: str
    then: float
    now: float | None
    is_same: bool


@dataclass
class Reproduction:
    """
    What came of running a cell again.

    Attributes:
        comparability: Of the environments; None where that of then is not known.
        is_same_code: Whether the benchmark's source is what it was.
    """

    cell: Cell
    result: CellResult
    objectives: list[Compared]
    comparability: Comparability | None = None
    is_same_code: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def is_reproduced(self) -> bool:
        """
        Whether it finished with the same objectives.
        """
        return self.result.failure is None and all(one.is_same for one in self.objectives)


def load_stored(tracking_uri: str, run: str) -> StoredCell:
    """
    Read all that is needed of a run.

    Args:
        tracking_uri: Of the store.
        run: Its id in MLflow, or its uid.
    Raises:
        MatrixError: there is no such run, or it is none of a suite's cells.
        TrackingError: the store does not answer.
    """
    from allele_mlflow.tracking.reader import artifact_bytes, open_reader

    with contextlib.closing(open_reader(tracking_uri)) as reader:
        uids = reader.runs(
            with_deleted=True, tag_keys=[tags.RUN_UID], param_keys=[], metric_keys=[]
        ).tags
        named = uids[(uids["run_id"] == run) | (uids["value"] == run)]
        if not len(named):
            raise _not_a_cell(run, "there is no such run of ours in the store")
        run_id, uid = named.iloc[0]["run_id"], named.iloc[0]["value"]
        frames = reader.runs(with_deleted=True, with_tags={tags.RUN_UID: uid}, param_keys=[])
    told = _of_run(frames.tags, run_id)
    if told.get(tags.KIND) != tags.RunKind.CELL:
        raise _not_a_cell(run, "it is no run of a suite's cell")
    parent = told.get("mlflow.parentRunId", "")
    text = artifact_bytes(tracking_uri, parent, SUITE_FILE) if parent else None
    if text is None:
        raise _not_a_cell(run, f"its suite's run {parent or '(none)'} has no {SUITE_FILE}")
    return StoredCell(
        run_id,
        told,
        {key: float(value) for key, value in _of_run(frames.metrics, run_id).items()},
        text.decode("utf-8"),
        artifact_bytes(tracking_uri, parent, ENVIRONMENT_FILE),
    )


def _of_run(frame: Any, run_id: str) -> dict[str, Any]:
    own = frame[frame["run_id"] == run_id]
    return dict(own[["key", "value"]].itertuples(index=False))


def find_cell(prepared: Prepared, stored: StoredCell) -> Cell:
    """
    The cell that a run was of: by its parameters, whatever the code's version is now.

    Raises:
        MatrixError: the suite has none such.
    """
    wanted = stored.tags.get(tags.PARAMS_HASH)
    for cell in prepared.cells:
        if cell.params_hash == wanted:
            return cell
    name = stored.tags.get(tags.CELL, "")
    raise _not_a_cell(stored.run_id, f"its suite has no cell {name!r} with these parameters")


def reproduce(stored: StoredCell, folder: Path, *, tolerance: float) -> Reproduction:
    """
    Run the cell of a run again, with its seed, and compare the objectives.

    Args:
        stored: The run.
        folder: Where the suite's benchmark is found.
        tolerance: Relative; 0 wants the same number.
    Raises:
        MatrixError: the benchmark or the cell is not found here.
    """
    suite = parse_suite(stored.suite_text, folder / SUITE_FILE)
    prepared = prepare_suite(suite, folder, text=stored.suite_text)
    cell = find_cell(prepared, stored)
    comparability = None
    if stored.environment is not None:
        comparability = compare_environments(
            read_environment(stored.environment), prepared.environment
        )
    result = decode(supervisor.run_cell(encode(_request(prepared, cell, stored))), CellResult)
    supervisor.close_servers()
    return Reproduction(
        cell,
        result,
        list(_compare(suite.objectives, stored, result, tolerance)),
        comparability,
        is_same_code=prepared.version == stored.tags.get(tags.BENCHMARK_VERSION),
    )


def _request(prepared: Prepared, cell: Cell, stored: StoredCell) -> CellRequest:
    suite = prepared.suite
    return CellRequest(
        suite=suite.name,
        benchmark=suite.benchmark,
        folder=str(prepared.folder),
        cell=cell.name,
        cell_key=cell.key,
        params=dict(cell.params),
        seed=int(stored.tags[tags.SEED]),
        repeat=int(stored.tags[tags.REPEAT]),
        attempt=0,
        warm_ups=suite.warm_ups,
        experiment=suite.name,
        settings={},
        parent="",
        parent_run_id=None,
        correlation_id="",
        tags={},
        is_tracked=False,
        objectives=list(suite.objectives),
        artifacts=[],
        alerts=[],
        timeout_s=suite.timeout_s,
        memory_limit_bytes=suite.memory_limit_bytes,
        hash_seed=stored.tags.get(tags.HASH_SEED, "0"),
    )


def _compare(
    objectives: Mapping[str, MetricFacts],
    stored: StoredCell,
    result: CellResult,
    tolerance: float,
) -> Iterator[Compared]:
    for name in objectives:
        then, now = stored.metrics.get(name, math.nan), result.metrics.get(name)
        is_same = now is not None and (
            math.isclose(then, now, rel_tol=tolerance) or (math.isnan(then) and math.isnan(now))
        )
        yield Compared(name, then, now, is_same)


def _not_a_cell(run_id: str, what: str) -> MatrixError:
    return MatrixError(f"run {run_id}: {what}", kind=ErrorKind.BAD_SUITE, run_id=run_id)
