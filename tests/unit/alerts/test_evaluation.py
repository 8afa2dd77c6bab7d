"""
Evaluating rules: readings and ticks in, alerts out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.alerts import evaluation
from allele_mlflow.alerts.evaluation import Evaluator
from allele_mlflow.alerts.findings import Episode, Finding, Raised, Resolved
from allele_mlflow.alerts.rules import AlertRule
from allele_mlflow.records import Reading

NS = 1_000_000
NAN, INF = math.nan, math.inf


def rule(**more: Any) -> AlertRule:
    fields: dict[str, Any] = {"name": "r", "metric": "m", "cooldown_s": 0.0}
    if not {"condition", "stalled_s"} & more.keys():
        fields |= {"condition": "gt", "threshold": 5.0}
    return AlertRule(**(fields | more))


def at_seconds(values: Sequence[float], *, key: str = "m", start: int = 0) -> list[Reading]:
    """
    A reading each second, with its second as its step.
    """
    return [Reading(key, v, (start + s) * 1000, start + s) for s, v in enumerate(values)]


def evaluator(*rules: AlertRule, **more: Any) -> Evaluator:
    return Evaluator(rules, **({"started_ns": 0} | more))


def outline(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    """
    What happened, and at which second.
    """
    told = []
    for one in findings:
        if isinstance(one, Raised):
            told.append(("raised", one.alert.timestamp_ns // (1000 * NS)))
        else:
            told.append(("resolved", one.timestamp_ns // (1000 * NS)))
    return told


def run(given: AlertRule, values: Sequence[float]) -> list[tuple[str, int]]:
    return outline(evaluator(given).take("s", at_seconds(values)))


@pytest.mark.parametrize(
    ("condition", "bad", "good"),
    [
        ("gt", 6.0, 5.0),
        ("gte", 5.0, 4.9),
        ("lt", 4.0, 5.0),
        ("lte", 5.0, 5.1),
        ("eq", 5.0, 5.1),
        ("ne", 4.0, 5.0),
    ],
)
def test_comparison(condition: Any, bad: float, good: float) -> None:
    """
    Each condition holds for what it names and not at its edge; the alert is over when it does not.
    """
    found = run(rule(condition=condition, threshold=5.0), [good, bad, bad, good, bad])
    assert found == [("raised", 1), ("resolved", 3), ("raised", 4)]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_reading_that_is_not_finite(value: float) -> None:
    """
    `nan` finds NaN and both infinities, and the alert says which it was.
    """
    found = evaluator(rule(condition="nan")).take("s", at_seconds([1.0, value, 2.0]))
    assert outline(found) == [("raised", 1), ("resolved", 2)]
    assert isinstance(found[0], Raised)
    assert (found[0].alert.value, found[0].alert.non_finite) == (None, str(value))


def test_nan_decides_nothing_else() -> None:
    """
    A NaN neither raises an alert of a comparison nor ends it; an infinity is a number.
    """
    assert run(rule(), [NAN, 6.0, NAN, NAN, 1.0]) == [("raised", 1), ("resolved", 4)]
    assert run(rule(), [INF, -INF]) == [("raised", 0), ("resolved", 1)]


@pytest.mark.parametrize(
    ("aggregate", "values", "raised"),
    [
        ("mean", [0, 0, 20, 0, 0, 0], 2),
        ("max", [0, 6, 0, 0, 0, 0], 1),
        ("min", [9, 9, 1, 9, 9, 9, 9], 0),
        ("last", [0, 0, 6, 0], 2),
        ("count", [0, 0, 0, 0, 0, 0, 0], None),
    ],
)
def test_aggregate_over_a_window(aggregate: Any, values: list[float], raised: int | None) -> None:
    """
    The mean, least, greatest, last or number of a window's readings is what is compared.
    """
    found = run(rule(window_s=3.0, aggregate=aggregate), [float(v) for v in values])
    assert [second for what, second in found if what == "raised"][:1] == (
        [] if raised is None else [raised]
    )


def test_window_forgets() -> None:
    """
    What is older than the window does not count: the mean falls when the peak has left it.
    """
    found = run(rule(window_s=3.0), [0.0, 100.0, 0.0, 0.0, 0.0, 0.0])
    assert found == [("raised", 1), ("resolved", 5)]


def test_too_few_readings_want_a_whole_window() -> None:
    """
    Fewer readings than wanted are told of once the window has passed, and not at its begin.
    """
    slow = rule(condition="lt", threshold=3.0, window_s=10.0, aggregate="count")
    times = [*range(12), 20, 30, 40]
    readings = [Reading("m", 1.0, second * 1000, second) for second in times]
    assert outline(evaluator(slow).take("s", readings)) == [("raised", 30)]


def test_minimum_samples() -> None:
    """
    With fewer readings than wanted nothing is said, in a window and without one.
    """
    assert run(rule(minimum_samples=3), [9.0, 9.0, 9.0, 9.0]) == [("raised", 2)]
    assert run(rule(minimum_samples=3, window_s=10.0), [9.0, 9.0, 9.0]) == [("raised", 2)]
    assert run(rule(minimum_samples=3, window_s=1.0), [9.0] * 9) == []


@pytest.mark.parametrize(
    ("fields", "values", "raised"),
    [
        ({"rate_per_s": 2.0}, [0, 2, 4, 7], [3]),
        ({"rate_per_step": 2.0}, [0, 2, 4, 7], [3]),
        ({"rate_per_s": 2.0, "window_s": 2.0}, [0, 0, 9, 9, 9, 9], [2]),
        ({"rate_per_s": -1.0, "condition": "lt"}, [9, 9, 5, 5], [2]),
        ({"rate_per_s": 2.0}, [0, NAN, 9], [2]),
    ],
)
def test_rate_of_change(fields: Any, values: list[float], raised: list[int]) -> None:
    """
    A rate is the change from one reading to the next, or over the window, in a second or a step.
    """
    found = run(rule(**({"condition": "gt"} | fields)), [float(v) for v in values])
    assert [second for what, second in found if what == "raised"] == raised


def test_no_time_between_readings_is_no_rate() -> None:
    """
    Two readings of one millisecond or one step have no rate, however much they differ.
    """
    readings = [Reading("m", 0.0, 5, 3), Reading("m", 9.0, 5, 3)]
    for limit in ("rate_per_s", "rate_per_step"):
        assert evaluator(rule(condition="gt", **{limit: 1.0})).take("s", readings) == []


def test_cooldown() -> None:
    """
    After an alert the next one waits for the cooldown, and comes then if the rule still holds.
    """
    values = [9.0, 1.0, 9.0, 1.0, 9.0, 9.0, 9.0]
    assert run(rule(cooldown_s=5.0), values) == [("raised", 0), ("resolved", 1), ("raised", 5)]


def test_clock_that_is_set_back_silences_nobody() -> None:
    """
    An hour back: the window begins anew, and the cooldown lasts once more, not an hour.
    """
    before = at_seconds([9.0, 1.0], start=3600)
    after = at_seconds([9.0] * 8, start=0)
    found = evaluator(rule(cooldown_s=5.0, window_s=2.0, aggregate="last")).take(
        "s", [*before, *after]
    )
    assert outline(found) == [("raised", 3600), ("resolved", 3601), ("raised", 5)]


def test_each_key_and_process_is_watched_for_itself() -> None:
    """
    A glob's keys, and one key of two processes, have alerts of their own, with ids of their own.
    """
    one = evaluator(rule(metric="m/*"))
    found = one.take("s", [Reading("m/a", 9.0, 0, 0), Reading("m/b", 9.0, 0, 0)])
    found += one.take("t", [Reading("m/a", 9.0, 0, 0), Reading("n", 9.0, 0, 0)])
    raised = [f for f in found if isinstance(f, Raised)]
    assert [(f.alert.metric, f.stream_id) for f in raised] == [
        ("m/a", "s"),
        ("m/b", "s"),
        ("m/a", "t"),
    ]
    assert len({f.alert.alert_id for f in raised}) == 3


@given(
    st.lists(st.sampled_from([1.0, 9.0, NAN, INF]), max_size=60),
    st.lists(st.integers(1, 59), max_size=4),
    st.sampled_from(
        [
            rule(),
            rule(condition="nan", window_s=4.0),
            rule(cooldown_s=7.0, window_s=5.0),
            rule(condition="gt", rate_per_s=3.0),
        ]
    ),
)
def test_cuts_change_nothing(values: list[float], cuts: list[int], given_rule: AlertRule) -> None:
    """
    However the readings are cut into pieces, the same alerts come with the same ids; each is
    resolved at most once, and after it was raised.
    """
    readings = at_seconds(values)
    whole = evaluator(given_rule).take("s", readings)
    pieces = evaluator(given_rule)
    places = sorted({0, *(cut for cut in cuts if cut < len(readings)), len(readings)})
    found = [
        finding
        for begin, end in itertools.pairwise(places)
        for finding in pieces.take("s", readings[begin:end])
    ]
    assert found == whole
    open_id = None
    for finding in whole:
        if isinstance(finding, Raised):
            assert open_id is None
            open_id = finding.alert.alert_id
        else:
            assert finding.alert_id == open_id
            open_id = None


@given(
    st.lists(st.sampled_from([1.0, 9.0]), min_size=1, max_size=40),
    st.integers(0, 39),
    st.integers(0, 39),
    st.booleans(),
)
def test_reading_again_after_a_kill(
    values: list[float], cursor: int, killed: int, is_burst: bool
) -> None:
    """
    An evaluation that is killed after some reading and begun again at the cursor raises each alert
    once, under the id that it would have had anyway; also where all readings are of one moment.
    """
    killed = min(killed, len(values) - 1)
    cursor = min(cursor, killed)
    readings = at_seconds(values)
    if is_burst:
        readings = [one._replace(timestamp_ms=5) for one in readings]
    wanted = [f for f in evaluator(rule()).take("s", readings) if isinstance(f, Raised)]
    first = evaluator(rule())
    found = first.take("s", readings[:cursor])
    found += first.take("s", readings[cursor : killed + 1], before=cursor)
    second = evaluator(rule(), before=episodes_of(found), committed={"s": cursor}, now_ns=10**18)
    found += second.take("s", readings[cursor:], before=cursor)
    raised = [f for f in found if isinstance(f, Raised)]
    assert [f.alert.alert_id for f in raised] == [f.alert.alert_id for f in wanted]


def test_reading_all_again_where_the_cursor_was_lost() -> None:
    """
    Without the cursor everything is read again: what was raised before stays as it was.
    """
    readings = at_seconds([9.0, 1.0, 9.0, 1.0, 9.0])
    first = evaluator(rule())
    found = first.take("s", readings[:2]) + first.take("s", readings[2:4], before=2)
    second = evaluator(rule(), before=episodes_of(found), now_ns=10**18)
    assert outline(second.take("s", readings)) == [("raised", 4)]


def episodes_of(findings: Iterable[Finding]) -> list[Episode]:
    """
    What the files would say of the last alert.
    """
    last: Episode | None = None
    for one in findings:
        if isinstance(one, Raised):
            time_ns = one.alert.timestamp_ns
            last = Episode("r", "m", "s", one.alert.alert_id, time_ns, time_ns, True, one.mark)
        else:
            assert last is not None
            last = last._replace(changed_ns=one.timestamp_ns, is_active=False, mark=one.mark)
    return [] if last is None else [last]


def test_more_keys_than_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Memory is bounded: of too many keys the first are watched, and that there are more is told.
    """
    monkeypatch.setattr(evaluation, "MAX_WATCHED", 2)
    one = evaluator(rule(metric="*"))
    found = one.take("s", [Reading(f"k{n}", 9.0, 0, 0) for n in range(4)])
    assert (len(found), one.is_short) == (2, True)


