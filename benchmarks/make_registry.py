"""
An SQLite registry of many versions, in seconds: what reads a registry is measured on it.

MLflow makes the tables, the first model and its journal; the other rows are written in SQL, as the
registry writes them, and the files of every version as it keeps them. The same arguments give the
same contents.

    python benchmarks/make_registry.py --versions 10000 --folder store
    python benchmarks/make_registry.py --models 1000 --versions 10 --folder store

Writes store/mlflow_registry.db, which must not be there yet, and store/mlflow_artifacts.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.clock import utc_iso
from allele_mlflow.registry.contents import files_of, tags_of
from allele_mlflow.registry.genomes import Genome, read_genome
from allele_mlflow.registry.journal import (
    Action,
    Board,
    Entry,
    Stage,
    encode_entry,
    entry_hash,
    entry_key,
)
from allele_mlflow.registry.kept_journal import STAGE_TAG
from allele_mlflow.registry.kept_versions import MANIFEST_TAG
from allele_mlflow.registry.version_files import MANIFEST_FILE, sha256
from allele_mlflow.tracking.registry_client import JOURNAL_TAG, RegistryClient
from benchmarks.scratch import prepare_store

DATABASE, ARTIFACTS = "mlflow_registry.db", "mlflow_artifacts"
EXPERIMENT = "allele_benchmark_registry"
#: Every so many versions, one is promoted to production.
PROMOTED_EVERY = 10
FIRST_MS = 1_700_000_000_000
STEP_MS = 60_000
MODELS_PER_COMMIT = 100


class RegistryShape(NamedTuple):
    """
    What is put into a registry.

    Attributes:
        models: How many; named `model-0000` and so on.
        versions: Of each; one entry each, and one for each tenth that is promoted.
        has_files: Whether the files of the versions are written too.
    """

    models: int = 1
    versions: int = 10_000
    has_files: bool = True


class FilledRegistry(NamedTuple):
    """
    Where it is, and how many entries the journal of each model has.
    """

    uri: str
    names: list[str]
    entries: int


def fill_registry(folder: Path, shape: RegistryShape) -> FilledRegistry:
    """
    Put models into a registry that has its tables.

    Raises:
        sqlite3.Error: the file is not one, or not to be written.
        TrackingError: MLflow cannot open it.
    """
    uri = f"sqlite:///{folder / DATABASE}"
    artifacts = str(folder / ARTIFACTS)
    client = RegistryClient(uri, experiment=EXPERIMENT, artifact_location=artifacts)
    names = [f"model-{number:04d}" for number in range(shape.models)]
    first_run = client.ensure_journal(names[0])
    filler = _Filler(shape, [read_genome(make_genome(n)) for n in range(1, shape.versions + 1)])
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        # who wants to keep this registry can make it again
        connection.execute("PRAGMA synchronous = OFF")
        for number, name in enumerate(names):
            run_id = first_run
            if number:
                run_id = _copy_run(connection, first_run)
                _insert(connection, "registered_models", {"name": name})
                row = {"name": name, "key": JOURNAL_TAG, "value": run_id}
                _insert(connection, "registered_model_tags", row)
            place = folder / ARTIFACTS / run_id / "artifacts" / "versions"
            filler.fill(connection, name, run_id, place)
            if number % MODELS_PER_COMMIT == 0:
                connection.commit()
        connection.commit()
    return FilledRegistry(uri, names, shape.versions + shape.versions // PROMOTED_EVERY)


class _Filler(NamedTuple):
    """
    The versions of a model, the same for each.
    """

    shape: RegistryShape
    genomes: list[Genome]

    def fill(self, connection: sqlite3.Connection, name: str, run_id: str, place: Path) -> None:
        """
        One model's journal, versions, tags, aliases and files.
        """
        board, previous = Board(), "0" * 64
        for entry in self._entries(name, board):
            text = encode_entry(msgspec.structs.replace(entry, previous=previous))
            previous = entry_hash(text)
            row = {"run_uuid": run_id, "key": entry_key(entry.number), "value": text}
            _insert(connection, "params", row)
        standing = board.standing()
        for number, genome in enumerate(self.genomes, 1):
            version: dict[str, Any] = {"name": name, "version": number}
            created = {"creation_time": FIRST_MS, "last_updated_time": FIRST_MS}
            files = files_of(genome)
            manifest = sha256(files[MANIFEST_FILE])
            told = {"source": str(place / manifest), "run_id": run_id}
            stage = {"current_stage": "None", "status": "READY"}
            _insert(connection, "model_versions", version | created | told | stage)
            tags = tags_of(genome) | {MANIFEST_TAG: manifest}
            tags[STAGE_TAG] = standing.stages[number].value
            for key, value in tags.items():
                _insert(connection, "model_version_tags", version | {"key": key, "value": value})
            if self.shape.has_files:
                (place / manifest).mkdir(parents=True)
                for path, data in files.items():
                    (place / manifest / path).write_bytes(data)
        for held, holder in standing.holders.items():
            alias = {"name": name, "alias": held.value, "version": holder}
            _insert(connection, "registered_model_aliases", alias)

    def _entries(self, name: str, board: Board) -> Iterator[Entry]:
        """
        All are registered, and each tenth is promoted at once.
        """
        count = 0
        for version, genome in enumerate(self.genomes, 1):
            steps: list[tuple[Action, Stage]] = [("register", Stage.DEVELOPMENT)]
            if version % PROMOTED_EVERY == 0:
                steps.append(("promote", Stage.PRODUCTION))
            for action, stage in steps:
                count += 1
                entry = Entry(
                    number=count,
                    previous="",
                    action=action,
                    model=name,
                    version=version,
                    stage=stage,
                    holder=board.holder(stage) if action == "promote" else None,
                    by="benchmark",
                    time=utc_iso((FIRST_MS + count * STEP_MS) * 1_000_000),
                    reason="made to be measured",
                    content=genome.content,
                    manifest=sha256(files_of(genome)[MANIFEST_FILE]),
                    token=f"{count:032x}",
                )
                board.add(entry)
                yield entry


def make_genome(level: float) -> dict[str, Any]:
    """
    One of a made registry's genomes.
    """
    return {"traits": {"level": level, "creativity": 0.5, "empathy": 0.25}}


def _copy_run(connection: sqlite3.Connection, first: str) -> str:
    run_id = uuid.uuid4().hex
    cursor = connection.execute("SELECT * FROM runs WHERE run_uuid = ?", (first,))
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchone(), strict=True))
    row |= {"run_uuid": run_id, "artifact_uri": row["artifact_uri"].replace(first, run_id)}
    _insert(connection, "runs", row)
    return run_id


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description="An SQLite registry of many versions.")
    parser.add_argument("--models", type=int, default=RegistryShape().models, help="how many")
    parser.add_argument("--versions", type=int, default=RegistryShape().versions, help="of each")
    parser.add_argument("--folder", type=Path, required=True, help="where it is made")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    if (folder / DATABASE).exists():
        print(f"{folder / DATABASE} is there already: want a folder without", file=sys.stderr)
        return 2
    logging.disable(logging.INFO)  # of alembic
    folder.mkdir(parents=True, exist_ok=True)
    prepare_store(folder / DATABASE)
    begun_s = time.perf_counter()
    filled = fill_registry(folder, RegistryShape(options.models, options.versions))
    taken_s = time.perf_counter() - begun_s
    print(
        f"{folder / DATABASE}: {options.models:,} models of {options.versions:,} versions, "
        f"{filled.entries:,} entries each, in {taken_s:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
