"""
The list of artifacts on their way: each is counted once, in the event lane or here.
"""

from __future__ import annotations

from pathlib import Path

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
