"""
What the live view keeps of a run: which keys and readings, in what order, and what it tells of.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from allele_mlflow.queue import spool
from allele_mlflow.queue.live import (
    KEPT_KEYS,
    KEPT_READINGS,
    RECORD,
    LiveKey,
    LivePhase,
    LiveView,
    Point,
    read_live,
)
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.records import Reading
from allele_mlflow.sidecar.live_view import (
    CLOSED_PHASES,
    OPEN_PHASES,
    RATE_OVER_NS,
    LiveKeeper,
    view_of_files,
)
from tests.queue_tools import make_reader, make_run, make_spec, make_writer, read_all

S = 1_000_000_000


def readings(key: str, count: int, *, first: int = 0) -> list[Reading]:
    """
    So many readings of a key, a millisecond after each other.
    """
    return [Reading(key, float(step), step, step) for step in range(first, first + count)]


def view_of(keeper: LiveKeeper, *, at_ns: int = 0, accepted: int = 0) -> LiveView:
    """
    The keeper's view of a run without phases of its own.
    """
    return keeper.view(at_ns, accepted=accepted, open_phases=(), closed_phases=())


def keeper() -> LiveKeeper:
    """
    A keeper that has seen nothing.
    """
    return LiveKeeper("run", began_ns=0)


@pytest.mark.parametrize("count", [1, KEPT_READINGS, KEPT_READINGS + 1, 1000])
def test_last_readings_are_kept_in_order(count: int) -> None:
    """Of each key the last 120 readings are kept, in the order in which they came, and counted."""
    kept = keeper()
    for reading in readings("a", count):  # one by one or all at once is the same
        kept.take([reading], is_resource=False)
    kept.take(readings("b", count), is_resource=False)
    view = view_of(kept)
    for key in ("a", "b"):
        steps = [point.step for point in view.window(key)]
        assert steps == list(range(count))[-KEPT_READINGS:]
        assert view.last(key) == count - 1
        assert view.keys[key].count == count
    assert view.last("c") is None
    assert view.window("c") == []


def test_any_number_survives(tmp_path: Path) -> None:
    """NaN, infinities and the largest steps are as they were, in the file too."""
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7e308]
    kept = keeper()
    kept.take(
        [Reading("a", value, 1, (1 << 63) - 1 - i) for i, value in enumerate(values)],
        is_resource=False,
    )
    run = make_run(tmp_path)
    spool.write_struct(run / spool.LIVE_FILE, view_of(kept))
    view = read_live(run)
    assert view is not None
    assert [repr(point.value) for point in view.window("a")] == list(map(repr, values))
    assert view.window("a")[0].step == (1 << 63) - 1


def test_first_come_keys_are_kept() -> None:
    """Past 500 keys the later ones are left out, each counted once, and the first go on."""
    kept = keeper()
    for _ in range(2):
        kept.take([Reading(f"k{i}", 1.0, 1, 1) for i in range(KEPT_KEYS + 7)], is_resource=False)
    view = view_of(kept)
    assert list(view.keys) == [f"k{i}" for i in range(KEPT_KEYS)]
    assert view.left_out == 7
    assert {key.count for key in view.keys.values()} == {2}


def test_resources_give_way_to_keys_of_the_users() -> None:
    """Resources count among the 500 and push no key out; the last come of them go first."""
    kept = keeper()
    kept.take([Reading(f"system/{i}", 1.0, 1, 1) for i in range(10)], is_resource=True)
    kept.take(
        [Reading(f"k{i}", 1.0, 1, 1) for i in range(KEPT_KEYS - 4)],
        is_resource=False,
    )
    view = view_of(kept)
    assert [name for name, key in view.keys.items() if key.is_resource] == [
        f"system/{i}" for i in range(4)
    ]
    assert (len(view.keys), view.left_out) == (KEPT_KEYS, 6)
    kept.take([Reading(f"more{i}", 1.0, 1, 1) for i in range(10)], is_resource=False)
    kept.take([Reading("system/late", 1.0, 1, 1)], is_resource=True)
    view = view_of(kept)
    assert not any(key.is_resource for key in view.keys.values())
    assert "more3" in view.keys
    assert "more4" not in view.keys
    assert view.left_out == 10 + 6 + 1


def test_user_may_have_a_key_like_a_resource() -> None:
    """It is the stream that makes a resource, and not the name."""
    kept = keeper()
    kept.take([Reading("system/mine", 1.0, 1, 1)], is_resource=False)
    assert not view_of(kept).keys["system/mine"].is_resource


def test_view_goes_on_from_a_file() -> None:
    """Who comes after a killed sidecar goes on with its readings; what is read again is one."""
    first = keeper()
    first.take(readings("a", 10), is_resource=False)
    first.take([Reading("system/cpu", 1.0, 1, 1)], is_resource=True)
    before = view_of(first, at_ns=5 * S, accepted=10)
    second = LiveKeeper("run", began_ns=0, before=before)
    assert not second.is_changed
    assert view_of(second, at_ns=6 * S).keys == {
        name: LiveKey(
            count=key.count,
            earlier_count=key.count,
            readings=key.readings,
            is_resource=key.is_resource,
        )
        for name, key in before.keys.items()
    }
    second.take(readings("a", 4, first=8), is_resource=False)
    view = view_of(second, at_ns=7 * S)
    assert [point.step for point in view.window("a")] == list(range(12))
    assert view.rate_per_s("a", 7 * S) == 2.0
    assert view.keys["system/cpu"].is_resource


def test_rates_are_of_the_last_seconds() -> None:
    """At first a rate is over the whole time, later over ten to twenty seconds."""
    kept = keeper()
    kept.take(readings("a", 30), is_resource=False)
    kept.mark(30, 3 * S)
    view = view_of(kept)
    assert view.rate_per_s("a", 3 * S) == 10.0
    assert view.records_per_s(33, 3 * S) == 11.0
    for second in range(4, 100):
        kept.mark(30, second * S)
    kept.take(readings("a", 50), is_resource=False)
    view = view_of(kept)
    assert view.earlier_ns >= 100 * S - 2 * RATE_OVER_NS
    passed_s = (100 * S - view.earlier_ns) / S
    assert view.rate_per_s("a", 100 * S) == 50 / passed_s
    assert view.rate_per_s("nothing", 100 * S) is None
    assert view.rate_per_s("a", view.earlier_ns) is None


def test_clock_that_was_set_back_stops_no_rate() -> None:
    """Where the wall clock goes back, counting begins anew from there."""
    kept = LiveKeeper("run", began_ns=1000 * S)
    kept.mark(0, 10 * S)
    kept.take(readings("a", 40), is_resource=False)
    kept.mark(40, 20 * S)
    assert view_of(kept).rate_per_s("a", 20 * S) == 4.0


@pytest.fixture
def waiting(tmp_path: Path) -> RunReader:
    """
    A run of which a part is read: some of 300 readings, and some of a series of 2000 values.
    """
    run = make_run(tmp_path)
    writer = make_writer(run, segment_bytes=1 << 20)
    for step in range(300):
        writer.metric("m", float(step), step)
    writer.series("s", [float(i) for i in range(2000)])
    reader = make_reader(run)
    read: set[str] = set()
    while read != {"m", "s"}:
        read |= {r.key for _, chunk in reader.read(100) for r in chunk.readings}
    return reader


def test_newest_of_what_waits_is_shown_ahead(waiting: RunReader) -> None:
    """Under lag the newest values are there, of series too, and the view says so."""
    kept = keeper()
    kept.show_ahead(waiting.newest_unread(2000))
    assert kept.is_changed
    view = view_of(kept)
    assert view.is_ahead
    assert (view.last("m"), view.last("s")) == (299.0, 1999.0)
    assert len(view.window("m")) == KEPT_READINGS
    assert view.rate_per_s("m", S) is None
    assert view.keys["m"].count == 0
    kept.show_ahead(())
    assert kept.is_changed
    assert view_of(kept).keys == {}
    assert not kept.is_ahead


def test_looking_ahead_moves_nothing_and_repeats_nothing(waiting: RunReader) -> None:
    """What was read is not among what is ahead, and all that waits is read in its turn."""
    ahead = [r.step for _, chunk in waiting.newest_unread(10_000) for r in chunk.readings]
    steps = [r.step for r in read_all(waiting).readings]
    assert sorted(ahead) == sorted(steps)
    assert waiting.newest_unread(10_000) == []


def test_readings_ahead_stand_where_their_time_is() -> None:
    """What waits in one stream may be older than what was read from another."""
    points = [Point(0, 10, 0.0), Point(1, 30, 1.0)], [Point(2, 20, 2.0), Point(1, 30, 1.0)]
    read, ahead = (b"".join(RECORD.pack(*point) for point in part) for part in points)
    key = LiveKey(count=2, readings=read, ahead=ahead)
    assert [point.timestamp_ms for point in key.window()] == [10, 20, 30]


def test_phases_ahead_are_open_or_closed(tmp_path: Path) -> None:
    """Edges that wait open and close phases in the view; each phase is there once."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    outer = writer.phase_edge("outer", None)
    inner = writer.phase_edge("inner", 3)
    writer.phase_edge("inner", 3, inner)
    writer.phase_edge("gone", 1, 999)
    kept = keeper()
    kept.show_ahead(make_reader(run).newest_unread(100))
    known = [
        LivePhase(stream_id="x", instance=1, name="known", begin_ns=1),
        LivePhase(stream_id=writer.stream_id, instance=outer, name="outer", begin_ns=1),
    ]
    view = kept.view(0, accepted=0, open_phases=known, closed_phases=())
    assert [phase.name for phase in view.open_phases] == ["known", "outer"]
    assert view.open_count == 2
    (closed,) = view.closed_phases
    assert (closed.name, closed.step, closed.complete) == ("inner", 3, True)
    assert closed.end_ns is not None
    assert view.is_ahead


