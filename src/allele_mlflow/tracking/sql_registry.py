"""
A registry's rows in MLflow's SQL store, by plain SQL: read, and the small writes of a promotion.

`import mlflow` takes longer than all of a promotion, and MLflow makes an object of every row: of
ten thousand versions to tell one model's aliases, of ten thousand params to tell one. These read
the same and leave the same rows behind (`tests/integration/test_sql_registry.py` compares them).
Models, versions and runs are made by MLflow's own calls, and so is whatever is not as it should be:
it says so in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.schema import sqlite_path
from allele_mlflow.tracking.stored_models import StoredEntries, StoredModel, StoredVersion

#: As long as MLflow's own store waits for SQLite's lock.
_PATIENCE_S = 20.0
# Together below the 999 values that an old SQLite takes in a query.
_IDS_PER_QUERY = 500
_WORKSPACE = "default"
#: What is read; other columns may stand beside these.
_READ = {
    "registered_models": {"name"},
    "registered_model_tags": {"name", "key", "value"},
    "model_versions": {"name", "version", "creation_time", "source", "run_id", "current_stage"},
    "runs": {"run_uuid", "lifecycle_stage", "artifact_uri"},
}
#: What is written: no other column may stand there, but for the workspace of newer MLflows.
_WRITTEN = {
    "registered_model_aliases": {"name", "alias", "version"},
    "model_version_tags": {"name", "version", "key", "value"},
    "params": {"key", "value", "run_uuid"},
}
#: One query for all tables, where SQLAlchemy's inspector takes a handful for each.
_COLUMNS = {
    "sqlite": "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
    " WHERE t.type = 'table' AND t.name IN :tables",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND table_name IN :tables",
}
_IS_THERE = "name = :name AND version = :version AND current_stage != 'Deleted_Internal'"


class SqlRegistry:
    """
    One of MLflow's SQL stores, SQLite or PostgreSQL. Any thread; no connection outlives its call.

    Args:
        uri: Of a database that is there, as SQLAlchemy takes it.
    Raises (all methods):
        TrackingError: the database does not answer.
    """

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        self._masked = mask_secrets(uri)
        path = sqlite_path(uri)
        options: dict[str, Any] = {}
        if path is not None:  # never made anew: that is MLflow's part
            uri = f"sqlite:///file:{quote(str(path.absolute()))}?mode=rw&uri=true"
            options = {"connect_args": {"timeout": _PATIENCE_S}}
        with mapped_errors(f"open {self._masked}", can_refuse=False):
            self._engine = sqlalchemy.create_engine(
                uri, poolclass=sqlalchemy.pool.NullPool, **options
            )
        self._has_workspaces = False

    def is_fit(self) -> bool:
        """
        Whether the tables are as we know them, and only of the one workspace that we know.
        """
        with self._connection() as connection:
            found: dict[str, set[str]] = {name: set() for name in (*_READ, *_WRITTEN)}
            query = _COLUMNS[self._engine.dialect.name]
            for table, column in _rows(connection, query, {"tables": list(found)}):
                found[table].add(column)
            self._has_workspaces = "workspace" in found["registered_models"]
            own = {"workspace"} if self._has_workspaces else set()
            is_known = all(columns <= found[name] for name, columns in _READ.items()) and all(
                found[name] in (columns, columns | own) for name, columns in _WRITTEN.items()
            )
            return is_known and not (self._has_workspaces and self._has_others(connection))

    def models(self, name: str | None = None) -> list[StoredModel]:
        """
        All registered models, by name, or the one of a name; MLflow's prompts are none.
        """
        prompts = (
            "SELECT name FROM registered_model_tags"
            " WHERE key = 'mlflow.prompt.is_prompt' AND value = 'true'"
        )
        which = f"name NOT IN ({prompts})" + (" AND name = :name" if name is not None else "")
        given = {"name": name}
        only = f"WHERE {which} {self._own()}"
        with self._connection() as connection:
            names = _rows(connection, f"SELECT name FROM registered_models {only}", given)
            tags = _rows(
                connection, f"SELECT name, key, value FROM registered_model_tags {only}", given
            )
            aliases = _rows(
                connection,
                f"SELECT name, alias, version FROM registered_model_aliases {only}",
                given,
            )
        tags_of, aliases_of = _by_first(tags), _by_first(aliases)
        return [
            StoredModel(one, dict(tags_of.get(one, ())), dict(aliases_of.get(one, ())))
            for (one,) in sorted(map(tuple, names))
        ]

    def entries(self, run_id: str, since: str) -> StoredEntries | None:
        """
        The params of a run from a key on; None where there is no such run.
        """
        given = {"run_id": run_id, "since": since}
        with self._connection() as connection:
            run = _rows(
                connection, "SELECT lifecycle_stage FROM runs WHERE run_uuid = :run_id", given
            )
            texts = _rows(
                connection,
                "SELECT key, value FROM params WHERE run_uuid = :run_id AND key >= :since",
                given,
            )
        if not run:
            return None
        return StoredEntries({str(key): str(text) for key, text in texts}, run[0][0] != "active")

    def all_entries(self, run_ids: Sequence[str]) -> dict[str, StoredEntries]:
        """
        The params of many runs, by run; one that is not there is left out.
        """
        found: dict[str, StoredEntries] = {}
        with self._connection() as connection:
            for start in range(0, len(run_ids), _IDS_PER_QUERY):
                given = {"run_ids": list(run_ids[start : start + _IDS_PER_QUERY])}
                which = "WHERE run_uuid IN :run_ids"
                runs = _rows(
                    connection, f"SELECT run_uuid, lifecycle_stage FROM runs {which}", given
                )
                texts = _by_first(
                    _rows(connection, f"SELECT run_uuid, key, value FROM params {which}", given)
                )
                for run_id, stage in runs:
                    found[str(run_id)] = StoredEntries(
                        dict(texts.get(run_id, ())), stage != "active"
                    )
        return found

    def versions(self, name: str, number: int | None = None) -> list[StoredVersion]:
        """
        All versions of a model, oldest first; or the one of a number.
        """
        which = "name = :name" if number is None else "name = :name AND version = :version"
        given = {"name": name, "version": number}
        only = f"WHERE {which} {self._own()}"
        with self._connection() as connection:
            rows = _rows(
                connection,
                f"SELECT version, source, run_id, creation_time FROM model_versions {only}"
                " AND current_stage != 'Deleted_Internal' ORDER BY version",
                given,
            )
            tags = _by_first(
                _rows(
                    connection, f"SELECT version, key, value FROM model_version_tags {only}", given
                )
            )
        return [
            StoredVersion(
                int(version),
                dict(tags.get(version, ())),
                str(source),
                str(run_id or ""),
                int(created or 0),
            )
            for version, source, run_id, created in rows
        ]

    def tagged(self, name: str, tag: str, value: str) -> list[StoredVersion]:
        """
        The versions of a model that have a tag, oldest first.
        """
        with self._connection() as connection:
            numbers = _rows(
                connection,
                "SELECT version FROM model_version_tags"
                f" WHERE name = :name AND key = :tag AND value = :value {self._own()}",
                {"name": name, "tag": tag, "value": value},
            )
        found = [self.versions(name, int(number)) for (number,) in numbers]
        return sorted(one for versions in found for one in versions)

    def artifact_uri(self, run_id: str) -> str | None:
        """
        Where a run's artifacts are, as MLflow has it; None where there is no such run.
        """
        query = "SELECT artifact_uri FROM runs WHERE run_uuid = :run_id"
        with self._connection() as connection:
            rows = _rows(connection, query, {"run_id": run_id})
        return str(rows[0][0]) if rows else None

    # --- writes: False where MLflow's own call has to do it --------------------------------------

    def write_entry(self, run_id: str, key: str, text: str) -> bool:
        """
        Write a param of an active run, unless one of that key is there.
        """
        query = (
            "INSERT INTO params (key, value, run_uuid) SELECT :key, :text, run_uuid FROM runs"
            " WHERE run_uuid = :run_id AND lifecycle_stage = 'active'"
            " ON CONFLICT (key, run_uuid) DO NOTHING"
        )
        return self._write(query, {"run_id": run_id, "key": key, "text": text})

    def set_alias(self, name: str, alias: str, number: int) -> bool:
        """
        Have an alias point to a version.
        """
        space = "workspace, " if self._has_workspaces else ""
        query = (
            f"INSERT INTO registered_model_aliases ({space}name, alias, version)"
            f" SELECT {space}name, :alias, version FROM model_versions"
            f" WHERE {_IS_THERE} {self._own()}"
            f" ON CONFLICT ({space}name, alias) DO UPDATE SET version = excluded.version"
        )
        return self._write(query, {"name": name, "alias": alias, "version": number})

    def delete_alias(self, name: str, alias: str) -> bool:
        """
        Remove an alias that is there.
        """
        query = (
            "DELETE FROM registered_model_aliases"
            f" WHERE name = :name AND alias = :alias {self._own()}"
        )
        return self._write(query, {"name": name, "alias": alias})

    def tag_version(self, name: str, number: int, key: str, value: str) -> bool:
        """
        Set a tag of a version.
        """
        space = "workspace, " if self._has_workspaces else ""
        query = (
            f"INSERT INTO model_version_tags ({space}name, version, key, value)"
            f" SELECT {space}name, version, :key, :value FROM model_versions"
            f" WHERE {_IS_THERE} {self._own()}"
            f" ON CONFLICT ({space}key, name, version) DO UPDATE SET value = excluded.value"
        )
        given = {"name": name, "version": number, "key": key, "value": value}
        return self._write(query, given)

    # --- inner -----------------------------------------------------------------------------------

    def _own(self) -> str:
        return f"AND workspace = '{_WORKSPACE}'" if self._has_workspaces else ""

    def _has_others(self, connection: Any) -> bool:
        query = "SELECT name FROM registered_models WHERE workspace != :own LIMIT 1"
        return bool(_rows(connection, query, {"own": _WORKSPACE}))

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with mapped_errors(f"read {self._masked}"), self._engine.connect() as connection:
            yield connection

    def _write(self, query: str, given: dict[str, Any]) -> bool:
        from sqlalchemy import text

        with mapped_errors(f"write {self._masked}"), self._engine.begin() as connection:
            return int(connection.execute(text(query), given).rowcount) == 1


def local_folder(artifact_uri: str) -> Path | None:
    """
    The folder behind an artifact address of this machine; None where it is elsewhere, or relative.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file" and not parts.netloc:
        return Path(unquote(parts.path))
    return Path(artifact_uri) if artifact_uri.startswith("/") else None


def _rows(connection: Any, query: str, given: dict[str, Any]) -> list[Sequence[Any]]:
    from sqlalchemy import bindparam, text

    lists = [
        bindparam(name, expanding=True) for name, one in given.items() if isinstance(one, list)
    ]
    used = {name: one for name, one in given.items() if f":{name}" in query}
    return list(connection.execute(text(query).bindparams(*lists), used))


def _by_first(rows: Iterable[Sequence[Any]]) -> dict[Any, list[tuple[Any, Any]]]:
    found: dict[Any, list[tuple[Any, Any]]] = {}
    for first, key, value in rows:
        found.setdefault(first, []).append((key, value))
    return found
