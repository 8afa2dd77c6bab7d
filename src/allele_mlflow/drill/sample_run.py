"""
A run as a spool holds it in the middle of its life, and what of it must be found in MLflow.

Three processes logged: the owner closed its run, one that attached said farewell, one was killed.
A part is delivered, with cursors, lines of phases, errors and uploads beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from allele_mlflow.clock import now_ns
from allele_mlflow.drill.mutation import PAGE_BYTES, Span
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.events import encode_frame
from allele_mlflow.queue.run_reader import RunReader, count_ledger
from allele_mlflow.queue.writer import PHASE_PREFIX, StreamWriter
from allele_mlflow.records import (
    AnyEvent,
    ArtifactAdded,
    ErrorLogged,
    KeyDefined,
    Ledger,
    ParamLogged,
    RunEnded,
    RunId,
    RunSpec,
    RunState,
    StreamEnded,
    TagSet,
)
from allele_mlflow.sidecar.worker import Worker
from allele_mlflow.testing.memory_tracking import MemoryRun, MemoryTracking, MetricRow
from allele_mlflow.tracking.limits import LARGEST_VALUE, check_key

#: 64 slots: a roll every 64 records. A segment of series holds one page then.
SEGMENT_BYTES = layout.HEADER_BYTES + 64 * layout.RECORD_BYTES
TEMPLATE = "template"
EXPERIMENT = "damage"
DEADLINE_S = 60.0


class Place(NamedTuple):
    """
    Bytes of a file of the run's folder that a record depends on.
    """

    file: str
    span: Span


class Item(NamedTuple):
    """
    What must be in MLflow while none of its bytes was touched.
    """

    kind: str
    identity: Any
    places: tuple[Place, ...]


@dataclass(frozen=True)
class SampleRun:
    """
    The run, to be copied under other names.

    Attributes:
        files: Contents by path in the run's folder.
        stored: What MLflow holds of it already.
        items: Everything that it must hold in the end.
        ledger: Counted from the files.
        mutable: The files that may be damaged: all but the copies of artifacts.
    """

    files: dict[str, bytes]
    stored: MemoryRun
    items: tuple[Item, ...]
    ledger: Ledger
    mutable: tuple[str, ...]

    def copy_to(self, scope: Path, run_uid: str, tracking: MemoryTracking) -> dict[str, bytes]:
        """
        Put a copy into a spool and a store; the contents of its files.
        """
        run_id = RunId(run_uid * 2)
        files = dict(self.files)
        spec = msgspec.msgpack.decode(files[spool.RUN_FILE], type=RunSpec)
        state = msgspec.msgpack.decode(files[spool.STATE_FILE], type=RunState)
        state.run_uid, state.run_id = run_uid, run_id
        folder = scope / spool.RUNS / run_uid
        folder.mkdir(mode=0o700)
        spool.write_struct(folder / spool.RUN_FILE, msgspec.structs.replace(spec, run_uid=run_uid))
        spool.write_struct(folder / spool.STATE_FILE, state)
        for name in (spool.RUN_FILE, spool.STATE_FILE):
            files[name] = (folder / name).read_bytes()
        for name, data in files.items():
            write_sparse(folder / name, data)
        stored = self.stored
        tracking.runs[run_id] = replace(
            stored,
            run_id=run_id,
            experiment_id=tracking.ensure_experiment(EXPERIMENT, artifact_location=None),
            metrics=list(stored.metrics),
            params=dict(stored.params),
            tags=stored.tags | {"allele.run_uid": run_uid},
            latest=dict(stored.latest),
            artifacts=dict(stored.artifacts),
            _identities=set(stored.metrics),
        )
        return files


def write_sparse(path: Path, data: bytes) -> None:
    """
    Write a file, its empty pages as holes: most of a cursor is none.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, len(data), PAGE_BYTES):
            page = data[start : start + PAGE_BYTES]
            if any(page):
                file.seek(start)
                file.write(page)
        file.truncate(len(data))


