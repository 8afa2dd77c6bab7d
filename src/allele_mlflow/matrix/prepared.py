"""
A suite that can be run here: its function is found, its cells are made, its history is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.environment.taking import take_environment
from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.failures import describe_failure
from allele_mlflow.matrix.benchmark import check_params, find_benchmark, source_version
from allele_mlflow.matrix.cells import Cell, make_cells
from allele_mlflow.matrix.history import Execution, last_execution
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_alerts import read_alerts
from allele_mlflow.matrix.suite_components import read_contents
from allele_mlflow.matrix.suite_file import checked_suite, suite_text
from allele_mlflow.matrix.trial import SECONDS_METRIC
from allele_mlflow.settings import Settings

#: Artifact of a suite's run.
SUITE_FILE = "suite.toml"
ENVIRONMENT_FILE = "environment.json"
#: What the function of `[genome] evaluate` is given.
GENOME_PARAM = "genome"


@dataclass
class Prepared:
    """
    A suite that can be run: its function is found, its cells are made.
    """

    suite: Suite
    folder: Path
    cells: list[Cell]
    version: str
    #: The text that it was read from.
    text: str
    #: Of this machine and the suite's checkout.
    environment: Environment
    #: What its components are, by name: their identity in the registry.
    components: dict[str, str] = field(default_factory=dict)


def prepare_suite(suite: Suite, folder: Path, *, text: str | None = None) -> Prepared:
    """
    Find the suite's function and make its cells.

    Args:
        suite: What to run.
        folder: Its own: first on the path of modules.
        text: What it was read from, kept with its results.
    Raises:
        MatrixError: there is no such function, it does not take the parameters, or there is no
            cell. What the benchmark's own module raises becomes one too.
    """
    suite = checked_suite(suite)
    read_alerts(suite.alerts)
    function = _imported(suite.benchmark, folder)
    version = source_version(function)
    cells = make_cells(suite, version=version)
    for names in {tuple(cell.params): cell for cell in cells}:
        check_params(function, names, suite.benchmark)
    if suite.genome is not None:
        evaluate = suite.genome.evaluate
        check_params(_imported(evaluate, folder), [GENOME_PARAM], evaluate)
    return Prepared(
        suite,
        folder,
        cells,
        version,
        text or suite_text(suite),
        take_environment(folder),
        read_contents(suite, folder),
    )


def _imported(reference: str, folder: Path) -> Callable[..., Any]:
    try:
        return find_benchmark(reference, folder)
    except MatrixError:
        raise
    except Exception as exc:
        failure = describe_failure(exc)
        raise MatrixError(
            f"benchmark {reference!r} cannot be imported: {failure.error_type}: {failure.message}",
            kind=ErrorKind.BAD_BENCHMARK,
            traceback=failure.traceback,
        ) from exc


def find_last(prepared: Prepared, settings: Settings) -> Execution | None:
    """
    The newest execution of the suite, with what its trials came to.

    Raises:
        TrackingError: the store does not answer.
    """
    from allele_mlflow.tracking.reader import open_reader
    from allele_mlflow.tracking.schema import sqlite_path

    path = sqlite_path(settings.tracking_uri)
    if path is not None and not path.exists():
        return None  # the first run of all makes it
    with contextlib.closing(open_reader(settings.tracking_uri)) as reader:
        return last_execution(
            reader,
            settings.experiment_prefix + prepared.suite.name,
            prepared.suite.name,
            metric_keys=[*prepared.suite.objectives, SECONDS_METRIC],
        )
