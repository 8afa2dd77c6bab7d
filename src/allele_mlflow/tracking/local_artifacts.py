"""
Artifacts that are on this machine, found without mlflow: its import takes longer than to read them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from allele_mlflow.errors import TrackingError
from allele_mlflow.tracking.schema import sqlite_path
from allele_mlflow.tracking.sql_registry import SqlRegistry, local_folder

_PREFIX = "bulk+"


def find_local_artifacts(tracking_uri: str, run_id: str) -> Path | None:
    """
    The folder of a run's artifacts, which need not be there yet; None where MLflow has to fetch
    them, or to say what is wrong.
    """
    address = tracking_uri.removeprefix(_PREFIX)
    scheme = address.partition(":")[0].partition("+")[0]
    if scheme not in ("sqlite", "postgresql"):
        return None
    path = sqlite_path(address) if scheme == "sqlite" else None
    if scheme == "sqlite" and (path is None or not path.exists()):
        return None
    with suppress(TrackingError):
        found = _database(address).artifact_uri(run_id)
        return local_folder(found) if found is not None else None
    return None


@lru_cache(maxsize=8)
def _database(address: str) -> SqlRegistry:
    return SqlRegistry(address)  # holds no connection
