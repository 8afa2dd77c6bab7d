"""
What the doctor says of the spool.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from allele_mlflow.cli.checks import spool_folder
from allele_mlflow.cli.checks.findings import Level
from allele_mlflow.cli.checks.spool_folder import SidecarSeen
from allele_mlflow.clock import now_ns
from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import try_lock
from tests.queue_tools import make_run, make_spec, make_writer

GB = 10**9


def test_spool_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """
    The doctor makes no spool, nor leaves anything in the folder that it tried.
    """
    found = spool_folder.check_folder(tmp_path / "a" / "spool")
    assert (found.level, "can make it" in found.text) == (Level.GOOD, True)
    spool_folder.check_writing(tmp_path, is_mapped=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "level"), [(0o700, Level.GOOD), (0o750, Level.WARNING), (0o777, Level.WARNING)]
)
def test_open_spool_is_a_warning(tmp_path: Path, mode: int, level: Level) -> None:
    """
    A spool that others can look into is named with the command that closes it.
    """
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(mode)
    found = spool_folder.check_folder(folder)
    assert found.level is level
    assert found.remedy == ("" if level is Level.GOOD else f"chmod 700 {folder}")


def test_spool_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another user's spool is a warning that names both.
    """
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    found = spool_folder.check_folder(tmp_path)
    assert (found.level, "chown -R 4711" in found.remedy) == (Level.WARNING, True)


def test_spool_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    That is a matter of the settings: exit code 2, and another folder is the remedy.
    """
    monkeypatch.setattr(spool_folder, "can_write", lambda folder: False)
    found = spool_folder.check_folder(tmp_path / "spool")
    assert (found.level, found.exit_code) == (Level.PROBLEM, 2)
    assert "ALLELE_MLFLOW_SPOOL_DIR" in found.remedy


@pytest.mark.parametrize(
    ("file_system", "mode", "levels"),
    [
        ("ext4", "map", [Level.GOOD]),
        ("nfs4", "write", [Level.WARNING]),
        ("btrfs", "write", [Level.WARNING]),
        ("overlay", "map", [Level.GOOD, Level.NOTE]),
    ],
)
def test_mode_follows_the_file_system(
    tmp_path: Path, file_system: str, mode: str, levels: list[Level]
) -> None:
    """
    Mapped or written, and why, is told from the file system.
    """
    findings = spool_folder.check_mode(tmp_path, file_system)
    assert [one.level for one in findings] == levels
    assert findings[0].facts == {"file_system": file_system, "mode": mode}


@pytest.mark.parametrize(("small_bytes", "level"), [(1, Level.NOTE), (1 << 62, Level.WARNING)])
def test_small_shared_memory_is_a_warning(
    tmp_path: Path, small_bytes: int, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A spool in memory is told with its size; in a container that is often 64 MB.
    """
    monkeypatch.setattr(spool_folder, "SMALL_SHM_BYTES", small_bytes)
    assert spool_folder.check_mode(tmp_path, "tmpfs")[-1].level is level


@pytest.mark.parametrize(
    ("free_bytes", "used", "level", "text"),
    [
        (50 * GB, 0, Level.GOOD, "50.0 GB free"),
        (50 * GB, 6 * GB, Level.WARNING, "more than half"),
        (50 * GB, 10 * GB, Level.PROBLEM, "full"),
        (10_000_000, 0, Level.PROBLEM, "the disk is full"),
    ],
)
def test_room_is_judged(free_bytes: int, used: int, level: Level, text: str) -> None:
    """
    A full disk and a used-up quota are problems, because records are dropped.
    """
    found = spool_folder.judge_room(
        free_bytes=free_bytes, total_bytes=100 * GB, used=used, quota=10 * GB
    )
    assert (found.level, text in found.text) == (level, True)
    assert found.exit_code == (2 if level is Level.PROBLEM else 0)


@pytest.mark.parametrize("is_mapped", [True, False])
def test_records_are_stored_and_read_back(tmp_path: Path, is_mapped: bool) -> None:
    """
    The test of the folder measures what a record costs there, in either mode.
    """
    found = spool_folder.check_writing(tmp_path, is_mapped=is_mapped)
    assert found.level is Level.GOOD
    assert 0 < found.facts["store_floor_us"] < 10_000
    assert 0 < found.facts["log_call_us"] < 10_000


def test_folder_without_room_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that has no room for a segment is found out by trying.
    """

    def full(descriptor: int, size_bytes: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "allocate", full)
    found = spool_folder.check_writing(tmp_path, is_mapped=True)
    assert (found.level, found.exit_code) == (Level.PROBLEM, 2)
    assert "No space left on device" in found.text


def test_runs_that_nobody_serves_are_found(tmp_path: Path) -> None:
    """
    What waits is told by scope, with the command that delivers it.
    """
    run = make_run(tmp_path, "run")
    writer = make_writer(run)
    writer.metric("m", 1.0, 0)
    writer.close(None)
    spool.write_struct(run / spool.RUN_FILE, msgspec.structs.replace(make_spec(), run_uid="run"))
    (found,) = spool_folder.check_waiting([tmp_path])
    assert (found.level, found.remedy) == (Level.WARNING, f"allele-mlflow sync {tmp_path}")
    assert "1 runs of this boot's wait with 1 records" in found.text
    (tmp_path / spool.scope_name()).rename(tmp_path / "other-host")
    (found,) = spool_folder.check_waiting([tmp_path])
    assert "another scope's (other-host)" in found.text


def test_living_sidecar_is_found(tmp_path: Path) -> None:
    """
    Only who holds his lock is a sidecar; its status says when it gave a sign of life.
    """
    status = {"pid": 17, "updated_ns": now_ns() - 90 * 10**9, "last_error": None}
    for name in ("gone", "here"):
        (tmp_path / f"sidecar-{name}.lock").touch()
        (tmp_path / f"sidecar-{name}.json").write_text(json.dumps(status), encoding="ascii")
    lock = try_lock(tmp_path / "sidecar-here.lock")
    assert lock is not None
    (seen,) = spool_folder.find_sidecars(tmp_path)
    lock.release()
    assert (seen.name, seen.pid) == ("here", 17)
    assert seen.age_s is not None
    assert 80 < seen.age_s < 1000


@pytest.mark.parametrize(
    ("age_s", "last_error", "level", "text"),
    [
        (1.0, None, Level.GOOD, "is alive"),
        (None, None, Level.GOOD, "is alive"),
        (90.0, None, Level.WARNING, "silent for 90 s"),
        (1.0, "no such host", Level.WARNING, "last error: no such host"),
    ],
)
def test_sidecar_is_judged(
    age_s: float | None, last_error: str | None, level: Level, text: str
) -> None:
    """
    One that holds its lock and gives no sign is silent, one with an error tells it.
    """
    found = spool_folder.judge_sidecar(SidecarSeen("p", True, 17, age_s, last_error))
    assert (found.level, text in found.text) == (level, True)
