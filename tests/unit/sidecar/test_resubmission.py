"""
Sending again what was refused: a bad record spoils no other, the ledger follows, nothing is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.queue import spool
from allele_mlflow.records import ArtifactAdded, Ledger, Reading, RunEnded, RunId, RunState
from allele_mlflow.sidecar.dead_letters import DeadLetter, DeadLetters
from allele_mlflow.sidecar.resubmission import (
    GivenUpError,
    Outcome,
    PatientCalls,
    moved,
    send_again,
    settle,
)
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.testing import FlakyTracking, MemoryTracking
from allele_mlflow.testing.flaky_tracking import Fault
from allele_mlflow.tracking.protocol import Tracking

PATIENCE_S = 20.0


class PickyTracking(MemoryTracking):
    """
    A store that refuses some keys, and with each of them the whole call.
    """

    refused_keys: frozenset[str] = frozenset()

    def log_batch(
        self,
        run_id: RunId,
        *,
        readings: Sequence[Reading] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        Take all of it or nothing.
        """
        keys = {reading.key for reading in readings} | set(params or {}) | set(tags or {})
        if bad := keys & self.refused_keys:
            raise PermanentTrackingError(f"no {min(bad)}", kind=ErrorKind.REFUSED)
        super().log_batch(run_id, readings=readings, params=params, tags=tags)


def refused_run(folder: Path, tracking: Tracking) -> tuple[RunId, RunState]:
    """
    A run in a store, in whose folder 40 readings, two params, a tag and the logger's own letter
    stand as refused.
    """
    experiment = tracking.ensure_experiment("e", artifact_location=None)
    run_id = tracking.create_run(experiment, run_name=None, start_ms=1, tags={})
    files = RunFiles(folder)
    for step in range(40):
        reading = Reading("bad" if step == 17 else "m", float(step), 1, step)
        files.note_refused("metric", reading, "store", "words")
    for key in ("p", "bad"):
        files.note_refused("param", (key, "v"), "store", "words")
    files.note_refused("tag", ("t", "v"), "store", "words")
    ledger = Ledger(
        delivered={"metric": 5}, rejected={"store": 43, "bad_value": 2}, dropped={"q": 1}
    )
    return run_id, RunState(run_uid="run", updated_ns=1, run_id=run_id, ledger=ledger)


def send(
    folder: Path, run_id: RunId, tracking: Tracking, *, give_up_after_s: float = PATIENCE_S
) -> tuple[DeadLetters, list[DeadLetter], Outcome]:
    """
    Send all letters of a folder.
    """
    letters = DeadLetters(folder)
    outcome = send_again(
        letters.letters,
        folder=folder,
        run_id=run_id,
        tracking=tracking,
        calls=PatientCalls(give_up_after_s),
        batch_size=16,
    )
    return letters, [letters.letters[number] for number in outcome.taken], outcome


def test_bad_record_spoils_no_other(tmp_path: Path) -> None:
    """
    Of a call that is refused the good records arrive, and the bad ones keep their letters and the
    store's words; what arrived moves from rejected to delivered in state and tag.
    """
    tracking = PickyTracking()
    run_id, state = refused_run(tmp_path, tracking)
    tracking.refused_keys = frozenset({"bad"})
    letters, taken, outcome = send(tmp_path, run_id, tracking)
    assert sorted(outcome.refused) == [17, 41]
    assert set(outcome.refused.values()) == {"no bad"}
    accepted = state.ledger.accepted
    calls = PatientCalls(PATIENCE_S)
    assert (
        settle(
            letters,
            taken,
            folder=tmp_path,
            state=state,
            run_id=run_id,
            tracking=tracking,
            calls=calls,
        )
        is None
    )
    stored = tracking.runs[run_id]
    assert sorted(row.step for row in stored.rows("m")) == [n for n in range(40) if n != 17]
    assert (stored.params, stored.tags["t"]) == ({"p": "v"}, "v")
    kept = spool.read_struct(tmp_path / spool.STATE_FILE, RunState)
    assert kept is not None
    assert kept.ledger.delivered == {"metric": 44, "param": 1, "tag": 1}
    assert kept.ledger.rejected == {"store": 2, "bad_value": 2}
    assert kept.ledger.accepted == accepted
    assert '"rejected":{"bad_value":2,"store":2}' in stored.tags["allele.delivery"]
    assert [letter.key for letter in DeadLetters(tmp_path).letters] == ["bad", "bad"]


