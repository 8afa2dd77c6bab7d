"""
`RunLogger`: every method stores and returns; what it does is elsewhere (queue.writer stores,
snapshots copies, sidecar delivers).

Over 500 lines because the class is one page of reference and its methods are short.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import (
    Any,
    NoReturn,
    Protocol,
    Self,
    SupportsFloat,
    SupportsIndex,
    cast,
    get_args,
)

from allele_mlflow import snapshots
from allele_mlflow.clock import now_monotonic_ns, now_monotonic_s, now_ns, pause_s, utc_iso
from allele_mlflow.distribution import describe_values
from allele_mlflow.errors import DeliveryError, ErrorKind, RecordError, SidecarError
from allele_mlflow.failures import Category, describe_failure
from allele_mlflow.feeding import Feed
from allele_mlflow.given_alerts import NO_ALERTS
from allele_mlflow.mistakes import Mistakes, is_terminal, warn, write
from allele_mlflow.notices import DeliveryNotices
from allele_mlflow.queue import plain, spool
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.queue.run_reader import count_ledger
from allele_mlflow.queue.stream_files import reason_of
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import (
    ArtifactAdded,
    ErrorLogged,
    FlushAsked,
    Ledger,
    ParamLogged,
    RunEnded,
    RunSpec,
    RunState,
    RunStatus,
    StreamEnded,
    TagSet,
    canonical_json,
    content_hash,
)
from allele_mlflow.references import USES_PREFIX, encode_uses, reference_of
from allele_mlflow.report import DeliveryReport
from allele_mlflow.run_phase import Phase, phase_name, place_of
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.sidecar import launch
from allele_mlflow.sidecar.profile import lock_path, profile_of
from allele_mlflow.tracking import limits

WAIT_POLL_S = 0.01
RESPAWN_EVERY_S = 1.0
#: How long a sidecar may take from its launch to its lock.
START_S = 3.0
PROGRESS_AFTER_S = 1.0
PROGRESS_EVERY_S = 0.2
#: How long `close` waits for a worker thread to move the delivered run to `done/`.
PUT_AWAY_S = 2.0


class MetricMethod(Protocol):
    """
    See `StreamWriter.metric`.
    """

    def __call__(self, key: str, value: Any, step: SupportsIndex | None = None) -> None:
        """
        Log one reading.
        """


class MetricsMethod(Protocol):
    """
    See `StreamWriter.metrics`.
    """

    def __call__(self, mapping: Mapping[str, Any], step: SupportsIndex | None = None) -> None:
        """
        Log several readings of one moment.
        """


class SeriesMethod(Protocol):
    """
    See `StreamWriter.series`.
    """

    def __call__(self, key: str, values: Any, first_step: SupportsIndex = 0) -> None:
        """
        Log an array of readings.
        """


class RunLogger:
    """
    Logs one MLflow run: every call stores into the spool and returns; a sidecar delivers.

    Use it as `with` or `async with`, or call `close`. Get one from `start_logger`, `attach` or
    `child`.

    Attributes:
        metric: `metric(key, value, step=None)`: one reading (`StreamWriter.metric`).
        metrics: `metrics(mapping, step=None)`: several of one moment (`StreamWriter.metrics`).
        series: `series(key, values, first_step=0)`: an array in one go (`StreamWriter.series`).
        run_uid: The run's id of ours, known at once; tag `allele.run_uid` in MLflow.
        correlation_id: Of the run and its children; tag `allele.correlation_id`, and in log lines.
        experiment: The experiment's full name.
        settings: What it was started with.

    The three are bound to the stream's own methods when the logger is made: one call, no
    indirection.

    Thread safety: share it between threads, signal handlers and finalizers.
    Process safety: in a forked child the first call opens a stream of its own in the same run; only
        the process that started the run can end it.
    """

    metric: MetricMethod
    metrics: MetricsMethod
    series: SeriesMethod

    def __init__(
        self,
        *,
        stream: StreamWriter,
        settings: Settings,
        experiment: str,
        run_uid: str,
        correlation_id: str,
        folder: Path | None,
        profile: str,
        is_owner: bool,
        mistakes: Mistakes,
        notices: DeliveryNotices,
        start_child: Callable[..., RunLogger],
        on_close: Callable[[RunLogger], None],
    ) -> None:
        self.settings = settings
        self.experiment = experiment
        self.run_uid = run_uid
        self.correlation_id = correlation_id
        self.metric = stream.metric
        self.metrics = stream.metrics
        self.series = stream.series
        self._stream = stream
        stream.on_slow = self._slow_point  # a roll is where a loop of metrics only looks for us
        self._folder = folder
        self._profile = profile
        self._is_owner = is_owner
        self._mistakes = mistakes
        self._notices = notices
        self._start_child = start_child
        self._on_close = on_close
        self._pid = os.getpid()
        self._started_s = now_monotonic_s()
        self._looked_s = now_monotonic_s()
        self._launched_s = -START_S
        self._flush_ids = count(1).__next__
        self._artifacts = snapshots.ArtifactPaths()
        self._genomes: set[str] = set()
        #: Of each component that was used, how it was named and from when on.
        self._uses: dict[str, dict[str, str]] = {}
        self._feed = Feed(stream)
        #: The rules of alerts, for runs below this one too.
        self._alerts = NO_ALERTS
        self._report: DeliveryReport | None = None
        #: What the sidecar needs to know of the run, where it could not be written yet.
        self._unwritten_spec: RunSpec | None = None
        #: Records delivered when the sidecar was last heard of, for a spool that goes away.
        self._last_delivered = 0
        #: `created_ns` of the run's part that we own; 0 where we own none.
        self._part_ns = 0
        #: Calls that were stored, about, and records.
        self._stored_count = self._kept_count = 0

    # --- describing the run ---------------------------------------------------------------------

    def param(self, key: str, value: Any) -> None:
        """
        Log a parameter; MLflow keeps the first value of a key and refuses another one.

        A value longer than MLflow keeps is shortened there, and whole in the artifact that it
        names.
        """
        self._text("param", key, value, limits.PARAM_VALUE_LENGTH, ParamLogged)

    def params(self, mapping: Mapping[str, Any]) -> None:
        """
        Log several parameters.
        """
        for key, value in self._pairs("params", mapping):
            self.param(key, value)

    def tag(self, key: str, value: Any) -> None:
        """
        Set a tag; the last value of a key stands. Long values as in `param`.
        """
        self._text("tag", key, value, limits.TAG_VALUE_LENGTH, TagSet)

    def tags(self, mapping: Mapping[str, Any]) -> None:
        """
        Set several tags.
        """
        for key, value in self._pairs("tags", mapping):
            self.tag(key, value)

    def distribution(self, key: str, values: Any, step: SupportsIndex | None = None) -> None:
        """
        Log what describes many values, each number as a metric of its own: `<key>/min`, `q25`,
        `median`, `q75`, `max`, `mean` and `std`.

        Args:
            key: Begins the names.
            values: Any shape: a NumPy array, a torch tensor or any iterable of numbers.
            step: As of `metrics`.
        Raises:
            RecordError: only with `strict=True`.

        Cost: sorts a copy of the values in the caller's thread; arrays by their own method.
        """
        name = plain.key(key)
        if not isinstance(name, str):
            self._stream.reject("bad_key", "distribution", key, values, "want text")
            return
        found = describe_values(values)
        if isinstance(found, str):
            self._stream.reject("bad_value", "distribution", key, values, found)
            return
        self._stream.metrics({f"{name}/{part}": number for part, number in found.items()}, step)

    def phase(self, name: str, step: SupportsIndex | None = None) -> Phase:
        """
        A `with` (or `async with`) block whose time, CPU, memory and GPU are attributed to `name`.

        Phases may nest and may run in several threads and asyncio tasks. With a step, resource
        samples taken inside carry it, and so do errors.
        """
        name = phase_name(name)
        if step is not None:
            plain_step = plain.step(step)
            if isinstance(plain_step, str):  # the phase itself is worth keeping
                self._stream.reject("bad_step", "phase", name, step, plain_step)
            step = None if isinstance(plain_step, str) else plain_step
        return Phase(self._stream, name, step, on_slow=self._slow_point)

    def error(self, exc: BaseException, *, step: SupportsIndex | None = None) -> None:
        """
        Record an exception that the program survived: category, fingerprint and traceback.

        It is put into the phase that it came from, and without a step it has that of the phase.
        """
        self._error(exc, step=step)

    def _error(
        self, exc: BaseException, *, step: SupportsIndex | None = None, ends_run: bool = False
    ) -> None:
        failure = describe_failure(exc)
        phase, phase_step = place_of(exc, self._stream)
        plain_step = phase_step if step is None else plain.step(step)
        if isinstance(plain_step, str):  # the error itself is worth keeping
            self._stream.reject("bad_step", "error", failure.error_type, step, plain_step)
            plain_step = phase_step
        self._stream.event(
            ErrorLogged(
                timestamp_ns=now_ns(),
                category=failure.category.value,
                error_type=failure.error_type,
                message=failure.message,
                traceback=failure.traceback,
                fingerprint=failure.fingerprint,
                step=plain_step,
                phase=phase,
                ends_run=ends_run,
            )
        )
        self._slow_point()

    # --- what somebody should look at -----------------------------------------------------------

    def alert(
        self,
        alert: object,
        *,
        severity: str = "warning",
        message: str = "",
        metric: str | None = None,
        value: SupportsFloat | None = None,
        threshold: SupportsFloat | None = None,
        step: SupportsIndex | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Raise an alert: it is put into the phase and step that the running code is in, and linked to
        host, cell and the nearest resource sample.

        Args:
            alert: Its name; or an alert or anomaly of Allele's observability, as an object or a
                mapping, which tells the rest by itself, but for `step`.
            severity: `info`, `warning`, `error` or `critical`.
            message: For a person.
            metric: What it is about.
            value: Of that.
            threshold: What it should have kept to.
            step: In place of that of the phase.
            context: Whatever else is to be kept with it.
        Raises:
            RecordError: only with `strict=True`.
        """
        self._feed.alert(
            alert,
            severity=severity,
            message=message,
            metric=metric,
            value=value,
            threshold=threshold,
            step=step,
            context=context,
        )
        self._slow_point()

    def recommendation(self, recommendation: object) -> None:
        """
        Keep an optimisation recommendation, as an object or a mapping, under an id of ours; all of
        them are in `allele/recommendations.json`.
        """
        self._feed.recommendation(recommendation)
        self._slow_point()

    def prediction(self, prediction: object) -> None:
        """
        Keep a prediction, as `recommendation` does, in `allele/predictions.json`.
        """
        self._feed.prediction(prediction)
        self._slow_point()

    def feed(self, things: object) -> None:
        """
        Take in what an observability engine tells: one thing or an iterable of them.

        Known are, by their fields, Allele's `MetricValue`, `PerformanceMetrics`, `SystemMetrics`
        and `ResourceMeasurement` (they become metrics), `Alert` and `AnomalyResult` (alerts),
        `OptimizationRecommendation` and `PredictionResult`; objects or mappings. What is none of
        them is refused and counted.
        """
        self._feed.feed(things)
        self._slow_point()

    # --- artifacts ------------------------------------------------------------------------------

    def artifact(
        self, path: str | os.PathLike[str], artifact_path: str | None = None, *, copy: bool = False
    ) -> None:
        """
        Keep a file, or a folder with all that is in it, as artifacts of the run.

        The bytes are copied into the spool before this returns, so the file may change or go
        afterwards; one larger than `ARTIFACT_COPY_MAX_BYTES` is only noted, and must stay as it is
        until it is uploaded.

        Of a folder all files are kept, links to files as what they point to; links to folders,
        pipes and what cannot be read are refused one by one, and our own spool is left out.

        Args:
            path: The file or folder.
            artifact_path: Folder to put it in, as in MLflow's `log_artifact`; the top by default.
            copy: Copy whatever its size.
        """
        most = sys.maxsize if copy else self.settings.artifact_copy_max_bytes
        spool_dir = self._folder.parent.parent.parent if self._folder is not None else None
        try:
            found = snapshots.find_files(path, leaving_out=spool_dir)
        except (snapshots.Unusable, TypeError, OSError) as exc:
            self._stream.reject("bad_artifact", "artifact", path, artifact_path, str(exc))
            return
        for entry in found:
            target = entry.name if artifact_path is None else f"{artifact_path}/{entry.name}"
            if entry.problem is not None:
                self._stream.reject("bad_artifact", "artifact", target, "", entry.problem)
                continue
            take = partial(snapshots.snapshot_file, entry.path, copy_max_bytes=most)
            self._keep("artifact", target, take)

    def text(self, text: str, artifact_file: str) -> None:
        """
        Keep text as the artifact `artifact_file`.
        """
        self._keep_bytes("text", artifact_file, lambda: _text_bytes(text))

    def json(self, value: Any, artifact_file: str) -> None:
        """
        Keep a value as JSON; NumPy scalars and arrays, dates and things with `to_dict` are
        understood.
        """
        self._keep_bytes("json", artifact_file, lambda: snapshots.encode_json(value))

    def table(self, table: Any, artifact_file: str) -> None:
        """
        Keep a pandas DataFrame (or a mapping of columns) as `.csv`, `.json` or `.parquet`.
        """
        self._keep_bytes(
            "table", artifact_file, lambda: snapshots.encode_table(table, artifact_file)
        )

    def figure(self, figure: Any, artifact_file: str) -> None:
        """
        Keep a matplotlib figure (`.png`, `.svg`, `.pdf`) or a plotly one (`.html`, `.json`).
        """
        self._keep_bytes(
            "figure", artifact_file, lambda: snapshots.encode_figure(figure, artifact_file)
        )

    def genome(self, genome: Any, name: str | None = None) -> str | None:
        """
        Keep a genome as it is now: its canonical JSON under its content hash, once however often.

        Args:
            genome: Anything with `to_dict`, or plain data.
            name: A tag `allele.genome.<name>` that points to it.
        Returns:
            The SHA-256 of its canonical JSON, or None where it could not be read.
        """
        try:
            data = snapshots.plain_genome(genome)
        except Exception as exc:  # noqa: BLE001 - the log call's border: to_dict is the caller's code
            self._stream.reject("bad_artifact", "genome", name or "", genome, plain.said(exc))
            return None
        identity = content_hash(data)
        if identity not in self._genomes:
            file = f"genomes/{identity[:16]}.json"
            if self._keep_bytes("genome", file, lambda: canonical_json(data)):
                self._genomes.add(identity)
        if name is not None:
            self.tag(f"allele.genome.{name}", identity)
        return identity

    def uses(self, what: object) -> None:
        """
        Say that the run uses a version of a component or genome in the registry: a tag
        `allele.uses.<name>` says how it was named, and from when on.

        The registry is not asked: its journal knows who held a stage at that time. The same again
        says nothing new. Of several processes in one run, the last one's word on a component
        stands.

        Args:
            what: `"name@stage"`, `"name/3"`, or what `load_component` or `load_genome` gave.
        Raises:
            RecordError: only with `strict=True`.
        """
        try:
            reference = reference_of(what)
        except Exception as exc:  # noqa: BLE001 - the log call's border: its attributes are the caller's code
            self._stream.reject("bad_value", "uses", what, "", plain.said(exc))
            return
        key = f"{USES_PREFIX}{reference.name}"
        problem = limits.check_key(key)
        if problem is not None:
            self._stream.reject("bad_key", "uses", what, "", problem)
            return
        known = self._uses.setdefault(reference.name, {})
        if str(reference) in known:
            return
        known[str(reference)] = utc_iso(now_ns())
        told: dict[str, str] = {}
        while len(told) < len(known):  # else, of two threads, the one that knows less has the word
            told = known.copy()
            self.tag(key, encode_uses(told))

    # --- other processes and runs ---------------------------------------------------------------

    def child(
        self,
        run_name: str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunLogger:
        """
        Start a run below this one, in the same experiment and with the same settings.
        """
        return self._start_child(
            self.experiment,
            settings=self.settings,
            run_name=run_name,
            params=params,
            tags=tags,
            parent_run_uid=self.run_uid,
            parent_folder=self.handle(),
            correlation_id=self.correlation_id,
            alerts=self._alerts,
            on_error=self._mistakes.on_error,
            on_lag=self._notices.on_lag,
        )

    def handle(self) -> str:
        """
        A text that `attach(handle)` in another process of this machine turns into a logger of this
        run.
        """
        return str(self._folder) if self._folder is not None else ""

    # --- looking and waiting --------------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        """
        MLflow's id of the run; waits for the sidecar to create it, `exit_timeout_s` at most, else
        None.
        """
        if self.settings.is_offline:
            return None
        state = self.status()
        if self.settings.delivery == "quiet" and (state is None or state.run_id is None):
            # quiet delivery makes no call of MLflow's while the benchmark runs, unless asked to
            asked = FlushAsked(timestamp_ns=now_ns(), flush_id=now_monotonic_ns())
            self._stream.event(asked, counts=False)
        state = self._wait(lambda s: s.run_id is not None, self.settings.exit_timeout_s)
        return state.run_id if state is not None else None

    @property
    def run_url(self) -> str | None:
        """
        Where a person finds the run, None before it exists. Does not wait.
        """
        state = self.status()
        return state.run_url if state is not None else None

    def status(self) -> RunState | None:
        """
        What the sidecar last said of this run; None before it said anything.
        """
        if self._folder is None:
            return None
        folder = self._folder
        if not os.path.exists(folder):  # raises nothing, whatever the matter is
            folder = folder.parent.parent / spool.DONE / folder.name
        state = spool.read_struct(folder / spool.STATE_FILE, RunState)
        if state is not None:
            self._last_delivered = sum(state.ledger.delivered.values())
        return state

    def flush(self, timeout_s: float | None = None) -> bool:
        """
        Wait until everything logged before this call is in MLflow; whether it is.

        Args:
            timeout_s: Longest wait; `exit_timeout_s` by default.
        """
        if self._report is not None:
            return self._report.is_complete
        if self.settings.is_offline:
            return False
        # of the machine's one clock that is never set, for ids are compared between processes
        flush_id = now_monotonic_ns() + self._flush_ids()
        if not self._stream.event(
            FlushAsked(timestamp_ns=now_ns(), flush_id=flush_id), counts=False
        ):
            return False
        self._respawn()
        timeout_s = self.settings.exit_timeout_s if timeout_s is None else timeout_s
        return self._wait(lambda s: s.flushed_id >= flush_id, timeout_s) is not None

    # --- the end --------------------------------------------------------------------------------

    def close(self, status: RunStatus | None = None) -> DeliveryReport:
        """
        End the run and wait for delivery, `exit_timeout_s` at most; then the sidecar goes on alone.

        Args:
            status: FINISHED by default; in capitals or not.
        Returns:
            Where every record is. The second call returns the first one's report.
        Raises:
            RecordError: a status that MLflow does not know; the run is still open.
            DeliveryError: only with `strict=True`, when records were refused, dropped or torn.
            KeyboardInterrupt: pressed while waiting, once the run is handed over.
        """
        is_detached = self.settings.exit == "detach"
        return self._close(_run_status(status), "close", waits=not is_detached)

    def detach(self) -> DeliveryReport:
        """
        End the run as FINISHED without waiting: the sidecar delivers alone.
        """
        return self._close("FINISHED", "detach", waits=False)

    def __copy__(self) -> Self:
        return self  # a copy of an object that logs logs into the same run

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a logger cannot be pickled: hand over log.handle(), and attach() to it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(exc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio

        # close waits; the loop must not
        await asyncio.get_running_loop().run_in_executor(None, self._leave, exc)

    def _leave(self, exc: BaseException | None) -> None:
        status, ended_by = self._note_end(exc)
        waits = self.settings.exit == "drain"
        if exc is None:
            self._close(status, ended_by, waits=waits)
            return
        with contextlib.suppress(DeliveryError):  # the user's own exception is the one to see
            self._close(status, ended_by, waits=waits)

    def _note_end(self, exc: BaseException | None) -> tuple[RunStatus, str]:
        if exc is None or (isinstance(exc, SystemExit) and exc.code in (None, 0)):
            return "FINISHED", "close"
        if isinstance(exc, GeneratorExit):
            return "FINISHED", "close"
        try:
            self.error(exc)
        except Exception as problem:  # noqa: BLE001 - a border: the exception is the caller's code, and strict
            self._mistakes.warn_once("error", f"not logged: error(): {plain.said(problem)}")
        if isinstance(exc, KeyboardInterrupt):
            return "KILLED", "KeyboardInterrupt"
        if type(exc).__name__ == "CancelledError":  # what Ctrl-C is inside asyncio
            return "KILLED", "CancelledError"
        if describe_failure(exc).category is Category.OUT_OF_MEMORY:
            return "KILLED", "out of memory"
        return "FAILED", type(exc).__name__

    def _close(self, status: RunStatus, ended_by: str, *, waits: bool) -> DeliveryReport:
        if self._report is not None:
            return self._report
        if not self._is_owner or os.getpid() != self._pid:
            return self._close_stream()
        closing_s = now_monotonic_s()
        elapsed_s = closing_s - self._started_s
        self._stored_count = self._stream.stored_count()
        self._kept_count = self._stored_count + self._stream.kept_elsewhere
        overhead = self._overhead_ratio(elapsed_s)
        self._write_spec()
        self._stream.close(
            lambda slots: RunEnded(
                timestamp_ns=now_ns(),
                status=status,
                slots=slots,
                ended_by=ended_by,
                overhead_ratio=overhead,
            )
        )
        self._on_close(self)
        self._respawn(is_forced=True)
        state = interrupt = None
        if waits and not self.settings.is_offline and self._folder is not None:
            try:
                state = self._drain()
            except KeyboardInterrupt as exc:
                interrupt = exc  # whoever presses Ctrl-C wants to leave, and the records are safe
        state = state or self.status()
        if state is not None and not self._is_ours(state):
            state = None
        report = self._make_report(state, status, elapsed_s, closing_s, overhead)
        self._report = report
        self._tell(report)
        if interrupt is not None:
            raise interrupt
        if self.settings.strict and report.ledger.lost:
            raise DeliveryError(report.line(), kind=ErrorKind.UNDELIVERED, report=report)
        return report

    def _close_stream(self) -> DeliveryReport:
        self._stream.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
        self._on_close(self)
        elapsed_s = now_monotonic_s() - self._started_s
        report = self._make_report(None, "RUNNING", elapsed_s, now_monotonic_s(), None)
        self._report = report
        return report

    # --- inner ----------------------------------------------------------------------------------

    def _drain(self) -> RunState | None:
        timeout_s = self.settings.exit_timeout_s
        started_s = now_monotonic_s()
        shows = self.settings.log_level != "error" and is_terminal(sys.stderr)
        shown_s = PROGRESS_AFTER_S - PROGRESS_EVERY_S
        goes_on = self.settings.worker == "process"  # a thread has nobody to hand over to

        def is_over(state: RunState) -> bool:
            nonlocal shown_s
            if not self._is_ours(state):
                return False
            waited_s = now_monotonic_s() - started_s
            if shows and waited_s - shown_s >= PROGRESS_EVERY_S:
                shown_s = waited_s
                text = (
                    f"allele-mlflow: {state.ledger.pending:,} records to deliver, {waited_s:.0f} s"
                )
                write(sys.stderr, f"\r{text:<70}")
            rate = state.delivered_per_s
            if (
                rate
                and goes_on
                and state.end is not None
                and state.ledger.pending / rate > timeout_s - waited_s
            ):
                return True  # it would not be enough: hand over now
            return state.done

        try:
            state = self._wait(is_over, timeout_s)
            if state is not None and state.done and not goes_on:
                folder, left_s = str(self._folder), timeout_s + started_s - now_monotonic_s()
                self._wait(lambda _: not os.path.exists(folder), min(left_s, PUT_AWAY_S))
            return state
        finally:
            if shows and shown_s >= PROGRESS_AFTER_S:
                write(sys.stderr, "\r" + " " * 70 + "\r")

    def _is_ours(self, state: RunState) -> bool:
        """
        Whether it tells of our part of the run, and not of the one that we resumed.
        """
        return state.part_ns in (0, self._part_ns)

    def _make_report(
        self,
        state: RunState | None,
        status: str,
        elapsed_s: float,
        closing_s: float,
        overhead: float | None,
    ) -> DeliveryReport:
        is_complete = state is not None and state.done
        ledger = Ledger()
        if state is not None:
            ledger.add(state.ledger)
        if not self._is_owner:
            ledger = self._own_counts()
        elif not is_complete:
            ledger = self._counted() or ledger
        return DeliveryReport(
            experiment=self.experiment,
            run_uid=self.run_uid,
            run_id=state.run_id if state else None,
            run_url=state.run_url if state else None,
            status=status,
            ledger=ledger,
            is_complete=is_complete,
            elapsed_s=elapsed_s,
            waited_s=now_monotonic_s() - closing_s,
            overhead_ratio=overhead,
            spool=self._folder.parent.parent.parent if self._folder is not None else None,
            last_error=state.last_error if state else None,
            is_offline=self.settings.is_offline,
            is_alone=self.settings.worker == "thread",
            needed_uri=self._needed_uri(),
        )

    def _needed_uri(self) -> str | None:
        if self.settings.is_offline:
            return "URI"
        masked = mask_secrets(self.settings.tracking_uri)
        return masked if masked != self.settings.tracking_uri else None

    def _counted(self) -> Ledger | None:
        """
        The ledger from the spool's files, or without a spool from our own counters.
        """
        found = count_ledger(self._folder, is_exact=False) if self._folder is not None else None
        if found is not None:
            return found
        ledger = Ledger()
        if self._folder is not None:  # somebody deleted it; what was delivered before is not known
            ledger.dropped["spool_deleted"] = max(0, self._kept_count - self._last_delivered)
            if self._last_delivered:
                ledger.delivered["metric"] = self._last_delivered
        ledger.add(self._own_counts())
        return ledger

    def _own_counts(self) -> Ledger:
        """
        What this process refused or dropped.
        """
        ledger = Ledger()
        for reason, number in self._stream.counters.as_dict().items():
            outcome, _, name = reason.partition(".")
            (ledger.rejected if outcome == "rejected" else ledger.dropped)[name] = number
        return ledger

    def _is_spool_gone(self) -> bool:
        if self._folder is None:
            return False
        try:
            os.stat(self._folder.parent.parent)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # it cannot be looked at now
        return False

    def _write_spec(self) -> None:
        """
        Write the run's description where that was not possible yet: without it nobody delivers.
        """
        spec = self._unwritten_spec
        if spec is None or self._folder is None:
            return
        try:
            spool.write_struct(self._folder / spool.RUN_FILE, spec)
        except OSError as exc:
            self._mistakes.warn_once(
                "spool",
                f"the run's description cannot be written into {self._folder} ({exc.strerror}): "
                "its records wait until it can",
            )
        else:
            self._unwritten_spec = None

    def _tell(self, report: DeliveryReport) -> None:
        budget = self.settings.overhead_budget_percent
        if report.overhead_ratio is not None and report.overhead_ratio * 100 > budget:
            warn(
                f"logging took {report.overhead_ratio * 100:.1f} % of the run, over the budget "
                f"of {budget:g} %; log less often, or arrays with series()"
            )
        if self.settings.log_level == "error" or not is_terminal(sys.stderr):
            return
        for line in report.lines():
            write(sys.stderr, f"allele-mlflow: {line}\n")

    def _overhead_ratio(self, elapsed_s: float) -> float | None:
        from allele_mlflow.queue.calibration import seconds_per_call  # only at the end

        if elapsed_s < 0.05:
            return None
        # in a loop that does nothing but log, the estimate may come out above the whole
        return min(1.0, self._stored_count * seconds_per_call() / elapsed_s)

    def _pairs(self, call: str, mapping: Mapping[str, Any]) -> list[tuple[str, Any]]:
        try:
            return [(key, value) for key, value in mapping.items()]
        except Exception as exc:  # noqa: BLE001 - the log call's border: the mapping is the caller's code
            self._stream.reject(
                "bad_value", call, "", mapping, f"want names and values: {plain.said(exc)}"
            )
            return []

    def _text(
        self,
        kind: str,
        key: str,
        value: Any,
        longest: int,
        event_type: Callable[..., ParamLogged | TagSet],
    ) -> None:
        problem = limits.check_key(key)
        if problem is not None:
            self._stream.reject("bad_key", kind, key, value, problem)
            return
        try:
            text = str(value)
        except Exception as exc:  # noqa: BLE001 - the log call's border: __str__ is the caller's code
            self._stream.reject("bad_value", kind, key, value, f"want text: {plain.said(exc)}")
            return
        key = str.__str__(key)  # a class of its own (StrEnum, NumPy's) has no place in a frame
        text = text.encode("utf-8", "replace").decode()
        if len(text) > longest:
            # of the value too: a param's first value stands, whatever comes later
            name = f"{snapshots.file_name_for(key)}-{content_hash(text)[:8]}.txt"
            artifact = f"allele/long_values/{kind}s/{name}"
            self.text(text, artifact)
            note = f" ... [{len(text)} characters; whole in artifact {artifact}]"
            text = text[: longest - len(note)] + note
        self._stream.event(event_type(timestamp_ns=now_ns(), key=key, value=text))
        self._slow_point()

    def _keep_bytes(self, call: str, artifact_file: str, encode: Callable[[], bytes]) -> bool:
        return self._keep(
            call,
            artifact_file,
            lambda folder: snapshots.snapshot_bytes(encode(), artifact_file, folder),
        )

    def _keep(
        self, call: str, artifact_file: str, take: Callable[[Path], snapshots.Snapshot]
    ) -> bool:
        """
        Copy what becomes an artifact and say so in the event lane; whether it is there.
        """
        problem = snapshots.artifact_problem(artifact_file) or self._artifacts.clash(artifact_file)
        if problem is not None:
            self._stream.reject("bad_artifact", call, artifact_file, "", problem)
            return False
        refusal = "dropped.closed" if self._stream.is_closed else self._stream.room_refusal(0)
        if refusal is not None or self._folder is None:
            self._stream.drop(refusal or "dropped.no_spool")
            return False
        try:
            snapshot = take(self._folder / spool.ARTIFACTS)
        except snapshots.Unusable as exc:
            self._stream.reject("bad_artifact", call, artifact_file, "", str(exc))
            return False
        except OSError as exc:
            self._stream.drop(reason_of(exc))
            return False
        refusal = self._stream.room_refusal(snapshot.size_bytes if snapshot.copied else 0)
        if refusal is not None:
            snapshots.discard(snapshot, self._folder / spool.ARTIFACTS)
            self._stream.drop(refusal)
            return False
        self._artifacts.add(artifact_file)
        event = ArtifactAdded(
            timestamp_ns=now_ns(), artifact_path=artifact_file, **snapshot._asdict()
        )
        is_kept = self._stream.event(event)
        self._slow_point()
        return is_kept

    def _wait(self, is_over: Callable[[RunState], bool], timeout_s: float) -> RunState | None:
        deadline_s = now_monotonic_s() + timeout_s
        while True:
            state = self.status()
            if state is not None and is_over(state):
                return state
            if now_monotonic_s() >= deadline_s or self._folder is None or self._is_spool_gone():
                return None
            self._slow_point()
            pause_s(WAIT_POLL_S)

    def _slow_point(self) -> None:
        now_s = now_monotonic_s()
        if now_s - self._looked_s >= RESPAWN_EVERY_S:
            self._looked_s = now_s
            if self._is_spool_gone():
                self._mistakes.warn_once(
                    "spool gone", f"{self._folder} was deleted: what is logged now is lost"
                )
                return
            with contextlib.suppress(OSError):  # we are inside the benchmark's calls
                self._write_spec()
                self._respawn()
            if self._notices.is_wanted and self._is_delivered_live:
                self._notices.look(self.status(), now_s)

    @property
    def _is_delivered_live(self) -> bool:
        return not self.settings.is_offline and (
            self.settings.delivery == "live" or self._stream.is_closed
        )

    def _may_launch(self) -> bool:
        """
        Whether a sidecar that we start would deliver to the run's own store.
        """
        if self._is_owner or self._folder is None:
            return self._is_owner
        return profile_of(self._folder.parent.parent, self.settings) == self._profile

    def _respawn(self, *, is_forced: bool = False) -> None:
        """
        Start a sidecar where there is none.
        """
        if self._folder is None or not (self._may_launch() or is_forced):
            return
        scope = self._folder.parent.parent
        if is_locked(lock_path(scope, self._profile)):
            return
        now_s = now_monotonic_s()
        if now_s - self._launched_s < START_S:
            return  # on its way: it has no lock yet
        self._launched_s = now_s
        try:
            launch.ensure_sidecar(scope, self._profile, self.settings)
        except (SidecarError, OSError) as exc:
            self._mistakes.warn_once("sidecar", str(exc))


def _run_status(status: object) -> RunStatus:
    """
    The status in MLflow's spelling, FINISHED where none is given.
    """
    if status is None:
        return "FINISHED"
    text = status.upper() if isinstance(status, str) else ""
    for known in get_args(RunStatus):
        if text == known:
            return cast(RunStatus, known)
    raise RecordError(
        f"status={plain.shown(status)}: want one of {', '.join(get_args(RunStatus))}",
        kind=ErrorKind.BAD_VALUE,
        status=plain.shown(status),
    )


def _text_bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise snapshots.Unusable(f"want text, got {type(text).__name__}")
    return text.encode("utf-8", "surrogatepass")
