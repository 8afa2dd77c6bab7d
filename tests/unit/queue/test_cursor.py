"""
The cursor's two slots.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.queue import layout
from allele_mlflow.queue.cursor import CursorFile, CursorState, Position, SegmentPosition
from allele_mlflow.records import Ledger


def state(number: int, open_slots: tuple[int, ...] = ()) -> CursorState:
    """
    A state that can be told from others.
    """
    return CursorState(
        position=Position({"m-00000000.seg": SegmentPosition(number, open_slots)}, number),
        totals=Ledger(delivered={"metric": number}),
    )


def test_newest_state_is_loaded(tmp_path: Path) -> None:
    """After any number of stores the last one stands."""
    cursor = CursorFile(tmp_path / "cursor")
    for number in range(1, 6):
        cursor.store(state(number))
        assert CursorFile(tmp_path / "cursor").load() == state(number)
    cursor.close()


@pytest.mark.parametrize("damaged_at", [0, 8, 20, 40])
def test_torn_slot_leaves_the_other(tmp_path: Path, damaged_at: int) -> None:
    """A kill in the middle of a store costs that store only."""
    cursor = CursorFile(tmp_path / "cursor")
    cursor.store(state(1))
    cursor.store(state(2))
    cursor.close()
    data = bytearray((tmp_path / "cursor").read_bytes())
    data[2 % 2 * layout.CURSOR_SLOT_BYTES + damaged_at] ^= 0xFF
    (tmp_path / "cursor").write_bytes(bytes(data))
    assert CursorFile(tmp_path / "cursor").load() == state(1)


def test_lost_cursor_is_no_error(tmp_path: Path) -> None:
    """Without a cursor, or with two bad slots, reading begins anew."""
    assert CursorFile(tmp_path / "none").load() is None
    (tmp_path / "cursor").write_bytes(b"\xff" * 2 * layout.CURSOR_SLOT_BYTES)
    assert CursorFile(tmp_path / "cursor").load() is None


def test_too_many_open_slots_go_back_to_the_first(tmp_path: Path) -> None:
    """A state that does not fit is stored as an earlier position: sent again, not lost."""
    cursor = CursorFile(tmp_path / "cursor")
    cursor.store(state(300_000, tuple(range(100, 300_000, 2))))
    cursor.close()
    loaded = CursorFile(tmp_path / "cursor").load()
    assert loaded is not None
    assert loaded.position.segments["m-00000000.seg"] == SegmentPosition(100)


def test_thousands_of_open_segments_fit(tmp_path: Path) -> None:
    """Segments that handlers put aside stay open until their writer is gone."""
    segments = {f"m-{i:08}.seg": SegmentPosition(32_640, (32_000,)) for i in range(8000)}
    cursor = CursorFile(tmp_path / "cursor")
    cursor.store(CursorState(position=Position(segments=segments, events_offset=1 << 40)))
    cursor.close()
    loaded = CursorFile(tmp_path / "cursor").load()
    assert loaded is not None
    assert loaded.position.segments == segments


def test_slot_that_does_not_check_is_told(tmp_path: Path) -> None:
    """Where one of two slots is lost, it may have been the newer one; the first store of all has no
    other beside it.
    """
    path = tmp_path / "cursor"
    CursorFile(path).store(state(1))
    for number in range(2, 4):
        cursor = CursorFile(path)
        assert cursor.load() == state(number - 1)
        assert not cursor.is_damaged
        cursor.store(state(number))
        cursor.close()
    whole = path.read_bytes()
    for start in (0, layout.CURSOR_SLOT_BYTES):
        path.write_bytes(whole[:start] + bytes(100) + whole[start + 100 :])
        cursor = CursorFile(path)
        assert cursor.load() is not None
        assert cursor.is_damaged
    path.write_bytes(whole[: layout.CURSOR_SLOT_BYTES])
    cursor = CursorFile(path)
    assert cursor.load() == state(2)
    assert cursor.is_damaged
    path.write_bytes(bytes(len(whole)))
    assert CursorFile(path).load() is None
    assert not CursorFile(path).is_damaged