# --- stalls -------------------------------------------------------------------------------------


def tick(one: Evaluator, second: float, *, newest: float = 0.0) -> list[tuple[str, int]]:
    now_ns = int(second * 1000) * NS
    return outline(one.tick(now_ns, read_ns=now_ns, newest_ns=int(newest * 1000) * NS))


def test_stall_is_seen_while_it_lasts() -> None:
    """
    No reading of a key for so long: an alert, at the moment when it was due; the next reading ends
    it.
    """
    one = evaluator(rule(stalled_s=10.0))
    assert one.take_signs("s", at_seconds([1.0, 1.0])) == []
    assert tick(one, 10.9) == []
    assert tick(one, 11.5) == [("raised", 11)]
    assert tick(one, 60.0) == []
    assert outline(one.take_signs("s", [Reading("other", 1.0, 61_000, 0)])) == []
    assert outline(one.take_signs("s", [Reading("m", 1.0, 62_000, 0)])) == [("resolved", 62)]
    assert tick(one, 90.0) == [("raised", 72)]


def test_silence_from_the_start_is_a_stall() -> None:
    """
    A key of which nothing ever came is missed from the start of the run on.
    """
    one = evaluator(rule(stalled_s=10.0), started_ns=100_000 * NS)
    assert tick(one, 109.0) == []
    assert tick(one, 110.0) == [("raised", 110)]


