"""
Sending again what the store refused of a delivered run, and putting its ledger right.

The order is what makes a kill harmless: the store has a record before the tag says so, the tag
before the state, the state before the letter is gone. Who comes after a kill sends the same
records again, which changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from allele_mlflow.clock import now_monotonic_s, now_ns, pause_s
from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.queue import spool
from allele_mlflow.records import ArtifactAdded, Ledger, Reading, RunId, RunState
from allele_mlflow.sidecar.dead_letters import DeadLetter, DeadLetters
from allele_mlflow.sidecar.plan import (
    Commit,
    Item,
    ItemKind,
    Read,
    RunPlan,
    Send,
    SetAside,
    Wait,
)
from allele_mlflow.sidecar.run_store import artifact_file, batch_of
from allele_mlflow.sidecar.run_summary import ledger_text
from allele_mlflow.tracking.protocol import Tracking
from allele_mlflow.units import describe

T = TypeVar("T")
#: The sidecar's own readings begin so.
SAMPLE_PREFIX = "system/"
#: Why a letter was refused whose run was deleted: its end was refused too.
RUN_DELETED = "run_deleted"


@dataclass
class Outcome:
    """
    What became of one run's letters: numbers in the list that was given.
    """

    taken: list[int] = field(default_factory=list)
    #: With the store's words.
    refused: dict[int, str] = field(default_factory=dict)


class GivenUpError(Exception):
    """
    The store gave no answer in time; the text is its last word.
    """


class PatientCalls:
    """
    Calls that may hang, each in a thread that is left behind where it does.

    Args:
        give_up_after_s: Longest time without any call that succeeds or is refused.
    """

    def __init__(self, give_up_after_s: float) -> None:
        self._give_up_after_s = give_up_after_s
        self._since_s = now_monotonic_s()

    def make(self, work: Callable[[], T]) -> T:
        """
        Make one call.

        Raises:
            TrackingError: the store's answer.
            GivenUpError: there was none in time.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as exc:  # noqa: BLE001 - carried over to the caller's thread
                errors.append(exc)

        thread = threading.Thread(target=run, name="allele-mlflow-call", daemon=True)
        thread.start()
        thread.join(max(0.0, self._rest_s()))
        if errors:
            if not isinstance(errors[0], TransientTrackingError):
                self._since_s = now_monotonic_s()  # an answer
            raise errors[0]
        if not results:
            raise GivenUpError(f"no answer within {self._give_up_after_s:g} s")
        self._since_s = now_monotonic_s()
        return results[0]

    def insist(self, work: Callable[[], T]) -> T:
        """
        Make one call until the store answers it.

        Raises:
            PermanentTrackingError: the store refuses it.
            GivenUpError: there was no answer in time.
        """
        while True:
            try:
                return self.make(work)
            except TransientTrackingError as exc:
                self.pause(exc.retry_after_s or 0.5, str(exc))

    def pause(self, seconds: float, words: str | None) -> None:
        """
        Wait before another try.

        Raises:
            GivenUpError: there is no time left.
        """
        if self._rest_s() <= seconds:
            raise GivenUpError(words or f"no answer within {self._give_up_after_s:g} s")
        pause_s(seconds)

    def _rest_s(self) -> float:
        return self._give_up_after_s - (now_monotonic_s() - self._since_s)


def send_again(
    letters: Sequence[DeadLetter],
    *,
    folder: Path,
    run_id: RunId,
    tracking: Tracking,
    calls: PatientCalls,
    batch_size: int,
) -> Outcome:
    """
    Send letters of the store's to their run; a batch that is refused is halved, so that a bad
    record spoils no other.

    Raises:
        GivenUpError: the store gave no answer in time.
    """
    outcome = Outcome()
    plan = RunPlan(batch_size=batch_size, flush_interval_s=0.0)
    plan.is_urgent = True
    for number, letter in enumerate(letters):
        if isinstance(letter.record, ArtifactAdded):
            try:
                _upload(letter.record, folder, run_id, tracking=tracking, calls=calls)
                outcome.taken.append(number)
            except (PermanentTrackingError, OSError) as exc:
                outcome.refused[number] = str(exc)
        elif letter.record is None:
            outcome.refused[number] = "the letter does not hold the whole record"
        else:
            item = Item(str(number), _kind_of(letter), letter.record)
            plan.offer([item], now_monotonic_s())
    while True:
        match plan.next(now_monotonic_s()):
            case Send() as send:
                try:
                    calls.make(partial(tracking.log_batch, run_id, **batch_of(send)))
                    plan.acknowledged()
                    outcome.taken += [int(item.stream_id) for item in send.items]
                except TrackingError as exc:
                    if exc.kind is ErrorKind.NOT_FOUND:  # the run: no letter can be taken
                        rest = set(range(len(letters))) - set(outcome.taken) - set(outcome.refused)
                        outcome.refused |= dict.fromkeys(rest, str(exc))
                        return outcome
                    plan.failed(exc, now_monotonic_s())
            case SetAside(item, _, words):
                outcome.refused[int(item.stream_id)] = words
            case Commit():
                pass  # there is no cursor; see `settle`
            case Wait(seconds, error):
                calls.pause(seconds, error)
            case Read():
                return outcome