@pytest.mark.parametrize("killed_before", ["tag", "state", "letters"])
def test_kill_in_the_middle_counts_nothing_twice(
    tmp_path: Path, killed_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever was done before a kill, the next try ends with the same ledger, letters and rows.
    """
    tracking = PickyTracking()
    run_id, state = refused_run(tmp_path, tracking)
    tracking.refused_keys = frozenset({"bad"})
    spool.write_struct(tmp_path / spool.STATE_FILE, state)

    class KilledError(Exception):
        pass

    def kill(*_: object, **__: object) -> None:
        raise KilledError

    def attempt() -> None:
        present = spool.read_struct(tmp_path / spool.STATE_FILE, RunState)
        assert present is not None
        letters, taken, _ = send(tmp_path, run_id, tracking)
        settle(
            letters,
            taken,
            folder=tmp_path,
            state=present,
            run_id=run_id,
            tracking=tracking,
            calls=PatientCalls(PATIENCE_S),
        )

    with monkeypatch.context() as patch:
        if killed_before == "tag":
            patch.setattr("allele_mlflow.sidecar.resubmission.ledger_text", kill)
        elif killed_before == "state":
            patch.setattr(spool, "write_struct", kill)
        else:
            patch.setattr(DeadLetters, "keep", kill)
        with pytest.raises(KilledError):
            attempt()
    assert len(DeadLetters(tmp_path).letters) == 43
    attempt()
    kept = spool.read_struct(tmp_path / spool.STATE_FILE, RunState)
    assert kept is not None
    assert kept.ledger.delivered == {"metric": 44, "param": 1, "tag": 1}
    assert kept.ledger.rejected == {"store": 2, "bad_value": 2}
    assert [letter.key for letter in DeadLetters(tmp_path).letters] == ["bad", "bad"]
    assert len(tracking.runs[run_id].rows("m")) == 39


def test_transient_fault_is_tried_again(tmp_path: Path) -> None:
    """
    A store that is busy once takes everything a moment later.
    """
    memory = MemoryTracking()
    run_id, _ = refused_run(tmp_path, memory)
    flaky = FlakyTracking(memory, {"log_batch": [Fault.transient(ErrorKind.STORE_BUSY)]})
    _, taken, outcome = send(tmp_path, run_id, flaky)
    assert (len(taken), outcome.refused) == (43, {})


def test_run_that_is_gone_keeps_its_letters(tmp_path: Path) -> None:
    """
    Without the run no letter can be taken; that is said once and asked once.
    """
    memory = MemoryTracking()
    run_id, _ = refused_run(tmp_path, memory)
    flaky = FlakyTracking(memory, {"log_batch": [Fault.permanent(ErrorKind.NOT_FOUND)]})
    _, taken, outcome = send(tmp_path, run_id, flaky)
    assert taken == []
    assert sorted(outcome.refused) == list(range(43))


def test_silent_store_is_given_up(tmp_path: Path) -> None:
    """
    A call that never returns is left behind after the time that was given.
    """
    memory = MemoryTracking()
    run_id, _ = refused_run(tmp_path, memory)
    release = threading.Event()
    flaky = FlakyTracking(memory, {"log_batch": [Fault(hold=release)]})
    try:
        with pytest.raises(GivenUpError, match=r"no answer within 0\.2 s"):
            send(tmp_path, run_id, flaky, give_up_after_s=0.2)
    finally:
        release.set()
    assert len(DeadLetters(tmp_path).letters) == 43


@pytest.mark.parametrize(
    ("copied", "is_there", "is_taken"),
    [(True, False, False), (False, True, True), (False, False, False)],
)
def test_artifact_is_sent_where_its_file_still_is(
    tmp_path: Path, copied: bool, is_there: bool, is_taken: bool
) -> None:
    """
    A copy in the spool went when it was refused; a file that was too large to copy may be there.
    """
    tracking = MemoryTracking()
    experiment = tracking.ensure_experiment("e", artifact_location=None)
    run_id = tracking.create_run(experiment, run_name=None, start_ms=1, tags={})
    file = tmp_path / "large.bin"
    file.write_bytes(b"abc")
    artifact = ArtifactAdded(
        timestamp_ns=1,
        artifact_path="large.bin",
        source=str(file),
        copied=copied,
        size_bytes=3,
        mtime_ns=file.stat().st_mtime_ns,
    )
    RunFiles(tmp_path).note_refused("artifact", artifact, "store", "words")
    if not is_there:
        file.unlink()
    _, taken, outcome = send(tmp_path, run_id, tracking)
    assert (len(taken), len(outcome.refused)) == ((1, 0) if is_taken else (0, 1))
    assert ("large.bin" in tracking.runs[run_id].artifacts) is is_taken


def test_samples_are_in_nobodys_ledger(tmp_path: Path) -> None:
    """
    Refused resource samples are sent again too, and count as samples only, taken or not.
    """
    files = RunFiles(tmp_path)
    sample = "system/cpu_utilization_percentage"
    for key in (sample, "m", sample, sample):
        files.note_refused("metric", Reading(key, 1.0, 1, 1), "store", "words")
    letters = DeadLetters(tmp_path).letters
    after = moved(Ledger(rejected={"store": 1}), letters[:3], letters[3:])
    assert (after.rejected, after.delivered, after.sampled) == ({}, {"metric": 1}, 2)


def test_restored_run_gets_its_end(tmp_path: Path) -> None:
    """
    A run that was deleted when it ended stays RUNNING in MLflow until its letters are taken.
    """
    tracking = MemoryTracking()
    experiment = tracking.ensure_experiment("e", artifact_location=None)
    run_id = tracking.create_run(experiment, run_name=None, start_ms=1, tags={})
    RunFiles(tmp_path).note_refused("param", ("p", "v"), "run_deleted", "words")
    end = RunEnded(timestamp_ns=7_000_000, status="FAILED", slots={}, ended_by="exception")
    ledger = Ledger(rejected={"run_deleted": 1})
    state = RunState(run_uid="run", updated_ns=1, run_id=run_id, ledger=ledger, end=end)
    letters, taken, _ = send(tmp_path, run_id, tracking)
    calls = PatientCalls(PATIENCE_S)
    settle(
        letters, taken, folder=tmp_path, state=state, run_id=run_id, tracking=tracking, calls=calls
    )
    stored = tracking.runs[run_id]
    assert (stored.status, stored.tags["allele.ended_by"]) == ("FAILED", "exception")


def test_letters_beyond_those_kept_stay_rejected(tmp_path: Path) -> None:
    """
    Of more rejected records than there are letters, only the letters move.
    """
    RunFiles(tmp_path).note_refused("param", ("p", "v"), "store", "words")
    (letter,) = DeadLetters(tmp_path).letters
    after = moved(Ledger(rejected={"store": 10}), [letter], [])
    assert (after.rejected, after.delivered) == ({"store": 9}, {"param": 1})