def make_sample_run(folder: Path) -> SampleRun:
    """
    Log, deliver a part, and log more; `folder` is scratch.
    """
    scope = spool.open_scope(folder / "spool")
    run = scope / spool.RUNS / TEMPLATE
    run.mkdir(mode=0o700)
    writers = [_Hand(run, name) for name in ("owner", "guest", "killed")]
    owner, guest, killed = writers
    spec = RunSpec(
        run_uid=TEMPLATE,
        experiment=EXPERIMENT,
        created_ns=now_ns(),
        profile="p",
        owner_stream=owner.writer.stream_id,
        owner_pid=1,
        batch_size=100,
        run_name="sample",
        tags={"team": "drill"},
    )
    spool.write_struct(run / spool.RUN_FILE, spec)
    for hand in writers:
        hand.log_much("early")
    owner.writer.metric("refused", "no number")  # type: ignore[arg-type]  # that is the mistake
    tracking = MemoryTracking()
    deliver(scope, tracking)
    owner.add_artifact("waiting")
    _read_artifact(run, spec)
    for hand in writers:
        hand.log_much("late")
    owner.end_phase()
    owner.writer.close(
        lambda slots: RunEnded(timestamp_ns=now_ns(), status="FINISHED", slots=slots)
    )
    guest.writer.close(lambda slots: StreamEnded(timestamp_ns=now_ns(), slots=slots))
    files = {
        str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()
    }
    killed.writer.close()
    (stored,) = tracking.runs.values()
    return SampleRun(
        files=files,
        stored=stored,
        items=(*_items_of_store(stored), *_items_of_files(files)),
        ledger=count_ledger(run) or Ledger(),
        mutable=tuple(sorted(name for name in files if not name.startswith(spool.ARTIFACTS))),
    )


class Delivered(NamedTuple):
    """
    How a delivery went wrong: what a run failed with in the sidecar, and the runs that were not
    through within the deadline.
    """

    failures: dict[str, str]
    overdue: set[str]


def deliver(scope: Path, tracking: MemoryTracking, *, deadline_s: float = DEADLINE_S) -> Delivered:
    """
    Deliver what a spool holds as `sync` does.
    """
    worker = Worker(scope, None, connect=lambda: tracking, idle_timeout_s=0.0, is_drain=True)
    overdue: set[str] = set()

    async def watch() -> None:
        await anyio.sleep(deadline_s)
        overdue.update(worker.deliveries)
        worker.stop()

    async def serve() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await worker.serve()
            group.cancel_scope.cancel()

    anyio.run(serve)
    return Delivered(worker.failures, overdue)


class _Hand:
    """
    One process that logs into the run.
    """

    def __init__(self, run: Path, name: str) -> None:
        self.writer = StreamWriter(run, check_key=check_key, segment_bytes=SEGMENT_BYTES)
        self._run = run
        self._name = name
        self._phase = self._phase_step = 0
        self._step = 0

    def log_much(self, part: str) -> None:
        """
        Records of every kind; one phase is left open.
        """
        writer = self.writer
        self.end_phase()
        first = self._step
        begun = writer.phase_edge(f"{self._name}-short", first)
        for _ in range(100):
            writer.metric(f"{self._name}/{self._step % 3}", self._step + 0.5, self._step)
            self._step += 1
        values = [float(number) for number in range(700)]
        writer.series(f"{self._name}/{part}", values, first_step=self._step)
        writer.phase_edge(f"{self._name}-short", first, begun)
        self._phase_step = self._step
        self._phase = writer.phase_edge(f"{self._name}-long", self._phase_step)
        for number in range(3):
            key = f"{self._name}.{part}.{number}"
            writer.event(ParamLogged(timestamp_ns=now_ns(), key=key, value="p" * number))
            writer.event(TagSet(timestamp_ns=now_ns(), key=key, value=f"{number}"))
        self._log_error(part)
        self.add_artifact(part)
        writer.metric(f"{self._name}/new in {part}", math.inf, self._step)

    def end_phase(self) -> None:
        if self._phase:
            self.writer.phase_edge(f"{self._name}-long", self._phase_step, self._phase)
            self._phase = 0

    def _log_error(self, part: str) -> None:
        error = ErrorLogged(
            timestamp_ns=now_ns(),
            category="numeric",
            error_type="ZeroDivisionError",
            message=f"{self._name} {part}",
            traceback="...\n",
            fingerprint=f"{self._name}{part}",
        )
        self.writer.event(error)

    def add_artifact(self, part: str) -> None:
        name = f"{self._name}-{part}.txt"
        copied = self._run / spool.ARTIFACTS / name
        copied.parent.mkdir(mode=0o700, exist_ok=True)
        copied.write_text(name, encoding="ascii")
        artifact = ArtifactAdded(
            timestamp_ns=now_ns(),
            artifact_path=f"files/{name}",
            source=name,
            copied=True,
            size_bytes=len(name),
        )
        self.writer.event(artifact)