def test_any_sign_of_life() -> None:
    """
    With "*" any reading, event or phase of the program is a sign; what the sidecar samples is none.
    """
    one = evaluator(rule(metric="*", stalled_s=10.0))
    assert one.wants_newest
    one.take_signs("s", [Reading("a", 1.0, 1000, 0)])
    one.take_signs("sampler", [Reading("system/process_fds", 1.0, 9000, 0)], is_resource=True)
    one.take_signs("s", [], others_ms=[5000])
    assert tick(one, 14.9) == []
    assert tick(one, 15.0, newest=5.0) == [("raised", 15)]
    assert tick(one, 16.0, newest=15.5) == [("resolved", 15)]


def test_what_waits_to_be_read_is_no_stall() -> None:
    """
    While the store is down nothing is read: rules on a key wait, and signs of life are still seen.
    """
    key = evaluator(rule(stalled_s=10.0))
    assert key.tick(60_000 * NS, read_ns=5_000 * NS) == []
    life = evaluator(rule(metric="*", stalled_s=10.0))
    assert life.tick(60_000 * NS, read_ns=5_000 * NS, newest_ns=55_000 * NS) == []
    found = life.tick(70_000 * NS, read_ns=5_000 * NS, newest_ns=55_000 * NS)
    assert outline(found) == [("raised", 65)]
    assert outline(life.take_signs("s", [Reading("a", 1.0, 6_000, 0)])) == []


