"""
What to do next for one run: events in, instructions out, no clock, no file, no network.

`RunPlan` is told what was read and how each call ended; it answers with the next instruction. The
performer (`delivery`) has no policy. The same states serve metrics, params and tags; artifacts
have a way of their own (`uploader`):

    read -> hold until a batch is full or old enough -> send -> commit what was read -> read

A batch that the store refuses for good is halved until the bad item stands alone; that one goes to
the dead letters, the others are delivered. What it refuses because of the run (somebody deleted
it) is set aside whole.

A batch that runs into a time-out, a 502, a 504 or a 500 again and again is halved too: it may be
too large. An item that stands alone and meets 500 may be the reason, or the server is ill; the
others tell. It and single readings of the others are tried in the order of a thrown coin, and where
it was refused and another one taken `TRIALS` times each, without one exception, it is a dead
letter. A server that fails by chance, or each second time, brings that about with a probability of
4 ** -TRIALS at most.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeGuard

from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.records import Ledger, Reading
from allele_mlflow.sidecar import retry
from allele_mlflow.tracking import limits

ItemKind = Literal["metric", "param", "tag"]
#: Order of sending: what describes a run before its numbers.
SEND_ORDER: tuple[ItemKind, ...] = ("param", "tag", "metric")


#: In place of a stream: a reading that stands for others, and is in no ledger.
STAND_IN = ""
#: So much of the flush interval a full batch waits for others, where the store takes several in one
#: transaction: a transaction costs as much as some hundred readings in it.
GATHER_RATIO = 0.25
#: How long a plan that only holds rests at a time.
HOLD_S = 0.1
#: Failures of one call in a row after which it may be its size.
TRIES_BEFORE_CUT = 3
#: Refusals of one item, and acceptances of others, after which it is the item.
TRIALS = 8


class Item(NamedTuple):
    """
    One record on its way. `stream_id` says whose ledger it is in, or is `STAND_IN`.
    """

    stream_id: str
    kind: ItemKind
    value: Reading | tuple[str, str]


def is_pair(value: object) -> TypeGuard[tuple[str, str]]:
    """
    Whether an item's value is that of a param or tag.
    """
    return type(value) is tuple  # a Reading is a tuple too, but of a class of its own


@dataclass(frozen=True)
class Read:
    """
    Read about `limit` more readings, and the events beside them, and offer them.
    """

    limit: int


@dataclass(frozen=True)
class Send:
    """
    Make one call with these items, all of one kind, and report `acknowledged` or `failed`.
    """

    kind: ItemKind
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Commit:
    """
    Everything that was read is dealt with: store the cursors with these outcomes, by stream.
    """

    outcomes: dict[str, Ledger]


@dataclass(frozen=True)
class SetAside:
    """
    Put an item into the dead letters with the store's words.
    """

    item: Item
    reason: str
    words: str


@dataclass(frozen=True)
class Wait:
    """
    Do nothing for so many seconds, or until there is news.
    """

    seconds: float
    #: The store's words where it is the store that we wait for.
    error: str | None = None


Instruction = Read | Send | Commit | SetAside | Wait


class RunPlan:
    """
    The delivery of one run as a state machine. Not thread-safe; never mutate it from outside.
    """

    def __init__(
        self, *, batch_size: int, flush_interval_s: float, chance: random.Random | None = None
    ) -> None:
        self.batch_size = min(batch_size, limits.METRICS_PER_CALL)
        self.flush_interval_s = flush_interval_s
        #: Readings that the store takes in one call where these are more than a batch.
        self.readings_per_send = 0
        #: Deliver at once, whatever the age: a flush, the run's end, a drain.
        self.is_urgent = False
        #: Only hold, until it becomes urgent (quiet delivery, or no store to deliver to).
        self.is_quiet = False
        self._chance = chance or random.SystemRandom()
        #: Read and not yet sent, by kind.
        self._held: dict[ItemKind, list[Item]] = {kind: [] for kind in SEND_ORDER}
        self._oldest_s: float | None = None
        #: Being sent: the parts of the present round, the first one in flight.
        self._queue: deque[Send] = deque()
        self._asides: deque[SetAside] = deque()
        self._outcomes: dict[str, Ledger] = {}
        self._attempt = 0
        self._retry_at_s = 0.0
        self._is_store_asking = False
        self._error: str | None = None
        #: Stands alone at the head of the queue, or behind a reading that it is compared with.
        self._suspect: Send | None = None
        self._refused = self._taken = 0

    # --- events ---------------------------------------------------------------------------------

    def offer(self, items: Iterable[Item], now_s: float) -> None:
        """
        These were read (and are not committed).
        """
        for item in items:
            self._held[item.kind].append(item)
            if self._oldest_s is None:
                self._oldest_s = now_s

    def settle(self, stream_id: str, outcome: Ledger) -> None:
        """
        These records of a stream are dealt with without a call; they wait for the next commit.
        """
        self._outcomes.setdefault(stream_id, Ledger()).add(outcome)

    def acknowledged(self) -> None:
        """
        The store took the batch in flight.
        """
        send = self._queue.popleft()
        for item in send.items:
            self._count(item)
        self._attempt = 0
        self._error = None
        if send is self._suspect:
            self._suspect = None
        elif self._suspect is not None:
            self._taken += 1
            self._throw_coin()

    def failed(self, error: TrackingError, now_s: float, *, was_sent: bool = True) -> None:
        """
        The store did not take the batch in flight; not `was_sent`: there is no run to send it to.
        """
        self._error = str(error)
        if isinstance(error, PermanentTrackingError) and error.kind is not ErrorKind.NOT_FOUND:
            self._suspect = None
            self._isolate(
                str(error),
                str(error.facts.get("reason", "store")),
                is_whole=bool(error.facts.get("is_of_the_run")),
            )
            return
        after_s = error.retry_after_s if isinstance(error, TransientTrackingError) else None
        self._is_store_asking = after_s is not None
        self._retry_at_s = now_s + retry.delay_s(
            self._attempt, retry_after_s=after_s, chance=self._chance
        )
        self._attempt += 1
        blames = error.facts.get("blames") if was_sent and after_s is None else None
        if self._queue[0] is not self._suspect:
            self._suspect = None  # another one failed: that tells nothing of it
            if blames is not None and self._attempt >= TRIES_BEFORE_CUT:
                self._doubt(is_item=blames == "item")
        elif blames == "item":
            self._refused += 1
            self._judge(str(error))
        else:
            self._suspect = None

    def hurry(self, now_s: float) -> None:
        """
        Somebody began to wait: try again at once, and soon after that, unless it is the store that
        asked for the pause.
        """
        if self._attempt and not self._is_store_asking:
            self._attempt = 1
            self._retry_at_s = now_s

    # --- the answer -----------------------------------------------------------------------------

    def next(self, now_s: float) -> Instruction:
        """
        What to do now.
        """
        if self._asides:
            return self._asides.popleft()
        if self._queue:
            wait_s = self._retry_at_s - now_s if self._attempt else 0.0
            if wait_s <= 0:
                return self._queue[0]
            if self._suspect is None or self._has_readings_to_compare:
                return Wait(wait_s, self._error)
            # go on, for readings to come
        if self._outcomes and not self.in_flight:
            outcomes, self._outcomes = self._outcomes, {}
            return Commit(outcomes)
        if self._is_due(now_s):
            self._fill_queue()
            if self._suspect is not None:
                self._throw_coin()
            return self._queue[0]
        if self.is_quiet and not self.is_urgent:
            return Wait(HOLD_S)
        return Read(max(1, self._send_size - len(self._held["metric"])))

    @property
    def in_flight(self) -> int:
        """
        Records read and not dealt with yet.
        """
        held = sum(len(items) for items in self._held.values())
        return held + sum(len(send.items) for send in self._queue)

    @property
    def is_settled(self) -> bool:
        """
        Whether everything that was read is dealt with, and committed.
        """
        return not (self.in_flight or self._outcomes or self._asides)

    def uncommitted(self, *, leaving_out: Collection[str] = ()) -> Ledger:
        """
        What was read and is not committed: in flight (as pending) and dealt with, of all other
        streams.
        """
        ledger = Ledger()
        waiting = [item for items in self._held.values() for item in items]
        waiting += [item for send in self._queue for item in send.items]
        leaving_out = {*leaving_out, STAND_IN}
        ledger.pending = sum(item.stream_id not in leaving_out for item in waiting)
        for stream_id, outcome in self._outcomes.items():
            if stream_id not in leaving_out:
                ledger.add(outcome)
        return ledger

    @property
    def flush_in_s(self) -> float:
        """
        Longest sleep that still flushes in time.
        """
        return self.flush_interval_s * GATHER_RATIO

    @property
    def error(self) -> str | None:
        """
        The store's last words, None when the last call went well.
        """
        return self._error

    @property
    def _has_readings_to_compare(self) -> bool:
        # readings alone: of params and tags it matters which one comes first
        return self._queue[-1] is not self._suspect and self._queue[-1].kind == "metric"

    @property
    def _send_size(self) -> int:
        return max(self.batch_size, self.readings_per_send)

    def _is_due(self, now_s: float) -> bool:
        if self._oldest_s is None or (self.is_quiet and not self.is_urgent):
            return False
        held = len(self._held["metric"])
        if self.is_urgent or held >= self._send_size:
            return True
        is_full = held >= self.batch_size
        wait_s = self.flush_interval_s * (GATHER_RATIO if is_full else 1.0)
        return now_s - self._oldest_s >= wait_s

    def _fill_queue(self) -> None:
        for kind in SEND_ORDER:
            held, self._held[kind] = self._held[kind], []
            if kind == "metric":
                size = self._send_size
                parts = [held[start : start + size] for start in range(0, len(held), size)]
            else:
                parts = _by_key(kind, held)
            self._queue.extend(Send(kind, tuple(part)) for part in parts)
        self._oldest_s = None

    def _isolate(self, words: str, reason: str, *, is_whole: bool) -> None:
        send = self._queue.popleft()
        if is_whole or len(send.items) == 1:
            for item in send.items:
                self._count(item, rejected=reason)
                self._asides.append(SetAside(item, reason, words))
        else:
            self._queue.appendleft(send)
            self._halve()
        self._attempt = 0

    def _halve(self) -> None:
        send = self._queue.popleft()
        middle = len(send.items) // 2
        self._queue.appendleft(Send(send.kind, send.items[middle:]))
        self._queue.appendleft(Send(send.kind, send.items[:middle]))

    def _doubt(self, *, is_item: bool) -> None:
        """
        The batch in flight fails again and again: try less of it.
        """
        if len(self._queue[0].items) > 1:
            self._halve()
        elif is_item:
            self._suspect, self._refused, self._taken = self._queue[0], 0, 0
            self._throw_coin()

    def _judge(self, words: str) -> None:
        if min(self._refused, self._taken) >= TRIALS:
            self._suspect = None
            self._isolate(words, "store", is_whole=True)
        else:
            self._throw_coin()

    def _throw_coin(self) -> None:
        """
        The suspect is tried next, or one of the readings that wait, at once; without readings the
        suspect, when its time has come.
        """
        suspect = self._suspect
        assert suspect is not None
        self._queue = deque((suspect, *(send for send in self._queue if send is not suspect)))
        if not self._has_readings_to_compare:
            return
        self._attempt = 0
        if self._chance.random() < 0.5:
            last = self._queue.pop()
            if len(last.items) > 1:
                self._queue.append(Send(last.kind, last.items[:-1]))
            self._queue.appendleft(Send(last.kind, last.items[-1:]))

    def _count(self, item: Item, *, rejected: str | None = None) -> None:
        if item.stream_id == STAND_IN:
            return
        ledger = self._outcomes.setdefault(item.stream_id, Ledger())
        if rejected is None:
            ledger.delivered[item.kind] = ledger.delivered.get(item.kind, 0) + 1
        else:
            ledger.rejected[rejected] = ledger.rejected.get(rejected, 0) + 1


def _by_key(kind: ItemKind, items: Sequence[Item]) -> list[list[Item]]:
    """
    Params or tags in the calls that they go in: each a mapping, which MLflow takes whole.

    Of a tag the last value in a call is the one that stands, and equal params are one; a param that
    changed comes in the next call, to be refused there alone.
    """
    size = limits.PARAMS_PER_CALL if kind == "param" else limits.TAGS_PER_CALL
    calls: list[list[Item]] = []
    values: dict[str, str] = {}
    for item in items:
        assert is_pair(item.value)
        key, value = item.value
        is_new = key not in values
        if (
            not calls
            or (is_new and len(values) == size)
            or not (is_new or kind == "tag" or values[key] == value)
        ):
            calls.append([])
            values = {}
        calls[-1].append(item)
        values[key] = value
    return calls
