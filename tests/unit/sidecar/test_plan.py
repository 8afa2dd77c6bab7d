"""
The delivery plan: events in, instructions out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import example, given

from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.records import Ledger, Reading
from allele_mlflow.sidecar.plan import (
    HOLD_S,
    Commit,
    Item,
    Read,
    RunPlan,
    Send,
    SetAside,
    Wait,
    is_pair,
)
from allele_mlflow.tracking import limits

REFUSED = PermanentTrackingError("no such thing", kind=ErrorKind.REFUSED)
ILL = TransientTrackingError("500", kind=ErrorKind.STORE_UNREACHABLE, blames="item")
SLOW = TransientTrackingError("timed out", kind=ErrorKind.STORE_UNREACHABLE, blames="size")
DOWN = TransientTrackingError("connection refused", kind=ErrorKind.STORE_UNREACHABLE)


def make_plan(batch_size: int = 10, flush_interval_s: float = 1.0) -> RunPlan:
    """
    A plan with a known sequence of jitter.
    """
    return RunPlan(
        batch_size=batch_size, flush_interval_s=flush_interval_s, chance=random.Random(1)
    )


def readings(number: int, stream: str = "s") -> list[Item]:
    """
    Items of the metric lane.
    """
    return [Item(stream, "metric", Reading("k", float(i), 1, i)) for i in range(number)]


def pairs(kind: str, *keys: str) -> list[Item]:
    """
    Params or tags.
    """
    assert kind in ("param", "tag")
    return [Item("s", "param" if kind == "param" else "tag", (key, "v")) for key in keys]


def drive(plan: RunPlan, bad: set[object] = frozenset(), now_s: float = 100.0) -> list[object]:  # type: ignore[assignment]
    """
    Perform the plan until it wants to read, a store refusing what is in `bad`; the instructions.
    """
    done: list[object] = []
    while not isinstance(instruction := plan.next(now_s), Read):
        done.append(instruction)
        if isinstance(instruction, Send):
            values = {
                item.value.step if isinstance(item.value, Reading) else item.value
                for item in instruction.items
            }
            if values & bad:
                plan.failed(REFUSED, now_s)
            else:
                plan.acknowledged()
    return done


def test_part_filled_batch_waits_for_more() -> None:
    """A batch that is neither full nor old asks for the rest of its size."""
    plan = make_plan()
    plan.offer(readings(3), 100.0)
    assert plan.next(100.5) == Read(7)


def test_full_batch_goes_out_at_once() -> None:
    """As many readings as a batch holds are sent without waiting for the interval."""
    plan = make_plan()
    plan.offer(readings(10), 100.0)
    assert plan.next(100.0) == Send("metric", tuple(readings(10)))


def test_store_that_takes_more_gets_several_batches_in_a_call() -> None:
    """Batches that wait share a call; one that is full waits a quarter of the interval for more."""
    plan = make_plan(batch_size=10)
    plan.readings_per_send = 40
    assert plan.next(0.0) == Read(40)
    plan.offer(readings(55), 0.0)
    sends = [i for i in drive(plan, now_s=0.0) if isinstance(i, Send)]
    assert [len(send.items) for send in sends] == [40, 15]
    plan.offer(readings(10), 10.0)
    assert plan.next(10.2) == Read(30)
    assert isinstance(plan.next(10.25), Send)
    plan.is_urgent = True
    assert isinstance(plan.next(10.0), Send)


def test_old_reading_goes_out_in_a_small_batch() -> None:
    """A reading older than the flush interval is sent, however few there are."""
    plan = make_plan()
    plan.offer(readings(1), 100.0)
    assert plan.next(101.0) == Send("metric", tuple(readings(1)))


def test_urgent_readings_do_not_wait() -> None:
    """At a flush or the run's end nothing waits for the interval."""
    plan = make_plan()
    plan.is_urgent = True
    plan.offer(readings(1), 100.0)
    assert isinstance(plan.next(100.0), Send)


def test_quiet_plan_only_holds() -> None:
    """Quiet delivery reads and sends nothing, until it becomes urgent."""
    plan = make_plan()
    plan.is_quiet = True
    plan.offer(pairs("param", "a"), 100.0)
    assert plan.next(500.0) == Wait(HOLD_S)
    plan.is_urgent = True
    assert isinstance(plan.next(500.0), Send)


