"""
The list of artifacts on their way: each is counted once, in the event lane or here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from allele_mlflow.queue import spool
from allele_mlflow.queue.lines import LineFile
from allele_mlflow.queue.uploads import UploadList
from allele_mlflow.records import ArtifactAdded, Ledger


def artifact(name: str) -> ArtifactAdded:
    """
    An artifact that stays where the user has it.
    """
    return ArtifactAdded(
        timestamp_ns=1, artifact_path=name, source="/data/model.bin", copied=False, size_bytes=5
    )


def test_what_became_of_each_survives(tmp_path: Path) -> None:
    """
    A new reader of the list knows which wait, which arrived, which were refused and why.
    """
    uploads = UploadList(tmp_path)
    for number, name in enumerate("abc"):
        uploads.add(artifact(name), stream="s", end=100 * (number + 1))
    first, second, _ = uploads.waiting()
    uploads.settle(first)
    uploads.settle(second, rejected="store")
    again = UploadList(tmp_path)
    assert [(u.number, u.artifact.artifact_path) for u in again.waiting()] == [(3, "c")]
    assert again.settled_count == 2
    assert again.ledger({"s": 300}) == Ledger(
        delivered={"artifact": 1}, rejected={"store": 1}, pending=1
    )


def test_one_that_is_read_again_is_known(tmp_path: Path) -> None:
    """
    It is its place in the lane that makes it the same, and not the file: that may be logged twice.
    """
    uploads = UploadList(tmp_path)
    uploads.add(artifact("a"), stream="s", end=100)
    uploads.add(artifact("a"), stream="s", end=200)
    uploads.add(artifact("a"), stream="t", end=100)
    again = UploadList(tmp_path)
    again.add(artifact("a"), stream="s", end=200)
    assert len(again.waiting()) == 3


def test_what_the_cursor_did_not_pass_is_counted_there(tmp_path: Path) -> None:
    """
    Whatever became of it: who counts the lane from that cursor has counted it.
    """
    uploads = UploadList(tmp_path)
    for number, name in enumerate("abcd"):
        uploads.add(artifact(name), stream="s", end=100 * (number + 1))
    first, second, third, _ = uploads.waiting()
    uploads.settle(first)
    uploads.settle(second, rejected="store")
    uploads.settle(third)
    assert uploads.ledger({}) == Ledger()
    assert uploads.ledger({"s": 100}) == Ledger(delivered={"artifact": 1})
    assert uploads.ledger({"s": 250}) == Ledger(delivered={"artifact": 1}, rejected={"store": 1})
    assert uploads.ledger({"s": 400}).pending == 1


def test_numbers_given_twice_keep_nobody(tmp_path: Path) -> None:
    """
    Damage may give two artifacts one number: the first stays, and settling it raises nothing.
    """
    lines = LineFile(tmp_path / spool.UPLOADS_FILE)
    for name in "ab":
        event = msgspec.to_builtins(artifact(name))
        lines.append({"number": 1, "stream": name, "end": 1, "artifact": event})
    uploads = UploadList(tmp_path)
    (first,) = uploads.waiting()
    uploads.settle(first)
    assert [uploads.first_of(name) for name in "ab"] == [None, None]
    uploads.add(artifact("c"), stream="s", end=100)
    assert [upload.number for upload in UploadList(tmp_path).waiting()] == [2]


def test_damaged_line_is_told_of(tmp_path: Path) -> None:
    """
    A line that does not check is no artifact, and is named with its bytes.
    """
    UploadList(tmp_path).add(artifact("a"), stream="s", end=100)
    path = tmp_path / spool.UPLOADS_FILE
    path.write_bytes(path.read_bytes().replace(b"/data/", b"/dota/"))
    uploads = UploadList(tmp_path)
    assert uploads.waiting() == []
    assert uploads.damage == [f"{path}: no lines of ours in bytes 0 to {path.stat().st_size}"]
