"""
The spool's folders and locks.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec
import pytest

from allele_mlflow.errors import QueueError
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.room import used_bytes
from allele_mlflow.queue.run_reader import count_ledger
from tests.queue_tools import make_run, make_spec, make_writer


def test_spool_is_private(tmp_path: Path) -> None:
    """Folders are 0700, files 0600, whatever the umask, and no repository takes them."""
    before = os.umask(0)
    try:
        run = make_run(tmp_path / "spool")
        writer = make_writer(run)
        writer.metric("a", 1.0, 1)
        spool.write_struct(run / spool.RUN_FILE, make_spec())
    finally:
        os.umask(before)
    for path in (tmp_path / "spool").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600) or path.name == ".gitignore", path
    assert "*" in (tmp_path / "spool" / ".gitignore").read_text()
    writer.close()


def test_unwritable_spool_says_why(tmp_path: Path) -> None:
    """A folder that cannot be made is an error that names it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(QueueError, match="file/spool cannot be written"):
        spool.open_scope(tmp_path / "file" / "spool")


def test_quota_drops_and_counts(tmp_path: Path) -> None:
    """A spool at its quota takes no more segments; what comes is dropped under that name."""
    run = make_run(tmp_path)
    writer = make_writer(run, quota_bytes=40_000)
    spool.write_struct(run / spool.RUN_FILE, make_spec())
    for step in range(2000):
        writer.metric("a", 1.0, step)
    writer.close()
    ledger = count_ledger(run)
    assert ledger is not None
    assert ledger.dropped["quota"] > 0
    assert ledger.accepted == 2000
    assert used_bytes(run.parent.parent) <= 40_000 + 4 * layout.PAGE_BYTES


def test_file_system_is_told() -> None:
    """The file system of a folder has a name, and procfs is not one to map segments on."""
    assert spool.file_system_of(Path("/proc")) == "proc"
    assert not spool.can_map(Path("/proc"))


def test_struct_is_replaced_whole(tmp_path: Path) -> None:
    """A reader of a small file never sees a part of it, and finds none where there is none."""
    assert spool.read_struct(tmp_path / "x", type(make_spec())) is None
    spool.write_struct(tmp_path / "x", make_spec("stream"))
    assert spool.read_struct(tmp_path / "x", type(make_spec())) == make_spec("stream")
    (tmp_path / "x").write_bytes(b"\xc1 not msgpack")
    assert spool.read_struct(tmp_path / "x", type(make_spec())) is None
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_struct_with_any_bit_changed_is_none(tmp_path: Path) -> None:
    """A description of a run that a disk has altered is not believed: it would be delivered
    somewhere else, or as somebody else's; nothing raises, whatever the bytes are by now.
    """
    path, spec = tmp_path / "x", make_spec("größe")
    spool.write_struct(path, spec)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert spool.read_struct(path, type(spec)) is None
    for end in range(len(data)):
        path.write_bytes(data[:end])
        assert spool.read_struct(path, type(spec)) is None


def test_struct_without_a_check_is_damaged(tmp_path: Path) -> None:
    """The check's own name may be what was damaged, so a missing check is damage; it is one pair of
    a map that any reader of MessagePack reads.
    """
    path, spec = tmp_path / "x", make_spec("stream")
    path.write_bytes(msgspec.msgpack.encode(spec))
    assert spool.read_struct(path, type(spec)) is None
    spool.write_struct(path, spec)
    assert msgspec.msgpack.decode(path.read_bytes(), type=type(spec)) == spec
    assert "check" in msgspec.msgpack.decode(path.read_bytes())


def test_struct_is_whole_where_writes_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nearly full disk takes a part of a write and says so only in its number: the rest follows,
    or the old file stands.
    """
    spool.write_struct(tmp_path / "x", make_spec("old"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    spool.write_struct(tmp_path / "x", make_spec("new"))
    assert spool.read_struct(tmp_path / "x", type(make_spec())) == make_spec("new")

    room = [10]

    def fill(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: room.pop()])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space"):
        spool.write_struct(tmp_path / "x", make_spec("newer"))
    assert spool.read_struct(tmp_path / "x", type(make_spec())) == make_spec("new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
