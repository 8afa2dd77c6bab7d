"""
What travels: the structs that cross from the benchmark to the sidecar and back.

The event lane carries these as msgpack maps with a `type` tag. Fields are only ever appended, with
defaults, and never renamed: a newer sidecar reads what an older logger wrote.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple, NewType, get_args

import msgspec

RunUid = NewType("RunUid", str)
RunId = NewType("RunId", str)

#: Version of everything on disk; part of the sidecar's profile, so that two versions never share
#: one.
SPOOL_FORMAT = 1

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

Severity = Literal["info", "warning", "error", "critical"]
#: From mild to grave.
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
AlertStatus = Literal["active", "acknowledged", "resolved"]

#: Why a record was refused (the caller's or the store's fault) or dropped (the environment's).
#: The order is that of the counter words in a segment's header: append only.
COUNTED_REASONS = (
    "rejected.bad_value",
    "rejected.bad_key",
    "rejected.bad_step",
    "rejected.bad_artifact",
    "dropped.no_spool",
    "dropped.disk_full",
    "dropped.quota",
    "dropped.closed",
    "dropped.key_unwritten",
)


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """
    One frame of the event lane. `timestamp_ns` is the producer's wall clock.
    """

    timestamp_ns: int


class KeyDefined(Event, frozen=True, tag="key"):
    """
    From here on `key_id` in the metric and series lanes means `name`. Not a record of the user's.
    """

    key_id: int
    name: str


class ParamLogged(Event, frozen=True, tag="param"):
    """
    A parameter, as text.
    """

    key: str
    value: str


class TagSet(Event, frozen=True, tag="tag"):
    """
    A tag, as text.
    """

    key: str
    value: str


class ArtifactAdded(Event, frozen=True, tag="artifact"):
    """
    A file to upload: a copy in the run's `artifacts/` folder, or where it was too large, its path.
    """

    artifact_path: str
    source: str
    copied: bool
    size_bytes: int
    mtime_ns: int = 0


class ErrorLogged(Event, frozen=True, tag="error"):
    """
    An exception, categorised and fingerprinted.
    """

    category: str
    error_type: str
    message: str
    traceback: str
    fingerprint: str
    step: int | None = None
    phase: str | None = None
    #: Why the run was ended by whoever watched it: the end of its process is no error beside it.
    ends_run: bool = False


class AlertRaised(Event, frozen=True, tag="alert"):
    """
    Something that somebody should look at: said by the program (`log.alert`, `log.feed`), or found
    by the sidecar in the run's readings, which is nobody's record.

    Attributes:
        alert_id: Ours, for no sender's id is sure to be its own.
        kind: "alert", or "anomaly" where a detector of the sender's found it.
        status: Of the sender's alert when it was told; the sidecar's own begin as "active".
        value: None where there is none, or where JSON has no number for it: then `non_finite` is
            "nan", "inf" or "-inf".
        rule: The name of the rule behind it; `source` tells whose rule.
        source: "call", or "rule": found by the sidecar.
        source_id: The sender's own id, by which it later says that the alert is resolved.
        context: Whatever else was said, as plain data.
    """

    alert_id: str
    name: str
    severity: Severity
    message: str = ""
    kind: str = "alert"
    status: AlertStatus = "active"
    metric: str | None = None
    value: float | None = None
    non_finite: str | None = None
    threshold: float | None = None
    step: int | None = None
    phase: str | None = None
    rule: str | None = None
    source: str = "call"
    source_id: str | None = None
    correlation_id: str | None = None
    context: dict[str, Any] = {}


class Advice(Event, frozen=True):
    """
    What a recommender or a forecaster said, whole: `document` is plain data, `advice_id` ours.
    """

    advice_id: str
    document: dict[str, Any]
    step: int | None = None
    phase: str | None = None
    correlation_id: str | None = None


class RecommendationMade(Advice, frozen=True, tag="recommendation"):
    """
    Advice on what to change.
    """


class PredictionMade(Advice, frozen=True, tag="prediction"):
    """
    Advice on what will be.
    """


class RecordRejected(Event, frozen=True, tag="rejected"):
    """
    A dead letter: a call whose arguments MLflow cannot hold, as text. Counted in the header, not
    here.
    """

    reason: str
    call: str
    key: str
    value: str
    wanted: str


class FlushAsked(Event, frozen=True, tag="flush"):
    """
    The benchmark waits: lift the limits until everything before this frame is delivered.
    """

    flush_id: int


class ProcessEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How a process ended, as the kernel tells it: with an exit code, by a signal, or neither is
    known.
    """

    exit_code: int | None = None
    signal: int | None = None
    #: Killed, while its cgroup killed something for memory.
    is_out_of_memory: bool = False

    @property
    def is_known(self) -> bool:
        """
        Whether the kernel told.
        """
        return self.exit_code is not None or self.signal is not None