def test_phases_are_bounded() -> None:
    """The phases begun last and closed last are shown, the number of the open ones is told."""
    opened = [LivePhase(stream_id="s", instance=i, name="p", begin_ns=i) for i in range(200)]
    closed = [
        LivePhase(stream_id="s", instance=1000 + i % 150, name="p", begin_ns=i, end_ns=i)
        for i in range(300)
    ]
    view = keeper().view(0, accepted=0, open_phases=opened, closed_phases=closed)
    assert [phase.instance for phase in view.open_phases] == list(range(200))[-OPEN_PHASES:]
    assert view.open_count == 200
    assert len(view.closed_phases) == CLOSED_PHASES
    assert view.closed_phases[-1].instance == 1149


def test_age_of_a_phase() -> None:
    """An open phase ages, a closed one does not, and neither has a negative age."""
    phase = LivePhase(stream_id="s", instance=1, name="p", begin_ns=2 * S)
    assert phase.age_s(5 * S) == 3.0
    assert phase.age_s(1 * S) == 0.0
    closed = LivePhase(stream_id="s", instance=1, name="p", begin_ns=2 * S, end_ns=3 * S)
    assert closed.age_s(9 * S) == 1.0


def test_view_is_found_wherever_the_run_is(tmp_path: Path) -> None:
    """`read_live` finds a run by its folder before and after it was archived; damage is None."""
    run = make_run(tmp_path)
    assert read_live(run) is None
    spool.write_struct(run / spool.LIVE_FILE, view_of(keeper()))
    assert read_live(run) is not None
    done = run.parent.parent / spool.DONE / run.name
    run.rename(done)
    assert read_live(run) == read_live(done) is not None
    data = bytearray((done / spool.LIVE_FILE).read_bytes())
    data[3] ^= 1
    (done / spool.LIVE_FILE).write_bytes(data)
    assert read_live(run) is None


def test_view_of_a_run_that_nobody_serves(tmp_path: Path) -> None:
    """From the files alone the newest values are known, beside what the last sidecar wrote."""
    run = make_run(tmp_path)
    writer = make_writer(run)
    for step in range(300):
        writer.metric("m", float(step), step)
    kept = keeper()
    kept.take([Reading("old", 7.0, 1, 1)], is_resource=False)
    spool.write_struct(run / spool.LIVE_FILE, view_of(kept))
    before = sorted(path.name for path in run.rglob("*"))
    view = view_of_files(run, make_spec(writer.stream_id))
    assert (view.last("m"), view.last("old")) == (299.0, 7.0)
    assert sorted(path.name for path in run.rglob("*")) == before