def test_stall_that_nobody_saw_is_told_by_the_next_reading() -> None:
    """
    A run that is read later (offline, a backlog) has the same alert as one that was watched, under
    the same id; with several processes nothing is guessed.
    """
    late, live = evaluator(rule(stalled_s=10.0)), evaluator(rule(stalled_s=10.0))
    readings = [Reading("m", 1.0, 1000, 0), Reading("m", 1.0, 60_000, 1)]
    found = late.take_signs("s", readings)
    assert outline(found) == [("raised", 11), ("resolved", 60)]
    live.take_signs("s", readings[:1])
    (seen,) = live.tick(30_000 * NS, read_ns=30_000 * NS)
    assert isinstance(seen, Raised)
    assert isinstance(found[0], Raised)
    assert seen.alert.alert_id == found[0].alert.alert_id
    several = evaluator(rule(stalled_s=10.0))
    several.take_signs("t", readings[:1])
    assert several.take_signs("s", readings) == []


def test_stall_after_the_clock_was_set_back() -> None:
    """
    An hour back: a stall is seen after its usual time, and not an hour later.
    """
    one = evaluator(rule(stalled_s=10.0))
    one.take_signs("s", at_seconds([1.0], start=3600))
    assert tick(one, 5.0) == []
    assert tick(one, 16.0) == [("raised", 15)]


def test_stall_again_within_the_cooldown() -> None:
    """
    A second stall within the cooldown is told when that is over, if it still lasts.
    """
    one = evaluator(rule(stalled_s=10.0, cooldown_s=60.0))
    one.take_signs("s", at_seconds([1.0]))
    assert tick(one, 10.0) == [("raised", 10)]
    one.take_signs("s", [Reading("m", 1.0, 12_000, 0)])
    assert tick(one, 30.0) == []
    assert tick(one, 70.0) == [("raised", 22)]


def test_no_rules_is_no_work() -> None:
    """
    Without rules nothing is watched, and no tick is wanted.
    """
    one = evaluator()
    assert (one.wants_readings, one.wants_signs, one.wants_newest) == (False, False, False)
    assert (evaluator(rule()).wants_readings, evaluator(rule()).wants_signs) == (True, False)


def test_alert_says_what_it_found() -> None:
    """
    The words name the metric, what was compared, over how long, and with what.
    """
    cases = [
        (rule(), "m is 9, above 5"),
        (rule(window_s=3.0), "mean of m over 3 s is 9, above 5"),
        (rule(window_s=3.0, aggregate="max"), "max of m over 3 s is 9, above 5"),
        (rule(condition="gt", rate_per_s=1.0), "m changes by 8 a second, above 1"),
        (rule(condition="gt", rate_per_step=1.0), "m changes by 8 a step, above 1"),
    ]
    for given_rule, wanted in cases:
        values = [1.0, 9.0] if given_rule.threshold is None else [9.0]
        (found,) = evaluator(given_rule).take("s", at_seconds(values))
        assert isinstance(found, Raised)
        assert found.alert.message == wanted
    life = evaluator(rule(metric="*", stalled_s=30.0)).tick(10**18, read_ns=10**18)
    assert isinstance(life[0], Raised)
    assert life[0].alert.message == "no sign of life for 30 s"
    assert not any(isinstance(one, Resolved) for one in life)