#: `RunEnded.ended_by` of a farewell at the interpreter's exit, before its exit code is known.
ENDED_BY_EXIT = "exit"


class RunEnded(Event, frozen=True, tag="end"):
    """
    The owner's farewell. `slots` says how many slots each segment file had given out.

    `process_end` is the sidecar's word, of an end that the owner did not tell, or not wholly.
    """

    status: RunStatus
    slots: dict[str, int]
    ended_by: str = "close"
    overhead_ratio: float | None = None
    process_end: ProcessEnd | None = None


class StreamEnded(Event, frozen=True, tag="stream_end"):
    """
    An attached process's farewell: its stream is complete, the run goes on.
    """

    slots: dict[str, int]


AnyEvent = (
    KeyDefined
    | ParamLogged
    | TagSet
    | ArtifactAdded
    | ErrorLogged
    | AlertRaised
    | RecommendationMade
    | PredictionMade
    | RecordRejected
    | FlushAsked
    | RunEnded
    | StreamEnded
)


#: Events that are records of the user's, by their names in the ledger.
RECORD_KINDS: dict[type[Event], str] = {
    ParamLogged: "param",
    TagSet: "tag",
    ArtifactAdded: "artifact",
    ErrorLogged: "error",
    AlertRaised: "alert",
    RecommendationMade: "recommendation",
    PredictionMade: "prediction",
}


class Reading(NamedTuple):
    """
    One metric reading as MLflow stores it. Units: `timestamp_ms` wall clock; `step` a 64-bit
    integer.
    """

    key: str
    value: float
    timestamp_ms: int
    step: int


class Sample(NamedTuple):
    """
    One resource sample: metric names of `units.RESOURCE_UNITS` to finite values; absent means
    unknown.
    """

    timestamp_ns: int
    values: dict[str, float]


