"""
What the sidecar keeps of alerts and advice: each once, however often a line was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from allele_mlflow.alerts.findings import Episode, Mark, Resolved
from allele_mlflow.records import (
    AlertRaised,
    PhaseSpan,
    PredictionMade,
    RecommendationMade,
    RunSpec,
)
from allele_mlflow.sidecar import alert_files
from allele_mlflow.sidecar.alert_document import advice_document, alerts_document
from allele_mlflow.sidecar.alert_files import AlertFiles, NearbySample, PlacedAlert
from allele_mlflow.sidecar.alert_place import Moment, innermost, place_moments

MS = 1_000_000


def raised(alert_id: str, *, at_ms: int = 0, stream: str = "s", **more: Any) -> PlacedAlert:
    fields: dict[str, Any] = {"name": "r", "severity": "warning"} | more
    alert = AlertRaised(timestamp_ns=at_ms * MS, alert_id=alert_id, **fields)
    return PlacedAlert(alert, stream_id=stream)


def of_rule(alert_id: str, **more: Any) -> PlacedAlert:
    return raised(alert_id, **({"rule": "r", "metric": "m", "source": "rule"} | more))


def span(name: str, begin_ms: float, end_ms: float, **more: Any) -> PhaseSpan:
    fields: dict[str, Any] = {"stream_id": "s", "instance": 1, "cpu_s": None, "step": None}
    return PhaseSpan(
        name=name, begin_ns=int(begin_ms * MS), end_ns=int(end_ms * MS), **(fields | more)
    )


def spec(**more: Any) -> RunSpec:
    fields: dict[str, Any] = {"run_uid": "u", "experiment": "e", "profile": "p"}
    fields["owner_stream"] = "s"
    return RunSpec(**(fields | {"created_ns": 1, "owner_pid": 1, "host": "h"} | more))


def test_each_alert_counts_once(tmp_path: Path) -> None:
    """
    A killed sidecar repeats lines: each alert counts once, and is over once.
    """
    files = AlertFiles(tmp_path)
    for one in ("a", "b", "a"):
        files.note_raised(of_rule(one))
    for time_ms in (5, 9):
        files.note_resolved(Resolved("a", time_ms * MS))
    files.note_resolved(Resolved("unknown", 1))
    found = AlertFiles(tmp_path).alerts()
    assert [one.placed.alert.alert_id for one in found.first] == ["a", "b"]
    assert [one.status for one in found.first] == ["resolved", "active"]
    assert (found.count, found.active, found.first[0].resolved_ns) == (2, 1, 5 * MS)


def test_sender_says_what_became_of_its_alert(tmp_path: Path) -> None:
    """
    Of an alert that was told before, "resolved" and "acknowledged" are no alerts of their own.
    """
    files = AlertFiles(tmp_path)
    files.note_raised(raised("a", source_id="x"))
    files.note_raised(raised("b", source_id="y"))
    files.note_raised(raised("c", source_id="x", status="resolved", at_ms=7))
    files.note_raised(raised("d", source_id="y", status="acknowledged"))
    files.note_raised(raised("e", source_id="z", status="resolved"))
    found = files.alerts()
    assert [one.placed.alert.alert_id for one in found.first] == ["a", "b", "e"]
    assert [one.status for one in found.first] == ["resolved", "acknowledged", "resolved"]
    assert (found.count, found.active, found.first[0].resolved_ns) == (3, 1, 7 * MS)


def test_alerts_are_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of a week of alerts the first are listed, and all are counted, also those that are over.
    """
    monkeypatch.setattr(alert_files, "MAX_ALERTS", 2)
    files = AlertFiles(tmp_path)
    for number in range(5):
        files.note_raised(of_rule(str(number)))
    files.note_resolved(Resolved("4", 1))
    document = alerts_document(files, spec(), [])
    assert document is not None
    assert (len(document["alerts"]), document["left_out"]) == (2, 3)
    assert (document["count"], document["active"]) == (5, 4)


def test_episodes_are_the_last_of_each(tmp_path: Path) -> None:
    """
    An evaluation that begins again knows of each rule, key and process the last alert.
    """
    files = AlertFiles(tmp_path)
    files.note_raised(of_rule("a", at_ms=1))
    files.note_resolved(Resolved("a", 2 * MS))
    marked = msgspec.structs.replace(of_rule("b", at_ms=3), before=7, nth=2)
    files.note_raised(marked)
    files.note_raised(of_rule("c", at_ms=4, stream="t"))
    files.note_resolved(Resolved("c", 5 * MS, Mark(9, 1)))
    files.note_raised(raised("d", rule="r", metric="m"))
    assert files.episodes() == [
        Episode("r", "m", "s", "b", 3 * MS, 3 * MS, True, Mark(7, 2)),
        Episode("r", "m", "t", "c", 4 * MS, 5 * MS, False, Mark(9, 1)),
    ]