def settle(
    store: DeadLetters,
    taken: Sequence[DeadLetter],
    *,
    folder: Path,
    state: RunState,
    run_id: RunId,
    tracking: Tracking,
    calls: PatientCalls,
) -> str | None:
    """
    Move what the store has taken from rejected to delivered, in its tag and in the run's state, and
    take it out of the dead letters. A run that was deleted when it ended ends now.

    Returns:
        Why the run's own list of dead letters in the store is still the old one, None where it is
        not.
    Raises:
        PermanentTrackingError: the store does not take the tag.
        GivenUpError: it gave no answer in time.
        OSError: the run's files cannot be written. In each case the letters are still there.
    """
    gone = {id(letter) for letter in taken}
    rest = [letter for letter in store.letters if id(letter) not in gone]
    state.ledger = moved(state.ledger, taken, rest)
    tags = {"allele.delivery": ledger_text(state.ledger)}
    end = state.end
    is_restored = any(letter.line.reason == RUN_DELETED for letter in taken)
    if end is not None and is_restored:
        tags["allele.ended_by"] = end.ended_by
        end_ms = end.timestamp_ns // 1_000_000
        calls.insist(partial(tracking.end_run, run_id, end.status, end_ms))
    calls.insist(partial(tracking.log_batch, run_id, tags=tags))
    state.updated_ns = now_ns()
    spool.write_struct(folder / spool.STATE_FILE, state)
    store.keep(rest)
    try:
        target = f"{state.artifact_folder}/{spool.REJECTED_FILE}"
        calls.insist(partial(tracking.log_artifact, run_id, store.path, target))
    except (TrackingError, GivenUpError) as exc:
        return str(exc)
    finally:
        store.remove_if_empty()
    return None


def moved(ledger: Ledger, taken: Sequence[DeadLetter], rest: Sequence[DeadLetter]) -> Ledger:
    """
    The ledger after the store has taken some letters, of which a call that was killed may have
    counted some before: what is still refused never counts as less than there are letters.

    Resource samples have letters too and are in nobody's ledger, but for `sampled`.
    """
    samples = [letter for letter in taken if _is_sample(letter)]
    taken = [letter for letter in taken if not _is_sample(letter)]
    rest = [letter for letter in rest if not _is_sample(letter)]
    fresh = msgspec.convert(msgspec.to_builtins(ledger), Ledger)
    kept = Counter(letter.line.reason for letter in rest if letter.is_of_the_store)
    for reason in dict.fromkeys(letter.line.reason for letter in taken):
        mine = [letter for letter in taken if letter.line.reason == reason]
        before = ledger.rejected.get(reason, 0)
        after = min(before, max(kept[reason], before - len(mine)))
        fresh.rejected[reason] = after
        if not after:
            fresh.rejected.pop(reason)
        for letter in mine[: before - after]:
            kind = letter.line.call
            fresh.delivered[kind] = fresh.delivered.get(kind, 0) + 1
    fresh.sampled += len(samples)
    return fresh


def _is_sample(letter: DeadLetter) -> bool:
    if not isinstance(letter.record, Reading):
        return False
    key = letter.record.key
    return key.startswith(SAMPLE_PREFIX) and describe(key) is not None


def _kind_of(letter: DeadLetter) -> ItemKind:
    if isinstance(letter.record, Reading):
        return "metric"
    return "tag" if letter.line.call == "tag" else "param"


def _upload(
    artifact: ArtifactAdded,
    folder: Path,
    run_id: RunId,
    *,
    tracking: Tracking,
    calls: PatientCalls,
) -> None:
    if artifact.copied and not (folder / spool.ARTIFACTS / artifact.source).exists():
        raise PermanentTrackingError(
            "its copy in the spool was removed when it was refused: log it again",
            kind=ErrorKind.BAD_ARTIFACT,
        )
    file = artifact_file(folder, artifact)
    calls.insist(partial(tracking.log_artifact, run_id, file, artifact.artifact_path))
