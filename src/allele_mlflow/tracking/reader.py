"""
Reading back: runs and their histories as pandas frames, in pages of bounded size.

`open_reader` looks at the address. SQLite and PostgreSQL are asked in SQL (`sql_reader`), anything
else through MLflow's own client (`client_reader`). Frames and order are the same (`frames`).

These four modules alone in the room import pandas; the sidecar never imports them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.tracking.client_reader import ClientReader
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.frames import PAGE_ROWS, READINGS, Reader
from allele_mlflow.tracking.sql_reader import SqlReader

_PREFIX = "bulk+"
_ARTIFACT_NAMES = ("readings.parquet", "readings.csv.gz")


def open_reader(tracking_uri: str) -> Reader:
    """
    A reader for the store of that address, as MLflow takes it.

    Raises:
        TrackingError: there is no such store, or it does not answer.
    """
    address = tracking_uri.removeprefix(_PREFIX)
    if address.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql"):
        reader = SqlReader(address)
        if reader.is_fit():
            return reader
        reader.close()
    return ClientReader(tracking_uri)


def artifact_readings(
    tracking_uri: str, run_id: str, *, page_rows: int = PAGE_ROWS
) -> Iterator[pd.DataFrame]:
    """
    All readings of the keys of a run that `SAMPLING` thinned, from the run's own artifacts, in
    frames of `READINGS`; nothing where none was thinned.

    Raises:
        TrackingError: the store does not answer.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    with mapped_errors(f"artifacts of run {run_id}"):
        paths = _find_readings(client, run_id)
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            with mapped_errors(f"artifact {path} of run {run_id}"):
                file = Path(client.download_artifacts(run_id, path, folder))
            yield from _pages_of(file, page_rows)


def _find_readings(client: Any, run_id: str) -> list[str]:
    found, folders = [], [OWN_ARTIFACTS]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop()):
            if entry.is_dir and entry.path.removeprefix(OWN_ARTIFACTS).startswith("/parts"):
                folders.append(entry.path)
            elif entry.path.rpartition("/")[2] in _ARTIFACT_NAMES:
                found.append(entry.path)
    return sorted(found)


def _pages_of(file: Path, page_rows: int) -> Iterator[pd.DataFrame]:
    if file.suffix == ".gz":
        with pd.read_csv(
            file,
            chunksize=page_rows,
            dtype=READINGS,
            na_values={"value": ["nan"]},
            keep_default_na=False,
        ) as pages:
            yield from pages
        return
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=page_rows):
            yield batch.to_pandas().astype(READINGS)
