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
from allele_mlflow.tracking.artifact_names import READINGS_FILES, bad_artifact, check_artifact_path
from allele_mlflow.tracking.client_reader import ClientReader
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.frames import PAGE_ROWS, READINGS, Reader
from allele_mlflow.tracking.local_artifacts import find_local_artifacts
from allele_mlflow.tracking.sql_reader import SqlReader

_PREFIX = "bulk+"
#: A report of a suite, with the figures in it, has some five.
MOST_ARTIFACT_BYTES = 16 * 2**20


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


def load_client() -> None:
    """
    Import what the functions here would import when they are first called.

    For programs with threads, before these begin: SQLAlchemy cannot be asked in one thread while
    another imports the rest of it.

    Cost: two seconds.
    """
    import mlflow.tracking  # noqa: F401
    import sqlalchemy.orm  # noqa: F401


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


def artifact_bytes(
    tracking_uri: str, run_id: str, path: str, *, most_bytes: int = MOST_ARTIFACT_BYTES
) -> bytes | None:
    """
    One small artifact of a run; None where the run has none of that path.

    Args:
        tracking_uri: As MLflow takes it.
        run_id: MLflow's id.
        path: Of a file, as `log.artifact` names it: `allele/environment.json`.
        most_bytes: A larger one is refused, before it is fetched where the store tells its size.
    Raises:
        PermanentTrackingError: no relative path, or a larger file (BAD_ARTIFACT); no such run
            (NOT_FOUND).
        TransientTrackingError: the store does not answer.
    """
    check_artifact_path(path)
    root = find_local_artifacts(tracking_uri, run_id)
    if root is not None:
        with mapped_errors(f"artifact {path} of run {run_id}"):
            file = root / path
            if not file.is_file():
                return None
            _refuse_larger(path, file.stat().st_size, most_bytes)
            return file.read_bytes()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    with mapped_errors(f"artifact {path} of run {run_id}"):
        entries = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
        entry = next((one for one in entries if one.path == path and not one.is_dir), None)
        if entry is None:
            return None
        _refuse_larger(path, entry.file_size or 0, most_bytes)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(client.download_artifacts(run_id, path, folder))
            _refuse_larger(path, file.stat().st_size, most_bytes)
            return file.read_bytes()


def artifact_folder(
    tracking_uri: str,
    run_id: str,
    path: str,
    *,
    most_files: int,
    most_bytes: int = MOST_ARTIFACT_BYTES,
) -> dict[str, bytes]:
    """
    The small files in a folder of a run's artifacts by name, the first of them in order.

    Args:
        tracking_uri: As MLflow takes it.
        run_id: MLflow's id.
        path: Of the folder.
        most_files: No more are fetched.
        most_bytes: What they may have together; a file that would be too much is left out.
    Raises:
        PermanentTrackingError: no relative path; no such run (NOT_FOUND).
        TransientTrackingError: the store does not answer.
    """
    from mlflow import MlflowClient

    check_artifact_path(path)
    client = MlflowClient(tracking_uri=tracking_uri)
    found: dict[str, bytes] = {}
    left_bytes = most_bytes
    with mapped_errors(f"artifacts {path} of run {run_id}"):
        entries = sorted(client.list_artifacts(run_id, path), key=lambda one: str(one.path))
        for entry in [one for one in entries if not one.is_dir][:most_files]:
            if (entry.file_size or 0) > left_bytes:
                continue
            with tempfile.TemporaryDirectory() as folder:
                data = Path(client.download_artifacts(run_id, entry.path, folder)).read_bytes()
            if len(data) <= left_bytes:
                found[entry.path.rpartition("/")[2]] = data
                left_bytes -= len(data)
    return found


def _refuse_larger(path: str, size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise bad_artifact(path, f"it has {size_bytes:,} bytes: want at most {most_bytes:,}")


def _find_readings(client: Any, run_id: str) -> list[str]:
    found, folders = [], [OWN_ARTIFACTS]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop()):
            if entry.is_dir and entry.path.removeprefix(OWN_ARTIFACTS).startswith("/parts"):
                folders.append(entry.path)
            elif entry.path.rpartition("/")[2] in READINGS_FILES:
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