def test_commit_follows_the_last_acknowledgement() -> None:
    """The cursor moves only when everything that was read is dealt with."""
    plan = make_plan(batch_size=2)
    plan.offer(readings(3), 0.0)
    done = drive(plan)
    assert [type(i) for i in done] == [Send, Send, Commit]
    assert done[-1] == Commit({"s": Ledger(delivered={"metric": 3})})


def test_params_go_before_tags_and_metrics() -> None:
    """What describes a run is sent before its numbers."""
    plan = make_plan()
    items = [
        *readings(1),
        *pairs("tag", "t"),
        *pairs("param", "p"),
    ]
    plan.offer(items, 0.0)
    kinds = [i.kind for i in drive(plan) if isinstance(i, Send)]
    assert kinds == ["param", "tag", "metric"]


def sent_pairs(plan: RunPlan) -> list[dict[str, str]]:
    """
    What each call of a plan would hand to MLflow.
    """
    sends = [step for step in drive(plan) if isinstance(step, Send)]
    return [dict(item.value for item in send.items if is_pair(item.value)) for send in sends]


def test_changed_param_is_sent_in_a_call_of_its_own() -> None:
    """MLflow refuses a changed param, so it comes alone; an equal one costs no call."""
    plan = make_plan()
    plan.offer([Item("s", "param", pair) for pair in (("a", "1"), ("b", "1"), ("a", "1"))], 0.0)
    plan.offer([Item("s", "param", ("a", "2"))], 0.0)
    assert sent_pairs(plan) == [{"a": "1", "b": "1"}, {"a": "2"}]


def test_thousand_values_of_a_tag_are_one_call() -> None:
    """Only the last value of a tag stands, and the others count as delivered with it."""
    plan = make_plan()
    plan.offer([Item("s", "tag", ("progress", str(number))) for number in range(1000)], 0.0)
    plan.next(9.0)
    plan.acknowledged()
    assert plan.next(9.0) == Commit({"s": Ledger(delivered={"tag": 1000})})
    plan.offer([Item("s", "tag", ("progress", str(number))) for number in range(1000)], 0.0)
    assert sent_pairs(plan) == [{"progress": "999"}]


def test_failed_call_is_repeated_after_a_wait() -> None:
    """A transient error leaves the batch in flight, says why, and waits."""
    plan = make_plan()
    plan.offer(readings(10), 100.0)
    first = plan.next(100.0)
    plan.failed(DOWN, 100.0)
    waiting = plan.next(100.0)
    assert isinstance(waiting, Wait)
    assert waiting.error == "connection refused"
    assert plan.next(100.0 + waiting.seconds) == first


def test_servers_wish_is_honoured() -> None:
    """After Retry-After: 20 nothing is sent for 20 seconds, whoever waits."""
    plan = make_plan()
    plan.offer(readings(10), 0.0)
    plan.next(0.0)
    plan.failed(TransientTrackingError("busy", kind=ErrorKind.STORE_BUSY, retry_after_s=20), 0.0)
    plan.hurry(1.0)
    assert isinstance(plan.next(19.9), Wait)


def test_who_waits_does_not_wait_out_a_long_pause() -> None:
    """After many failures the pauses are long; at a flush or the end it is tried at once, and then
    after short ones.
    """
    plan = make_plan()
    plan.offer(readings(10), 0.0)
    for _ in range(12):
        plan.next(0.0)
        plan.failed(DOWN, 0.0)
    waiting = plan.next(0.0)
    assert isinstance(waiting, Wait)
    assert waiting.seconds > 2.0
    plan.hurry(0.0)
    assert isinstance(plan.next(0.0), Send)
    plan.failed(DOWN, 0.0)
    again = plan.next(0.0)
    assert isinstance(again, Wait)
    assert again.seconds <= 1.0


