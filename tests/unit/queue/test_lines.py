"""
Files of lines: what is appended comes back, what is damaged is told of and spoils no other line.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from allele_mlflow.queue.lines import MAX_PLACES, LineFile


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What the tests append.
    """

    number: int = 0
    text: str = ""


LINES = [Line(1, 'ü,"check":7'), Line(), Line(3, "three")]


def write(path: Path) -> bytes:
    """
    A file of three lines.
    """
    file = LineFile(path)
    for line in LINES:
        file.append(line)
    return path.read_bytes()


def test_lines_come_back_with_their_checks(tmp_path: Path) -> None:
    """What is appended is read; a line is one JSON document whose last pair is its check."""
    path = tmp_path / "lines.jsonl"
    data = write(path)
    assert list(LineFile(path).read(Line)) == LINES
    assert all("check" in msgspec.json.decode(line) for line in data.splitlines())


def test_line_without_a_check_is_damaged(tmp_path: Path) -> None:
    """The check's own name may be what was damaged, so a missing check is damage."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"number":5}\n{}\n')
    file = LineFile(path)
    assert list(file.read(Line)) == []
    assert len(file.damage) == 2


def test_cut_keeps_what_is_before(tmp_path: Path) -> None:
    """A file is cut off before the first line that is not to be kept; damage is no such line."""
    path = tmp_path / "lines.jsonl"
    data = write(path)
    file = LineFile(path)
    file.cut(Line, lambda line: line.number < 5)
    assert path.read_bytes() == data
    file.cut(Line, lambda line: line.number < 3)
    assert list(file.read(Line)) == LINES[:2]
    path.write_bytes(b"x" + data)
    file.cut(Line, lambda line: line.number != 1)
    assert path.read_bytes() == b"x" + data
    LineFile(tmp_path / "missing").cut(Line, lambda line: False)


def test_line_with_any_bit_changed_is_damage(tmp_path: Path) -> None:
    """One changed bit costs its own line at most, is never believed, and its place is told."""
    path = tmp_path / "lines.jsonl"
    data = write(path)
    ends = [at for at, byte in enumerate(data) if byte == 0x0A]
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        hit = sum(end < bit // 8 for end in ends)
        file = LineFile(path)
        found = list(file.read(Line))
        assert [line for line in LINES if line in found] == found
        assert set(LINES) - set(found) <= {LINES[hit]}
        if len(found) < len(LINES):
            assert file.damage, f"bit {bit}: a line is gone without a word"


def test_line_cut_short_is_no_damage(tmp_path: Path) -> None:
    """A kill or a full disk in the middle of a line leaves a part of it; its record comes again."""
    path = tmp_path / "lines.jsonl"
    data = write(path)
    for end in range(len(data)):
        path.write_bytes(data[:end])
        file = LineFile(path)
        assert list(file.read(Line)) == LINES[: data[: end + 1].count(b"\n")]
        assert file.damage == []


def test_places_of_damage_are_few(tmp_path: Path) -> None:
    """A file that is damaged everywhere is told of in a few words."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"?\n" * 1000)
    file = LineFile(path)
    assert list(file.read(Line)) == []
    assert len(file.damage) == MAX_PLACES
    assert file.damage[-1].endswith(" to 2000")


def test_line_that_begins_in_the_middle_is_damage(tmp_path: Path) -> None:
    """What a newline out of nowhere leaves behind it is no line that was cut short."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"number":1,"te\n"t\n')
    file = LineFile(path)
    assert list(file.read(Line)) == []
    assert file.damage == [f"{path}: no lines of ours in bytes 16 to 19"]


def test_damaged_end_of_a_line_costs_not_the_next(tmp_path: Path) -> None:
    """Where the newline is gone with the end of a line, the line behind it is read all the same."""
    path = tmp_path / "lines.jsonl"
    first, second, third = write(path).splitlines(keepends=True)
    path.write_bytes(first[:-9] + bytes(9) + second + third)
    file = LineFile(path)
    assert list(file.read(Line)) == LINES[1:]
    assert len(file.damage) == 1
