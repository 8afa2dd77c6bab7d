"""
Thinned keys: MLflow is shown what the rule says, the artifact has every reading, the ledger
balances; through kills, full disks and refusals.
"""

from __future__ import annotations

import csv
import errno
import gzip
import io
import random
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.queue import spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import RunId
from allele_mlflow.sidecar import full_readings
from allele_mlflow.sidecar.full_readings import FullReadings
from allele_mlflow.testing import MemoryTracking, assert_ledger_balanced
from allele_mlflow.testing.memory_tracking import MemoryRun
from tests.integration.spooled_runs import (
    end_run,
    final_state,
    make_worker,
    serve,
    serve_until_a_call,
    start_run,
    the_run,
)
from tests.queue_tools import make_writer

RULES = "loss/*: every 10; gpu: mean per 50 steps"
READINGS = 995


def log_thinned(writer: StreamWriter) -> None:
    """
    Readings of two thinned keys and a free one.
    """
    for step in range(READINGS):
        writer.metric("loss/a", step / 7, step)
        writer.metric("gpu", float(step % 50), step)
        writer.metric("free", float(step), step)


def rows_of(run: MemoryRun, path: str = "allele/readings.parquet") -> list[tuple[Any, ...]]:
    """
    The rows of the artifact, sorted by key and step.
    """
    frame = pandas.read_parquet(io.BytesIO(run.artifacts[path]))
    assert list(frame.columns) == list(full_readings.COLUMNS)
    return sorted(zip(frame.key, frame.step, frame.value, strict=True))


EVERYTHING = sorted(
    [("loss/a", step, step / 7) for step in range(READINGS)]
    + [("gpu", step, float(step % 50)) for step in range(READINGS)]
)


def assert_thinned(run: Path, tracking: MemoryTracking) -> None:
    """
    MLflow shows what the rules say, and the artifact has every reading once.
    """
    stored = the_run(tracking)
    assert sorted(row.step for row in stored.rows("free")) == list(range(READINGS))
    wanted = sorted({*range(0, READINGS, 10), READINGS - 1})
    assert sorted(row.step for row in stored.rows("loss/a")) == wanted
    means = [(0, 0.0), *((step, 24.5) for step in range(49, READINGS, 50))]
    last = [(994, 22.0), (994, 44.0)]  # the last window's mean, and the last reading
    assert sorted((row.step, row.value) for row in stored.rows("gpu")) == [*means, *last]
    assert rows_of(stored) == EVERYTHING
    state = final_state(run)
    assert_ledger_balanced(state.ledger, accepted=3 * READINGS)
    assert state.ledger.archived == {
        "loss/*: every 10": READINGS - 100,
        "gpu: mean per 50 steps": READINGS - 1,
    }
    assert state.ledger.delivered == {"metric": READINGS + 100 + 1}


async def test_mlflow_shows_less_and_nothing_is_lost(tmp_path: Path) -> None:
    """Two rules, by step and mean; the artifact has all, and its copy in the spool goes."""
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert_thinned(run, tracking)
    done = run.parent.parent / "done" / run.name
    assert not list(done.rglob("readings*"))


@pytest.mark.parametrize("seed", range(8))
async def test_kills_change_nothing(tmp_path: Path, seed: int) -> None:
    """Ten sidecars die one after the other: the same rows, the same artifact, the same ledger."""
    chance = random.Random(seed)
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    tracking = MemoryTracking()
    for _ in range(10):
        if run.exists():
            await serve_until_a_call(run, tracking, chance)
    await serve(make_worker(run, tracking))
    assert_thinned(run, tracking)


async def test_each_process_is_thinned_for_itself(tmp_path: Path) -> None:
    """A worker process's readings have windows of their own, and one file of all is uploaded."""
    run, writer = start_run(tmp_path, sampling="*: every 100")
    other = make_writer(run)
    for step in range(150):
        writer.metric("m", 1.0, step)
        other.metric("m", 2.0, step)
    end_run(other)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert sorted((r.value, r.step) for r in stored.rows("m")) == [
        (value, step) for value in (1.0, 2.0) for step in (0, 100, 149)
    ]
    assert len(rows_of(stored)) == 300


async def test_full_disk_shows_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the readings cannot be kept, MLflow gets every one, and none counts as archived."""
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    write_all = spool.write_all

    def write_or_not(descriptor: int, data: bytes) -> None:
        if b"timestamps_ms" in data:
            raise OSError(errno.ENOSPC, "no space left on device")
        write_all(descriptor, data)

    monkeypatch.setattr(spool, "write_all", write_or_not)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert [row.step for row in the_run(tracking).rows("loss/a")] == list(range(READINGS))
    assert_ledger_balanced(final_state(run).ledger, accepted=3 * READINGS)
    assert final_state(run).ledger.archived == {}


class _RefusesArtifacts(MemoryTracking):
    def log_artifact(self, run_id: RunId, file: Path, artifact_path: str) -> None:
        """
        Refuse the readings, as a server refuses what is too large.
        """
        if "readings" in artifact_path:
            raise PermanentTrackingError("413: too large", kind=ErrorKind.REFUSED)
        super().log_artifact(run_id, file, artifact_path)


async def test_refused_artifact_is_kept(tmp_path: Path) -> None:
    """A store that will not have the artifact: it stays in the spool, and the state says where."""
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    await serve(make_worker(run, _RefusesArtifacts()))
    done = run.parent.parent / "done" / run.name
    (kept,) = (done / spool.DAMAGED).iterdir()
    assert len(pandas.read_parquet(kept)) == len(EVERYTHING)
    assert [text for text in final_state(run).damage if kept.name in text and "413" in text]


async def test_csv_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow the artifact is compressed CSV, with every digit."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # its import fails
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    text = gzip.decompress(the_run(tracking).artifacts["allele/readings.csv.gz"]).decode()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == list(full_readings.COLUMNS)
    assert sorted((key, int(step), float(value)) for key, step, _, value in rows) == EVERYTHING


async def test_damage_under_a_living_sidecar_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk altered after it was read back, or never was, is found when it is uploaded."""
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    end_run(writer)
    write = FullReadings.write

    def damage_and_write(readings: FullReadings, folder: Path) -> Path:
        (path,) = readings.folder.iterdir()
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0x55
        path.write_bytes(data)
        return write(readings, folder)

    monkeypatch.setattr(FullReadings, "write", damage_and_write)
    tracking = MemoryTracking()
    await serve(make_worker(run, tracking))
    assert len(rows_of(the_run(tracking))) < len(EVERYTHING)
    assert [text for text in final_state(run).damage if "/readings/" in text]


async def test_damaged_piece_is_told(tmp_path: Path) -> None:
    """A damaged piece of the kept readings is reported; the others arrive."""
    run, writer = start_run(tmp_path, sampling=RULES)
    log_thinned(writer)
    chance = random.Random(3)
    tracking = MemoryTracking()
    while not (folder := run / spool.READINGS).is_dir() or not list(folder.iterdir()):
        await serve_until_a_call(run, tracking, chance)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x55
    path.write_bytes(data)
    end_run(writer)
    await serve(make_worker(run, tracking))
    rows = rows_of(the_run(tracking))
    assert set(rows) <= set(EVERYTHING)
    damage = final_state(run).damage
    assert len(rows) == len(EVERYTHING) or [text for text in damage if str(path) in text]