def _read_artifact(run: Path, spec: RunSpec) -> None:
    """
    What a sidecar does that is killed before it uploads an artifact that it has read.
    """
    reader = RunReader(run, spec)
    for stream, chunk in reader.read(100):
        for event, end in chunk.events:
            assert isinstance(event, ArtifactAdded)
            reader.uploads.add(event, stream=stream.stream_id, end=end)
        stream.commit(Ledger())
    reader.close()


# --- what must arrive ---------------------------------------------------------------------------


def _items_of_store(stored: MemoryRun) -> Iterator[Item]:
    yield from (Item("metric", row, ()) for row in stored.metrics)
    yield from (Item("param", pair, ()) for pair in stored.params.items())
    yield from (
        Item("tag", pair, ())
        for pair in stored.tags.items()
        if not pair[0].startswith(("allele.", "mlflow."))
    )
    yield from (
        Item("artifact", pair, ())
        for pair in stored.artifacts.items()
        if not pair[0].startswith("allele/")
    )


def _items_of_files(files: dict[str, bytes]) -> Iterator[Item]:
    """
    What the files hold: of an event that was read and kept in a line, the line counts.
    """
    in_lines = list(_items_of_lines(files))
    yield from in_lines
    known = {(item.kind, item.identity) for item in in_lines}
    begun = {
        (line["begin"]["stream_id"], line["begin"]["instance"]): place
        for place, line in _lines(files, spool.PHASES_FILE)
        if "begin" in line
    }
    streams = sorted({name.split("/")[1] for name in files if name.startswith(spool.STREAMS)})
    for stream in streams:
        lines: dict[int, tuple[Place, ...]] = {
            number: (place,) for (its, number), place in begun.items() if its == stream
        }
        for item in _items_of_stream(files, stream, lines):
            if (item.kind, item.identity) not in known:
                yield item


def _items_of_lines(files: dict[str, bytes]) -> Iterator[Item]:
    for place, line in _lines(files, spool.ERRORS_FILE):
        yield Item("error", line["message"], (place,))
    for place, line in _lines(files, spool.PHASES_FILE):
        if "row" in line:
            span = line["row"]["span"]
            yield Item("phase", (span["stream_id"], span["name"], span["step"]), (place,))
    waiting: dict[int, Item] = {}
    for place, line in _lines(files, spool.UPLOADS_FILE):
        if "artifact" in line:
            artifact = msgspec.convert(line["artifact"], ArtifactAdded)
            waiting[line["number"]] = Item("artifact", _file_of(artifact, files), (place,))
        else:
            waiting.pop(line["number"], None)
    yield from waiting.values()


def _lines(files: dict[str, bytes], name: str) -> Iterator[tuple[Place, Any]]:
    start = 0
    for line in files[name].splitlines(keepends=True):
        yield Place(name, Span(start, start + len(line))), msgspec.json.decode(line)
        start += len(line)


def frames_of(log: bytes) -> Iterator[tuple[Span, AnyEvent]]:
    """
    Every frame of a whole event log.
    """
    start = 0
    while start < len(log):
        _, length, _ = layout.FRAME_HEAD.unpack_from(log, start)
        end = start + layout.FRAME_HEAD.size + length
        payload = log[start + layout.FRAME_HEAD.size : end]
        yield Span(start, end), msgspec.msgpack.decode(payload, type=AnyEvent)
        start = end


