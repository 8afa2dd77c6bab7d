"""
What observability tells a logger: alerts by name and in Allele's shapes, recommendations,
predictions and readings; and what it tells wrongly.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from allele_mlflow import AlertRule, RecordError, SettingsError
from allele_mlflow.alerts.rules import decode_rules
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import EventReader
from allele_mlflow.records import (
    AlertRaised,
    Event,
    PredictionMade,
    RecommendationMade,
    RecordRejected,
    RunSpec,
    TagSet,
)
from allele_mlflow.run_logger import RunLogger
from tests.integration.runs import Station, our_warnings


class Severity(str, Enum):  # noqa: UP042 - Allele's own enums are these
    """
    As Allele's.
    """

    WARNING = "warning"
    CRITICAL = "critical"


class Component(str, Enum):  # noqa: UP042 - as above
    """
    As Allele's.
    """

    ENGINE = "evolution_engine"


@dataclass
class Alert:
    """
    Allele's, which has no to_dict.
    """

    alert_id: str
    rule_id: str = "r"
    name: str = "High memory"
    description: str = "too much"
    severity: Severity = Severity.CRITICAL
    component_type: Component = Component.ENGINE
    component_id: str = "engine-1"
    metric_name: str = "memory"
    current_value: Any = 9.0
    threshold: float = 5.0
    status: str = "active"
    triggered_at: datetime = datetime(2026, 1, 2, tzinfo=UTC)
    resolved_at: datetime | None = None
    context: dict[str, Any] = field(default_factory=dict)
    correlation_id: str | None = "c-1"


@dataclass
class MetricValue:
    """
    Allele's.
    """

    name: str
    value: Any
    component: Component = Component.ENGINE
    tags: dict[str, str] = field(default_factory=dict)
    correlation_id: str | None = None
    unit: str = ""


class WithDict:
    """
    An object that tells itself by `to_dict`, as Allele's results do; the values are live.
    """

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        """
        Its fields.
        """
        return self.fields


class ResourceMeasurement(WithDict):
    """
    Named as Allele's.
    """


SECOND = {
    "alert_id": "b-1",
    "component_id": "g7",
    "metric_name": "fitness",
    "severity": "high",
    "anomaly_type": "throughput_drop",
    "actual_value": 0.1,
    "context": {"window": 5},
}


@pytest.fixture
def log(offline: Station) -> Iterator[RunLogger]:
    """
    A logger that only spools.
    """
    log = offline.start()
    yield log
    log.detach()


def events_of(log: RunLogger) -> list[Event]:
    """
    What stands in the event lane.
    """
    (path,) = (Path(log.handle()) / spool.STREAMS).glob(f"*/{layout.EVENT_LOG}")
    return [frame.event for frame in EventReader(path).read(limit=10_000)]


def alerts_of(log: RunLogger) -> list[AlertRaised]:
    """
    The alerts in it.
    """
    return [event for event in events_of(log) if isinstance(event, AlertRaised)]


def rejected_of(log: RunLogger) -> list[RecordRejected]:
    """
    The dead letters in it.
    """
    return [event for event in events_of(log) if isinstance(event, RecordRejected)]


def test_alert_by_name_knows_its_place(log: RunLogger) -> None:
    """
    An alert stands in the phase and step that the running code is in, whatever the thread did
    before; a step of its own counts more.
    """
    with log.phase("outer", step=1), log.phase("inner", step=2):
        log.alert(
            "drift",
            severity="error",
            message="it drifts",
            metric="loss",
            value=np.float32(0.5),
            threshold=1,
            context={"at": datetime(2026, 1, 2, tzinfo=UTC), "n": np.int64(3)},
        )
        log.alert("later", step=9)
    log.alert("outside", value=math.inf)
    drift, later, outside = alerts_of(log)
    assert (drift.name, drift.severity, drift.message) == ("drift", "error", "it drifts")
    assert (drift.metric, drift.value, drift.threshold) == ("loss", 0.5, 1.0)
    assert drift.context == {"at": "2026-01-02T00:00:00Z", "n": 3}
    assert [(one.phase, one.step) for one in (drift, later, outside)] == [
        ("inner", 2),
        ("inner", 9),
        (None, None),
    ]
    assert (outside.severity, outside.value, outside.non_finite) == ("warning", None, "inf")
    assert len({one.alert_id for one in (drift, later, outside)}) == 3


def test_both_shapes_of_allele(log: RunLogger) -> None:
    """
    Allele's Alert object and its manager's mapping are alerts, through `alert` and `feed` alike.
    """
    for tell in (log.alert, log.feed):
        tell(Alert("a-1"))
        tell(SECOND)
    first, second, *rest = alerts_of(log)
    assert (first.source_id, first.severity, first.value) == ("a-1", "critical", 9.0)
    assert first.correlation_id == "c-1"
    assert first.context["component_type"] == "evolution_engine"
    assert first.context["component_id"] == "engine-1"
    assert first.context["triggered_at"].startswith("2026-01-02T00:00:00")
    assert (second.name, second.severity, second.context["component_id"]) == (
        "throughput_drop",
        "error",
        "g7",
    )
    assert [one.source_id for one in rest] == ["a-1", "b-1"]


def test_object_with_plain_fields(log: RunLogger) -> None:
    """
    Whatever has the fields is one: no class of Allele's is needed.
    """
    log.feed(SimpleNamespace(alert_id="x", name="plain", severity="low", _hidden=1))
    (found,) = alerts_of(log)
    assert (found.name, found.severity, found.context) == ("plain", "info", {})


def test_feed_takes_everything(log: RunLogger) -> None:
    """
    Metrics, measurements, anomalies, recommendations and predictions, in one iterable of any kind.
    """
    recommendation = {"recommendation_id": "constant", "category": "c", "recommended_value": "2"}
    things = [
        MetricValue("fitness", np.float64(0.5), tags={"generation": "4"}, correlation_id="c-7"),
        ResourceMeasurement(cpu_percent=5, memory_mb=1.5, disk={"read": 2}),
        WithDict(anomaly_type="memory_leak", severity="critical", actual_value=3.0),
        WithDict(**recommendation),
        recommendation,
        WithDict(prediction_type="t", predicted_value=1.0, confidence_interval=(0.5, 1.5)),
    ]
    log.feed(thing for thing in things)
    log.recommendation({"title": "of no known shape"})
    log.prediction(WithDict(anything=1))
    events = events_of(log)
    (anomaly,) = alerts_of(log)
    assert (anomaly.kind, anomaly.name, anomaly.value) == ("anomaly", "memory_leak", 3.0)
    advice = [event for event in events if isinstance(event, RecommendationMade)]
    assert [one.document.get("recommendation_id") for one in advice] == ["constant"] * 2 + [None]
    assert len({one.advice_id for one in advice}) == 3
    predictions = [event for event in events if isinstance(event, PredictionMade)]
    assert predictions[0].document["confidence_interval"] == [0.5, 1.5]
    tags = [(e.key, e.value) for e in events if isinstance(e, TagSet)]
    assert ("allele.correlation_ids", "c-7") in tags
    ledger = log.detach().ledger
    assert (ledger.accepted, ledger.pending, ledger.lost) == (11, 11, 0)


def test_what_is_handed_over_is_a_snapshot(log: RunLogger) -> None:
    """
    A live mapping may change afterwards: what was fed stays as it was.
    """
    inner = {"rate": 0.1}
    thing = WithDict(title="t", recommended_value="x", context=inner, items=[1])
    log.feed(thing)
    inner["rate"] = 9.9
    thing.fields["items"].append(2)
    (found,) = (e for e in events_of(log) if isinstance(e, RecommendationMade))
    assert found.document["context"] == {"rate": 0.1}
    assert found.document["items"] == [1]


class _Fails:
    def to_dict(self) -> dict[str, Any]:
        """
        Fail.
        """
        raise RuntimeError("not now")


def _cycle() -> dict[str, Any]:
    found: dict[str, Any] = {"alert_id": "a"}
    found["context"] = found
    return found


BAD: list[Any] = [
    None,
    3,
    "a text",
    b"bytes",
    object(),
    {},
    {"loss": 0.5},
    _Fails(),
    _cycle(),
    Alert("a", severity="urgent"),  # type: ignore[arg-type]
    MetricValue("x", "high"),
    {"title": "t", "recommended_value": "x" * 300_000, "category": "c"},
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_nothing_is_counted(log: RunLogger, number: int) -> None:
    """
    Unknown or failing things are rejected and counted, with a dead letter and one warning; what
    comes with them in one call arrives.
    """
    with our_warnings() as said:
        log.feed([BAD[number], Alert("good")])
    assert [one.source_id for one in alerts_of(log)] == ["good"]
    (letter,) = rejected_of(log)
    assert (letter.reason, letter.call) == ("bad_value", "feed")
    assert len(said) == 1
    assert log.detach().ledger.rejected == {"bad_value": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"alert": " "},
        {"alert": "x", "severity": "urgent"},
        {"alert": "x", "value": "high"},
        {"alert": "x", "threshold": [1]},
        {"alert": "x", "context": 3},
        {"alert": object()},
        {"alert": MetricValue("a", 1.0)},
    ],
)
def test_bad_alert_is_counted_and_raised_when_strict(
    offline: Station, arguments: dict[str, Any]
) -> None:
    """
    A mistake in `alert` is counted like any other; with `strict` it raises at once.
    """
    with our_warnings():
        log = offline.start()
        log.alert(arguments["alert"], **{k: v for k, v in arguments.items() if k != "alert"})
        assert alerts_of(log) == []
        assert log.detach().ledger.rejected == {"bad_value": 1}
    strict = offline.start(strict=True)
    with pytest.raises(RecordError):
        strict.alert(arguments["alert"], **{k: v for k, v in arguments.items() if k != "alert"})
    with pytest.raises(Exception, match="rejected"):
        strict.close()


def test_alert_with_a_bad_step_is_kept(log: RunLogger) -> None:
    """
    The step is refused and counted, and the alert itself is worth keeping.
    """
    with our_warnings(), log.phase("p", step=3):
        log.alert("x", step=1.5)  # type: ignore[arg-type]
    assert [one.step for one in alerts_of(log)] == [3]
    assert [one.reason for one in rejected_of(log)] == ["bad_step"]


@pytest.mark.parametrize(
    "text", ["\ud800 half", "\x1b[2J", "a\0b", "é✓" * 500, "\u202egnirts", "'; DROP TABLE runs"]
)
def test_hostile_text_is_kept(log: RunLogger, text: str) -> None:
    """
    Any text may be a name, a message or a context; what no encoding holds is replaced.
    """
    log.alert(text, message=text, metric=text, context={text: text, "n": 1 << 80})
    log.feed({"alert_id": text, "name": text, "context": {"deep": [{text: text}]}})
    clean = text.encode("utf-8", "replace").decode()
    found = alerts_of(log)
    assert [one.name for one in found] == [clean[:250]] * 2
    assert found[0].context == {clean: clean, "n": str(1 << 80)}
    assert rejected_of(log) == []


def test_alerts_from_threads(log: RunLogger) -> None:
    """
    Observability usually runs in a thread of its own: nothing is lost between several.
    """

    def tell() -> None:
        for number in range(50):
            log.alert(f"t{number}")

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.alert_id for one in alerts_of(log)}) == 200


def spec_of(log: RunLogger) -> RunSpec:
    """
    The run's description.
    """
    spec = spool.read_struct(Path(log.handle()) / spool.RUN_FILE, RunSpec)
    assert spec is not None
    return spec


def test_rules_of_the_program(offline: Station) -> None:
    """
    `alerts=` takes rules, ours and Allele's; a run below this one has them too.
    """
    ours = AlertRule(name="ours", metric="loss", condition="nan")
    theirs = SimpleNamespace(
        rule_id="r", name="theirs", metric_name="latency", threshold=5.0, condition="gt"
    )
    log = offline.start(alerts=[ours, theirs])
    child = log.child("below")
    for one in (log, child):
        rules, _ = decode_rules(spec_of(one).alert_rules)
        assert [rule.name for rule in rules] == ["ours", "theirs"]
        assert spec_of(one).alerts_file == ""
        one.detach()


def test_rules_of_a_file(offline: Station, tmp_path: Path) -> None:
    """
    Of a file with hooks its path is in the run's description, and nothing of the hooks.
    """
    file = tmp_path / "alerts.toml"
    rule = '[[alerts]]\nname = "n"\nmetric = "m"\ncondition = "nan"\n'
    file.write_text(rule)
    log = offline.start(alerts=str(file))
    assert spec_of(log).alerts_file == ""
    log.detach()
    file.write_text(f'{rule}[[hooks]]\nwebhook = "https://h/secret"\n')
    log = offline.start(alerts=file)
    assert spec_of(log).alerts_file == str(file)
    assert b"secret" not in (Path(log.handle()) / spool.RUN_FILE).read_bytes()
    log.detach()


@pytest.mark.parametrize(
    ("alerts", "told"),
    [
        (3, "alerts: want a file or a list of AlertRule, got int"),
        (AlertRule(name="n", metric="m", condition="nan"), "want a file or a list of AlertRule"),
        ([3], "alerts: rule 1: want an object or a mapping with fields"),
        ([{"name": "n"}], "alerts: rule 1: want an AlertRule, or what has"),
        ("/no/such/file.toml", "/no/such/file.toml: cannot be read: No such file"),
        ("/", "/: want a file"),
    ],
)
def test_bad_rules_are_refused_before_any_work(offline: Station, alerts: Any, told: str) -> None:
    """
    Rules that cannot be read are an error of `start_logger`, and leave no run behind.
    """
    with pytest.raises(SettingsError) as caught:
        offline.start(alerts=alerts)
    assert told in str(caught.value)
    assert not offline.scope.exists() or not list((offline.scope / spool.RUNS).iterdir())
