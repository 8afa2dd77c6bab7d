"""
`allele-mlflow export`: experiments as CSV, Parquet or JSON files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import pandas as pd

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, complain, say, shown

if TYPE_CHECKING:
    import pandas as pd

    from allele_mlflow.analysis.frames import ExperimentFrames
    from allele_mlflow.tracking.frames import Reader

FRAMES = (
    "runs",
    "params",
    "metrics",
    "cells",
    "histories",
    "resources",
    "phases",
    "alerts",
)
FORMATS = ("csv", "parquet", "json")


class _Source(NamedTuple):
    reader: Reader
    uri: str
    frames: ExperimentFrames


@click.command()
@click.argument("experiments", nargs=-1, required=True)
@click.option("--frame", "wanted", multiple=True, type=click.Choice(FRAMES), help="Only these.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("export"),
    show_default=True,
    help="The folder; made where it is not there.",
)
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def export(
    experiments: Sequence[str],
    wanted: Sequence[str],
    form: str,
    output: Path,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Write the frames of EXPERIMENTS (prefix or not) as a file each: runs.csv, metrics.csv, ...

    Histories, phases and alerts are read only where they are asked for by --frame, or by default
    where there is no --frame. Exit code 2: there is no such experiment, or Parquet without pyarrow;
    5: it has no run; 6: the store was unreachable.
    """
    if form == "parquet":
        _need_pyarrow()
    settings = settings_module.load({"tracking_uri": tracking_uri})
    return _export(experiments, wanted or FRAMES, form, output, settings)


def _export(
    experiments: Sequence[str],
    wanted: Sequence[str],
    form: str,
    output: Path,
    settings: settings_module.Settings,
) -> ExitCode:
    from allele_mlflow.analysis.frames import read_experiments
    from allele_mlflow.analysis.selection import find_experiments
    from allele_mlflow.analysis.table_files import open_table
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader, Progress() as progress:
        ids = find_experiments(reader, experiments, prefix=settings.experiment_prefix)
        source = _Source(reader, uri, read_experiments(reader, ids))
        if not len(source.frames.runs):
            complain("no runs")
            return ExitCode.NOTHING_MEASURED
        output.mkdir(parents=True, exist_ok=True)
        written = []
        for name in dict.fromkeys(wanted):
            path = output / f"{name}.{form}"
            count = 0
            with open_table(path, form) as table:
                for page in _MAKERS[name](source):
                    table.add(page)
                    count += len(page)
                    progress.show(f"{name}: {count:,} rows")
            written.append(f"{path}: {count:,} rows")
    for line in written:
        say(shown(line))
    return ExitCode.FINE


def _histories(source: _Source) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import resource_keys

    metrics = source.frames.metrics
    keys = set(metrics["key"].unique()) - set(resource_keys(metrics))
    return _read(source, sorted(keys))


def _resources(source: _Source) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import resource_keys

    return _read(source, resource_keys(source.frames.metrics))


def _read(source: _Source, keys: Sequence[str]) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import read_histories
    from allele_mlflow.tracking.frames import HISTORY, frame_of

    yield frame_of([], HISTORY)  # the columns, also where there is no row
    yield from read_histories(source.reader, list(source.frames.runs["run_id"]), keys)


def _cells(source: _Source) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import cells_frame

    yield cells_frame(source.frames)


def _phases(source: _Source) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import PHASES, read_phases, shaped

    yield shaped(pd.DataFrame(), PHASES)
    for run_id in source.frames.runs["run_id"]:
        yield read_phases(source.uri, [run_id])


def _alerts(source: _Source) -> Iterator[pd.DataFrame]:
    from allele_mlflow.analysis.frames import ALERTS, read_alerts, shaped

    yield shaped(pd.DataFrame(), ALERTS)
    for run_id in source.frames.runs["run_id"]:
        yield read_alerts(source.uri, [run_id])


_MAKERS: dict[str, Callable[[_Source], Iterator[pd.DataFrame]]] = {
    "runs": lambda source: iter([source.frames.runs]),
    "params": lambda source: iter([source.frames.params]),
    "metrics": lambda source: iter([source.frames.metrics]),
    "cells": _cells,
    "histories": _histories,
    "resources": _resources,
    "phases": _phases,
    "alerts": _alerts,
}


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401 - to say so before anything is read
    except ImportError as exc:
        raise click.UsageError(
            "--format parquet wants pyarrow: pip install 'allele-mlflow[parquet]'"
        ) from exc