def test_nearer_sample_takes_the_place(tmp_path: Path) -> None:
    """
    The resources of an alert are those of the nearest sample, which may come after it.
    """
    files = AlertFiles(tmp_path)
    files.note_raised(of_rule("a", at_ms=10))
    files.note_nearer("a", NearbySample(11 * MS, {"system/process_fds": 3.0}))
    document = alerts_document(files, spec(), [])
    assert document is not None
    assert document["alerts"][0]["resources"] == {"system/process_fds": 3.0}


def test_document_leads_both_ways(tmp_path: Path) -> None:
    """
    From an alert to its phase, step, host and cell, and from a phase to its alerts.
    """
    files = AlertFiles(tmp_path)
    files.note_raised(of_rule("late", at_ms=90, step=None))
    files.note_raised(of_rule("in", at_ms=15, step=4))
    files.note_raised(raised("told", at_ms=50, phase="mine", step=2, correlation_id="c-9"))
    spans = [span("outer", 0, 100, step=1), span("inner", 10, 20, instance=2)]
    document = alerts_document(
        files, spec(tags={"allele.cell": "x=1"}, correlation_id="c-1"), spans
    )
    assert document is not None
    ids = [one["alert_id"] for one in document["alerts"]]
    places = [(one["phase"], one["step"]) for one in document["alerts"]]
    assert dict(zip(ids, places, strict=True)) == {
        "in": ("inner", 4),
        "told": ("mine", 2),
        "late": ("outer", 1),
    }
    assert document["phases"] == {"inner": ["in"], "mine": ["told"], "outer": ["late"]}
    assert {one["correlation_id"] for one in document["alerts"]} == {"c-1", "c-9"}
    assert {(one["host"], one["cell"]) for one in document["alerts"]} == {("h", "x=1")}


def test_no_document_without_alerts_and_rules(tmp_path: Path) -> None:
    """
    A run that never heard of alerts has no file of them; one whose rules found nothing says so.
    """
    assert alerts_document(AlertFiles(tmp_path), spec(), []) is None
    rules = '[{"name": "n", "metric": "m", "condition": "nan"}]'
    document = alerts_document(AlertFiles(tmp_path), spec(alert_rules=rules), [])
    assert document is not None
    assert (document["count"], document["rules"][0]["name"]) == (0, "n")


def test_advice_is_kept_once_with_an_id_of_ours(tmp_path: Path) -> None:
    """
    Two recommendations of one constant id are two; one that was read twice is one.
    """
    files = AlertFiles(tmp_path)
    for advice_id in ("1", "2", "1"):
        document = {"recommendation_id": "constant", "id": "theirs"}
        files.note_advice(
            RecommendationMade(timestamp_ns=15 * MS, advice_id=advice_id, document=document)
        )
    files.note_advice(PredictionMade(timestamp_ns=1, advice_id="3", document={}))
    again = AlertFiles(tmp_path)
    spans = [span("inner", 10, 20, step=7)]
    found = advice_document("recommendations", again.recommendations(), spec(), spans)
    assert found is not None
    assert [(one["id"], one["phase"], one["step"]) for one in found["recommendations"]] == [
        ("1", "inner", 7),
        ("2", "inner", 7),
    ]
    assert [one.advice_id for one in again.predictions()] == ["3"]
    assert advice_document("predictions", [], spec(), []) is None


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        (Moment(15 * MS, "s", None), "inner"),
        (Moment(5 * MS, "s", None), "outer"),
        (Moment(15 * MS, "t", None), "theirs"),
        (Moment(15 * MS, "s", 8), "of step 8"),
        (Moment(200 * MS, "s", None), None),
        (Moment(30 * MS, "s", None), "short"),
    ],
)
def test_innermost_phase(moment: Moment, name: str | None) -> None:
    """
    The process's own phase before another's, that of the step before others, then the last begun;
    a time that is known to the millisecond is inside a phase that begins within it.
    """
    spans = [
        span("outer", 0, 100),
        span("of step 8", 11, 20, step=8),
        span("inner", 12, 20),
        span("theirs", 5, 50, stream_id="t"),
        span("short", 30.4, 30.6),
    ]
    found = innermost(moment, spans)
    assert (found.name if found is not None else None) == name
    assert place_moments([moment], iter(spans)).get(moment) == found