def test_what_is_refused_for_the_runs_sake_is_not_tried_singly() -> None:
    """A deleted run takes no record, and a thousand of them cost one call."""
    plan = make_plan(batch_size=1000)
    plan.offer(readings(1000), 0.0)
    plan.next(9.0)
    plan.failed(
        PermanentTrackingError(
            "must be active", kind=ErrorKind.REFUSED, reason="run_deleted", is_of_the_run=True
        ),
        9.0,
    )
    done = drive(plan)
    assert [type(i) for i in done] == [SetAside] * 1000 + [Commit]
    assert done[-1] == Commit({"s": Ledger(rejected={"run_deleted": 1000})})
    assert plan.is_settled


def test_missing_run_is_no_bad_record() -> None:
    """A run that is not found parks its records; it does not put them into the dead letters."""
    plan = make_plan()
    plan.offer(readings(10), 0.0)
    plan.next(0.0)
    plan.failed(PermanentTrackingError("gone", kind=ErrorKind.NOT_FOUND), 0.0)
    assert plan.in_flight == 10
    assert not isinstance(plan.next(1e9), SetAside)


def test_bad_item_is_bisected_out_of_its_batch() -> None:
    """One refused reading of a thousand is set aside with the store's words; the others arrive."""
    plan = make_plan(batch_size=1000)
    plan.offer(readings(1000), 0.0)
    done = drive(plan, bad={617})
    asides = [i for i in done if isinstance(i, SetAside)]
    assert [(a.item.value.step, a.words) for a in asides if isinstance(a.item.value, Reading)] == [
        (617, "no such thing")
    ]
    assert done[-1] == Commit({"s": Ledger(delivered={"metric": 999}, rejected={"store": 1})})
    assert len(done) < 40, "bisecting, not trying one by one"


def keep_trying(plan: RunPlan, answer: Callable[[Send], TrackingError | None]) -> list[object]:
    """
    Perform the plan through its pauses until it wants to read and holds nothing; the instructions.
    """
    done: list[object] = []
    now_s = 100.0
    for _ in range(5000):
        instruction = plan.next(now_s)
        if isinstance(instruction, Read):
            if plan.is_settled:
                return done
            now_s += 1.0
            continue
        done.append(instruction)
        if isinstance(instruction, Wait):
            now_s += instruction.seconds
        elif isinstance(instruction, Send):
            error = answer(instruction)
            if error is None:
                plan.acknowledged()
            else:
                plan.failed(error, now_s)
    return done


def steps_of(send: Send) -> set[int]:
    """
    The steps of a call's readings.
    """
    return {item.value.step for item in send.items if isinstance(item.value, Reading)}


def test_batch_too_large_for_the_time_is_cut_up() -> None:
    """A server that manages 100 readings before the time-out gets all thousand in smaller calls."""
    plan = make_plan(batch_size=1000)
    plan.offer(readings(1000), 0.0)
    done = keep_trying(plan, lambda send: SLOW if len(send.items) > 100 else None)
    assert done[-1] == Commit({"s": Ledger(delivered={"metric": 1000})})


def test_item_that_meets_500_each_time_is_set_aside_in_the_end() -> None:
    """500 for two of a thousand readings: they are dead letters, and the others arrive."""
    plan = make_plan(batch_size=1000)
    plan.offer(readings(1000), 0.0)
    bad = {616, 617}
    done = keep_trying(plan, lambda send: ILL if steps_of(send) & bad else None)
    asides = [i for i in done if isinstance(i, SetAside)]
    steps = {a.item.value.step for a in asides if isinstance(a.item.value, Reading)}
    assert (steps, {a.words for a in asides}) == (bad, {"500"})
    assert done[-1] == Commit({"s": Ledger(delivered={"metric": 998}, rejected={"store": 2})})


def test_lone_item_that_meets_500_waits_for_others_to_compare_it_with() -> None:
    """Alone it is retried for ever, and reading goes on; with what comes later it is judged."""
    plan = make_plan()
    plan.offer(pairs("param", "bad"), 0.0)

    def answer(send: Send) -> TrackingError | None:
        return ILL if send.kind == "param" else None

    assert not any(isinstance(i, SetAside) for i in keep_trying(plan, answer))
    assert isinstance(plan.next(0.0), Read), "what comes later must be read"
    plan.offer(readings(20), 1e6)
    done = keep_trying(plan, answer)
    assert [i.item.kind for i in done if isinstance(i, SetAside)] == ["param"]
    assert plan.is_settled


