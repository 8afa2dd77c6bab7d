"""
The room of a spool: counted as the disk counts, looked at within a share of the time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.queue import room
from allele_mlflow.queue.room import Room, used_bytes
from tests.queue_tools import make_run


def test_holes_take_no_room(tmp_path: Path) -> None:
    """
    A cursor's file is large and almost empty; a pool leaves thousands of them.
    """
    run = make_run(tmp_path)
    with open(run / "sparse", "wb") as file:
        file.truncate(10_000_000)
    assert used_bytes(run.parent.parent) < 100_000


def test_costly_look_is_not_repeated_by_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A full spool of many files is looked through for one part in a hundred of the time, and then
    found to have room again.
    """
    scope = make_run(tmp_path).parent.parent
    now_s, looks = 100.0, []

    def used(_: Path) -> int:
        nonlocal now_s
        looks.append(now_s)
        now_s += 0.5
        return 2000 if len(looks) < 3 else 0

    monkeypatch.setattr(room, "used_bytes", used)
    monkeypatch.setattr(room, "now_monotonic_s", lambda: now_s)
    spool_room = Room(scope, 1000)
    for _ in range(1000):
        assert spool_room.refusal(1) == "dropped.quota"
        now_s += 0.01
    assert len(looks) == 1
    now_s += 50.0
    assert spool_room.refusal(1) == "dropped.quota"
    now_s += 51.0
    assert spool_room.refusal(1) is None
    assert len(looks) == 3