def _items_of_stream(
    files: dict[str, bytes], stream: str, begun: dict[int, tuple[Place, ...]]
) -> Iterator[Item]:
    """
    Args:
        files: Of the run.
        stream: Its name.
        begun: By instance the lines of phases whose begin was delivered.
    """
    folder = f"{spool.STREAMS}/{stream}"
    log = f"{folder}/{layout.EVENT_LOG}"
    keys: dict[int, tuple[str, Place]] = {}
    for span, event in frames_of(files[log]):
        place = Place(log, span)
        assert files[log][span.start : span.end] == encode_frame(event)
        match event:
            case KeyDefined(key_id=key_id, name=name):
                keys[key_id] = name, place
            case ParamLogged(key=key, value=value):
                yield Item("param", (key, value), (place,))
            case TagSet(key=key, value=value):
                yield Item("tag", (key, value), (place,))
            case ErrorLogged(message=message):
                yield Item("error", message, (place,))
            case ArtifactAdded() if f"{spool.ARTIFACTS}/{event.source}" in files:
                yield Item("artifact", _file_of(event, files), (place,))
    for name in sorted(name for name in files if name.startswith(folder)):
        parsed = layout.parse_segment_name(name.rpartition("/")[2])
        if parsed is not None and parsed[0] == layout.SERIES_LANE:
            yield from _items_of_pages(files[name], name, keys)
        elif parsed is not None:
            yield from _items_of_slots(files[name], name, stream, keys, begun)


def _items_of_slots(
    data: bytes,
    name: str,
    stream: str,
    keys: dict[int, tuple[str, Place]],
    begun: dict[int, tuple[Place, ...]],
) -> Iterator[Item]:
    for start in range(layout.HEADER_BYTES, len(data), layout.RECORD_BYTES):
        timestamp_ns, step, value, packed = layout.RECORD.unpack_from(data, start)
        word = layout.unpack_word(packed)
        place = Place(name, Span(start, start + layout.RECORD_BYTES))
        if word.kind in (0, layout.KIND_VOID):
            continue
        key, defined = keys[word.key_id]
        if word.kind == layout.KIND_METRIC:
            yield Item("metric", _row(key, timestamp_ns, step, value), (place, defined))
        elif word.kind == layout.KIND_PHASE_BEGIN:
            begun.setdefault(word.instance, (place, defined))
        else:
            places = (place, defined, *begun[word.instance])
            yield Item("phase", (stream, key.removeprefix(PHASE_PREFIX), step), places)


def _items_of_pages(data: bytes, name: str, keys: dict[int, tuple[str, Place]]) -> Iterator[Item]:
    for start in range(layout.HEADER_BYTES, len(data), layout.PAGE_BYTES):
        timestamp_ns, first, size, packed = layout.SERIES_HEAD.unpack_from(data, start)
        if not packed:
            continue
        body = start + layout.SERIES_VALUES_OFFSET
        head = Place(name, Span(start, body))
        key, defined = keys[layout.unpack_word(packed).key_id]
        values = memoryview(data)[body : body + 8 * size].cast("d")
        for index, value in enumerate(values):
            place = Place(name, Span(body + 8 * index, body + 8 * index + 8))
            row = _row(key, timestamp_ns, first + index, value)
            yield Item("metric", row, (place, head, defined))


def _file_of(artifact: ArtifactAdded, files: dict[str, bytes]) -> tuple[str, bytes]:
    # nothing: it is delivered, and its copy removed
    return artifact.artifact_path, files.get(f"{spool.ARTIFACTS}/{artifact.source}", b"")


def _row(key: str, timestamp_ns: int, step: int, value: float) -> MetricRow:
    if math.isinf(value):
        value = math.copysign(LARGEST_VALUE, value)
    return MetricRow(key, timestamp_ns // 1_000_000, step, value, False)