def test_tags_behind_a_suspect_keep_their_order() -> None:
    """Of a tag the last value stands: none is sent before an earlier one, whatever is refused."""
    plan = make_plan()
    tags = [Item("s", "tag", ("bad", "v")), Item("s", "tag", ("t", "1"))]
    plan.offer([*tags, Item("s", "tag", ("t", "2"))], 0.0)
    sent: list[str] = []

    def answer(send: Send) -> TrackingError | None:
        pairs = [item.value for item in send.items if is_pair(item.value)]
        if any(key == "bad" for key, _ in pairs):
            return ILL
        sent.extend(value for key, value in pairs if key == "t")
        return None

    keep_trying(plan, answer)
    plan.offer(readings(30), 1e6)
    done = keep_trying(plan, answer)
    assert [i.item.value for i in done if isinstance(i, SetAside)] == [("bad", "v")]
    assert sent == ["1", "2"]


@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.9]))
@example(0, -1.0)
def test_ill_server_costs_no_record(seed: int, rate: float) -> None:
    """A server that answers 500 by chance, or each second time, gets everything in the end."""
    plan = make_plan(batch_size=50)
    plan.offer(readings(50), 0.0)
    chance, calls = random.Random(seed), itertools.count()

    def answer(_: Send) -> TrackingError | None:
        is_ill = chance.random() < rate if rate > 0 else next(calls) % 2 == 0
        return ILL if is_ill else None

    done = keep_trying(plan, answer)
    assert not any(isinstance(i, SetAside) for i in done)
    assert sum(i.outcomes["s"].delivered["metric"] for i in done if isinstance(i, Commit)) == 50


def test_reason_of_a_refusal_is_kept() -> None:
    """A refusal that names its reason is counted under it."""
    plan = make_plan()
    plan.offer(readings(1), 0.0)
    plan.next(9.0)
    error = PermanentTrackingError(
        "changed", kind=ErrorKind.BAD_ARTIFACT, reason="artifact_changed"
    )
    plan.failed(error, 9.0)
    outcome = next(i for i in drive(plan) if isinstance(i, Commit))
    assert outcome.outcomes["s"].rejected == {"artifact_changed": 1}


def test_outcomes_are_counted_for_their_streams() -> None:
    """Readings of two streams in one batch are counted in two ledgers."""
    plan = make_plan()
    plan.offer(readings(2, "a") + readings(3, "b"), 0.0)
    plan.settle("a", Ledger(delivered={"phase": 4}))
    commit = drive(plan)[-1]
    assert commit == Commit(
        {
            "a": Ledger(delivered={"phase": 4, "metric": 2}),
            "b": Ledger(delivered={"metric": 3}),
        }
    )


@given(
    metrics=st.integers(0, 3000),
    params=st.lists(st.text(min_size=1, max_size=2), max_size=300),
    tags=st.lists(st.text(min_size=1, max_size=2), max_size=300),
    batch_size=st.integers(1, 5000),
    bad=st.sets(st.integers(0, 3000), max_size=3),
)
def test_no_call_exceeds_mlflows_limits(
    metrics: int, params: list[str], tags: list[str], batch_size: int, bad: set[int]
) -> None:
    """Whatever is offered and refused: no call is larger than MLflow takes, and the ledger
    balances.
    """
    plan = make_plan(batch_size=batch_size)
    plan.offer(readings(metrics) + pairs("param", *params) + pairs("tag", *tags), 0.0)
    done = drive(plan, bad={*bad})
    most = {
        "metric": limits.METRICS_PER_CALL,
        "param": limits.PARAMS_PER_CALL,
        "tag": limits.TAGS_PER_CALL,
    }
    for send in (i for i in done if isinstance(i, Send)):
        names = [item.value[0] for item in send.items if is_pair(item.value)]
        assert 1 <= (len(set(names)) if names else len(send.items)) <= most[send.kind]
    total = Ledger()
    for commit in (i for i in done if isinstance(i, Commit)):
        for outcome in commit.outcomes.values():
            total.add(outcome)
    assert total.accepted == metrics + len(params) + len(tags)
    assert total.rejected.get("store", 0) == len({b for b in bad if b < metrics})
    assert plan.in_flight == 0
