"""
Dead letters: read back whole, told apart by who refused them, never lost by a rewrite.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from allele_mlflow.queue import spool
from allele_mlflow.records import ArtifactAdded, Reading, RecordRejected
from allele_mlflow.sidecar.dead_letters import DeadLetters
from allele_mlflow.sidecar.run_files import RunFiles
from tests.queue_tools import make_run, make_spec, make_writer

ARTIFACT = ArtifactAdded(
    timestamp_ns=1, artifact_path="a/b", source="c", copied=True, size_bytes=3, mtime_ns=4
)
LETTER = RecordRejected(
    timestamp_ns=1, reason="bad_value", call="metric", key="k", value="'x'", wanted="a number"
)


@pytest.mark.parametrize(
    ("call", "record", "shown"),
    [
        ("metric", Reading("m", 0.1, 5, 7), ("m", "0.1", 7)),
        ("metric", Reading("m", math.inf, 5, 7), ("m", "inf", 7)),
        ("metric", Reading("m", -math.inf, 5, 7), ("m", "-inf", 7)),
        ("param", ("p", "v"), ("p", "v", None)),
        ("tag", ("t", "w"), ("t", "w", None)),
        ("artifact", ARTIFACT, ("a/b", "c", None)),
    ],
)
def test_refused_record_comes_back_whole(
    tmp_path: Path, call: str, record: object, shown: tuple[object, ...]
) -> None:
    """
    What the store refused is in its letter, to the last bit, of every kind.
    """
    RunFiles(tmp_path).note_refused(call, record, "store", "words")
    (letter,) = DeadLetters(tmp_path).letters
    assert letter.record == record
    assert (letter.key, letter.value, letter.step) == shown
    assert (letter.line.reason, letter.line.wanted) == ("store", "words")
    assert letter.is_of_the_store


def test_refused_nan_comes_back(tmp_path: Path) -> None:
    """
    JSON has no NaN; the letter has.
    """
    RunFiles(tmp_path).note_refused("metric", Reading("m", math.nan, 5, 7), "store", "words")
    (letter,) = DeadLetters(tmp_path).letters
    assert isinstance(letter.record, Reading)
    assert math.isnan(letter.record.value)


@pytest.mark.parametrize("record", [["m", None, 5, 7], ["m", "x", 5, 7], ["m"], {}, "m", 5])
def test_letter_without_a_whole_record_is_shown_all_the_same(
    tmp_path: Path, record: object
) -> None:
    """
    A letter whose record cannot be read is the store's, and cannot be sent.
    """
    line = {"reason": "store", "call": "metric", "record": record}
    (tmp_path / spool.REJECTED_FILE).write_text(json.dumps(line), encoding="ascii")
    (letter,) = DeadLetters(tmp_path).letters
    assert (letter.record, letter.is_of_the_store) == (None, True)
    assert letter.value


def test_letter_that_the_logger_repeated_is_one(tmp_path: Path) -> None:
    """
    A killed sidecar repeats the logger's letters; they are listed once, in their order.
    """
    for _ in range(2):
        RunFiles(tmp_path).note_rejected(LETTER)
    RunFiles(tmp_path).note_refused("param", ("p", "v"), "store", "words")
    found = DeadLetters(tmp_path).letters
    assert [letter.key for letter in found] == ["k", "p"]
    assert [letter.is_of_the_store for letter in found] == [False, True]


def test_store_letters_are_bounded_by_the_ledger(tmp_path: Path) -> None:
    """
    Equal letters are as many as the ledger counts; one that is like no other is never left out.
    """
    files = RunFiles(tmp_path)
    for value in ("v", "v", "v", "w"):
        files.note_refused("param", ("p", value), "store", "words")
    for counted, expected in ((4, "vvvw"), (3, "vvw"), (2, "vw"), (0, "vw")):
        letters = DeadLetters(tmp_path)
        letters.drop_repeats({"store": counted})
        assert sorted(letter.value for letter in letters.letters) == list(expected)


def test_unread_letters_are_listed_once(tmp_path: Path) -> None:
    """
    A letter that no sidecar has read is found in the stream, and beside the file counts once.
    """
    run = make_run(tmp_path / "spool")
    writer = make_writer(run)
    for value in ("x", "y"):
        writer.reject("bad_value", "metric", "k", value, "a number")
    writer.close(None)
    letters = DeadLetters(run)
    letters.add_unread(run, make_spec())
    assert [letter.value for letter in letters.letters] == ["'x'", "'y'"]
    line = letters.letters[0].line
    RunFiles(run).note_rejected(
        RecordRejected(
            timestamp_ns=line.timestamp_ns,
            reason=line.reason,
            call=line.call,
            key=line.key,
            value=line.value,
            wanted=line.wanted,
        )
    )
    again = DeadLetters(run)
    again.add_unread(run, make_spec())
    assert [letter.value for letter in again.letters] == ["'x'", "'y'"]


def test_rewrite_keeps_what_it_cannot_read(tmp_path: Path) -> None:
    """
    Taking letters out leaves the others byte for byte, and damaged lines too.
    """
    RunFiles(tmp_path).note_rejected(LETTER)
    path = tmp_path / spool.REJECTED_FILE
    kept = path.read_bytes()
    RunFiles(tmp_path).note_refused("param", ("p", "v"), "store", "words")
    with path.open("ab") as file:
        file.write(b'{"cut short\n\n')
    letters = DeadLetters(tmp_path)
    letters.keep([one for one in letters.letters if not one.is_of_the_store])
    assert path.read_bytes() == kept + b'{"cut short\n'
    letters.remove_if_empty()
    assert path.exists()


def test_run_without_letters_has_no_file(tmp_path: Path) -> None:
    """
    When the last letter is gone, so is the file.
    """
    RunFiles(tmp_path).note_rejected(LETTER)
    letters = DeadLetters(tmp_path)
    letters.keep([])
    letters.remove_if_empty()
    assert not (tmp_path / spool.REJECTED_FILE).exists()
    assert DeadLetters(tmp_path).letters == []
