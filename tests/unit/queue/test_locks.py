"""
Locks that the kernel releases, and who counts as alive.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.locks import (
    is_locked,
    is_writer_alive,
    process_start_time,
    try_lock,
    try_lock_folder,
)
from tests.queue_tools import make_run, make_writer


def test_lock_is_seen_by_others_and_goes_with_the_process(tmp_path: Path) -> None:
    """A lock is held as long as its process lives, and not longer."""
    path = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from allele_mlflow.queue.locks import try_lock\n"
        "held = try_lock(Path(sys.argv[1])); assert held is not None; print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(path)
        assert try_lock(path) is None
        holder.kill()
        holder.wait()
        assert not is_locked(path)


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path: Path) -> None:
    """Two who look at once do not mistake each other for the holder."""
    path = tmp_path / "lock"
    path.touch()
    assert not is_locked(path)
    held = try_lock(path)
    assert held is not None
    assert is_locked(path)
    held.release()
    held.release()
    assert not is_locked(path)


def test_release_is_for_good_though_a_child_was_forked(tmp_path: Path) -> None:
    """A forked child has a copy of the descriptor, and keeps the lock from nobody."""
    path = tmp_path / "lock"
    held = try_lock(path)
    assert held is not None
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    assert is_locked(path)
    held.release()
    assert not is_locked(path)
    os.close(writing)
    os.waitpid(pid, 0)
    os.close(reading)


def test_folder_has_one_holder(tmp_path: Path) -> None:
    """A folder's lock is one, and is not given for a folder that stands elsewhere by now."""
    folder = tmp_path / "run"
    folder.mkdir()
    held = try_lock_folder(folder)
    assert held is not None
    assert try_lock_folder(folder) is None
    held.release()
    again = try_lock_folder(folder)
    assert again is not None
    folder.rename(tmp_path / "done")
    folder.mkdir()
    fresh = try_lock_folder(folder)
    assert fresh is not None, "a new folder of the old name is another one"
    for lock in (again, fresh):
        lock.release()


def test_reused_pid_is_not_the_writer(tmp_path: Path) -> None:
    """A held lock whose recorded process is another one by now counts as dead."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    stream = run / spool.STREAMS / writer.stream_id
    assert is_writer_alive(stream)
    page = layout.StreamPage(os.getpid(), 12345, 1, layout.ROLE_PRODUCER)
    with (stream / layout.STREAM_PAGE).open("r+b") as file:
        file.write(layout.encode_stream_page(page))
    assert not is_writer_alive(stream)
    writer.close()


def test_pid_of_another_scope_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another container has a number that is nobody's here; its lock says it lives."""
    with monkeypatch.context() as there:
        there.setattr(spool, "scope_name", lambda: "another-container")
        run = make_run(tmp_path)
        writer = make_writer(run)
    stream = run / spool.STREAMS / writer.stream_id
    page = layout.StreamPage(1 << 22, 12345, 1, layout.ROLE_PRODUCER)
    with (stream / layout.STREAM_PAGE).open("r+b") as file:
        file.write(layout.encode_stream_page(page))
    assert is_writer_alive(stream)
    writer.close()
    assert not is_writer_alive(stream)


def test_nobody_is_dead_for_want_of_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor left nothing can be found out, so nobody is called dead."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    stream = run / spool.STREAMS / writer.stream_id
    writer.close()
    assert not is_writer_alive(stream)

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    assert is_writer_alive(stream)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "read_text", refuse)
    assert process_start_time(os.getpid()) is None