class PhaseSpan(msgspec.Struct, frozen=True, kw_only=True):
    """
    One closed phase of one process.

    Units: `*_ns` wall clock; `cpu_s` CPU time of the whole process between the edges, None where
    the end was never seen; `step` None where the user gave none.
    """

    stream_id: str
    instance: int
    name: str
    begin_ns: int
    end_ns: int
    cpu_s: float | None
    step: int | None
    complete: bool = True


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the sidecar needs to create and deliver one run; `run.msgpack`. Holds no secret.
    """

    run_uid: str
    experiment: str
    created_ns: int
    profile: str
    owner_stream: str
    owner_pid: int
    run_name: str | None = None
    run_id: str | None = None
    parent_run_id: str | None = None
    parent_run_uid: str | None = None
    correlation_id: str | None = None
    tags: dict[str, str] = {}
    tracking_uri_masked: str = ""
    artifact_location: str | None = None
    batch_size: int = 100
    flush_interval_s: float = 1.0
    sample_interval_s: float = 1.0
    sidecar_cpu_percent: float = 25.0
    max_lag_s: float = 600.0
    delivery: str = "live"
    spool_quota_bytes: int = 0
    offline: bool = False
    host: str = ""
    source: str = ""
    working_folder: str = ""
    visible_devices: str | None = None
    format: int = SPOOL_FORMAT
    #: The kernel's start time of `owner_pid`; 0 where it is not known.
    owner_start: int = 0
    #: Where the parent's spool keeps it, which need not be this spool.
    parent_folder: str = ""
    durability: str = "process"
    #: Rules of `SAMPLING`, as `resolution.parse_rules` reads them.
    sampling: str = ""
    #: The Python that the run is of; empty where it is not known.
    executable: str = ""
    usable_cpu_count: int | None = None
    #: See `settings.thread_limits`; None where it is not known.
    thread_limits: dict[str, str] | None = None
    #: Rules of alerts without their hooks, as `alerts.rules.decode_rules` reads them.
    alert_rules: str = ""
    #: The file of the rules, where the hooks stand: a spool holds no secret and runs no command.
    alerts_file: str = ""


class Ledger(msgspec.Struct, kw_only=True):
    """
    Where every record of a run is; `accepted` equals the sum of the rest, always.

    A record is one reading, param, tag, artifact, error, alert, recommendation, prediction or phase
    edge of the user's. `delivered` is by kind, `rejected`, `dropped` and `archived` by reason.
    `torn` are slots that a call had taken when its process died before it returned. `sampled`
    counts the sidecar's own resource readings that arrived, which are nobody's records.
    `recounted_from` names the segment after which a lost cursor made the sidecar count again.
    """

    delivered: dict[str, int] = {}
    archived: dict[str, int] = {}
    rejected: dict[str, int] = {}
    dropped: dict[str, int] = {}
    torn: int = 0
    pending: int = 0
    sampled: int = 0
    recounted_from: str | None = None

    @property
    def accepted(self) -> int:
        """
        Every record that a call handed over.
        """
        return (
            sum(self.delivered.values())
            + sum(self.archived.values())
            + sum(self.rejected.values())
            + sum(self.dropped.values())
            + self.torn
            + self.pending
        )

    @property
    def lost(self) -> int:
        """
        Records that will not arrive by themselves: rejected, dropped and torn.
        """
        return sum(self.rejected.values()) + sum(self.dropped.values()) + self.torn

    def add(self, other: Ledger) -> None:
        """
        Add another ledger's numbers to this one.
        """
        for mine, theirs in (
            (self.delivered, other.delivered),
            (self.archived, other.archived),
            (self.rejected, other.rejected),
            (self.dropped, other.dropped),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.torn += other.torn
        self.pending += other.pending
        self.sampled += other.sampled
        self.recounted_from = self.recounted_from or other.recounted_from


class OomBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """
    Processes killed for memory in the cgroup of a run's owner when its sidecar first saw it.
    """

    owner_pid: int
    owner_start: int
    kills: int


#: Artifact folder of what we write about a run.
OWN_ARTIFACTS = "allele"


class RunState(msgspec.Struct, kw_only=True):
    """
    What the sidecar publishes of one run; `state.msgpack`, written by the sidecar alone.
    """

    run_uid: str
    updated_ns: int
    run_id: str | None = None
    run_url: str | None = None
    experiment_id: str | None = None
    status: str = "WAITING"
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    flushed_id: int = 0
    lag_s: float = 0.0
    delivered_per_s: float | None = None
    last_error: str | None = None
    #: Spool files that could not be read, in words.
    damage: list[str] = []
    sidecar_pid: int = 0
    sidecar_cpu_s: float = 0.0
    #: How the run ended, from the owner's farewell or its absence; None while it runs.
    end: RunEnded | None = None
    #: The run's final status is in MLflow.
    done: bool = False
    #: Address of the store that `run_id` is of, secrets masked.
    store: str = ""
    #: `created_ns` of the part of the run that this is of: it may be resumed. 0: not known.
    part_ns: int = 0
    #: Records that a power failure leaves: in MLflow, or written through to the disk. None unless
    #: `durability` is "power".
    durable_count: int | None = None
    #: What we wrote into MLflow as the time of our part, where a later one is to be told by.
    opened_ns: int = 0
    #: Where our own artifacts of the run go: those of an earlier part, delivered before, stay.
    artifact_folder: str = OWN_ARTIFACTS
    #: The run was resumed, and MLflow has not been told.
    is_reopen_due: bool = False
    #: None where the kernel does not count, or the owner was gone before it was seen.
    oom_baseline: OomBaseline | None = None
    #: Alerts of the run so far, by severity, and the last one in words.
    alert_counts: dict[str, int] = {}
    last_alert: str | None = None

    def forget_run(self) -> None:
        """
        Begin again in another store: what MLflow knows of the run there is nothing here.
        """
        self.run_id = self.run_url = self.experiment_id = None
        self.status, self.done, self.is_reopen_due = "WAITING", False, False
        self.artifact_folder = OWN_ARTIFACTS

    def resume(self, part_ns: int) -> None:
        """
        Go on with another part of the run: how the last one ended is not the run's end.
        """
        self.part_ns = part_ns
        self.end, self.done, self.oom_baseline, self.opened_ns = None, False, None, 0
        self.is_reopen_due = self.run_id is not None
        self.alert_counts, self.last_alert = {}, None


def canonical_json(value: Any) -> bytes:
    """
    The one JSON text of a value: keys sorted, no spaces, so that equal values have equal bytes.

    Raises:
        TypeError: the value holds something JSON does not know.
    """
    return msgspec.json.encode(value, order="deterministic")


def content_hash(value: Any) -> str:
    """
    SHA-256 of the canonical JSON, in hex: the identity of a genome or a cell.
    """
    return hashlib.sha256(canonical_json(value)).hexdigest()
