"""
All readings of the keys that `SAMPLING` thins: kept in the run's folder as they are read, uploaded
as one artifact when the run ends.

One file a stream, a line for each piece that was read, appended before the cursor says that its
records are dealt with. A sidecar that takes over cuts off what its cursor does not know: it reads
that again. Where the disk is full nothing is thinned, so there is nothing to keep.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.queue import spool
from allele_mlflow.queue.lines import LineFile, private
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.records import Reading
from allele_mlflow.resolution import Rule, find_rule
from allele_mlflow.sidecar.thinning import KeyState, Thinned, Thinner

_STATES = msgspec.msgpack.Decoder(dict[str, KeyState])
COLUMNS = ("key", "step", "timestamp_ms", "value")
#: Rows of a Parquet row group: 36 MB of columns while it is written.
ROWS_PER_GROUP = 1_000_000


class _Line(msgspec.Struct, frozen=True):
    """
    Some readings of a stream in columns, and how far their keys are after them.

    `before` is how many records of the stream were dealt with when they were read: the cursor that
    knows of them knows of more. `states` is MessagePack, for JSON has no NaN.
    """

    before: int
    keys: list[str]
    key_numbers: bytes
    steps: bytes
    timestamps_ms: bytes
    values: bytes
    states: bytes

    def readings(self) -> Iterator[Reading]:
        """
        The rows, in the order in which they were read.
        """
        columns = (
            _column("I", self.key_numbers),
            _column("d", self.values),
            _column("q", self.timestamps_ms),
            _column("q", self.steps),
        )
        for number, *rest in zip(*columns, strict=True):
            yield Reading(self.keys[number], *rest)


class FullReadings:
    """
    The thinning of one run, and what it keeps. For the event loop, but for `write`.

    Args:
        folder: The run's folder.
        rules: Of the run; without any, nothing here does anything.
        is_durable: Write each piece through to the disk before its records count as dealt with.
    """

    def __init__(self, folder: Path, rules: tuple[Rule, ...], *, is_durable: bool = False) -> None:
        self.folder = folder / spool.READINGS
        self._rules = rules
        self._is_durable = is_durable
        self._streams: dict[str, tuple[Thinner, LineFile]] = {}
        self._written_rows = -1
        #: What `write` could not read, in words.
        self._damage: list[str] = []
        self._rows = int(bool(rules) and self.folder.is_dir())

    @property
    def damage(self) -> list[str]:
        """
        What could not be read so far, in words.
        """
        opened = [text for _, file in self._streams.values() for text in file.damage]
        return [*opened, *self._damage]

    @property
    def has_news(self) -> bool:
        """
        Whether there are readings that the last `write` did not write.
        """
        return bool(self._rows) and self._rows != self._written_rows

    def is_thinned(self, key: str) -> bool:
        """
        Whether a key has a rule.
        """
        return find_rule(self._rules, key) is not None

    def thin(self, stream: StreamReader, readings: list[Reading]) -> Thinned:
        """
        Take in what was read from a stream, and keep all of it that a rule is for.
        """
        if not self._rules:
            return Thinned(shown=readings)
        thinner, file = self._opened(stream)
        if file.has_unwritten:  # no room: MLflow gets them all
            return Thinned(shown=readings)
        found = thinner.take(readings)
        if not found.ruled:
            return found
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
        if not file.append(_line_of(found, before=stream.totals.accepted)):
            return Thinned(shown=readings)
        if self._is_durable:
            _write_through(file.path)
        self._rows += len(found.ruled)
        return found

    def finish(self, streams: Iterable[StreamReader]) -> list[Reading]:
        """
        What MLflow is to be shown of these at the end of the run; see `Thinner.finish`.
        """
        if not self.folder.is_dir():
            return []
        thinners = [self._opened(stream)[0] for stream in streams if not stream.is_sampler]
        return [reading for thinner in thinners for reading in thinner.finish()]

    def write(self, folder: Path) -> Path:
        """
        Write the artifact: Parquet where pyarrow is there, else CSV, compressed. Blocks.

        Columns: `COLUMNS`; of each stream in the order in which they were read.

        Raises:
            OSError: it cannot be written.
        """
        self._written_rows = self._rows
        is_parquet = _has_pyarrow()
        path = folder / (spool.READINGS_PARQUET if is_parquet else spool.READINGS_CSV)
        partial = path.with_name(f".{path.name}")
        files = [LineFile(one) for one in sorted(self.folder.iterdir())]
        lines = (line for file in files for line in file.read(_Line))
        try:
            (_write_parquet if is_parquet else _write_csv)(partial, lines)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self._damage = [text for file in files for text in file.damage]
        return path

    def _opened(self, stream: StreamReader) -> tuple[Thinner, LineFile]:
        if stream.stream_id not in self._streams:
            file = LineFile(self.folder / stream.stream_id)
            states: dict[str, KeyState] = {}
            if stream.totals.recounted_from is None:
                file.cut(_Line, lambda line: line.before < stream.totals.accepted)
            for line in file.read(_Line):
                states.update(_STATES.decode(line.states))
            self._streams[stream.stream_id] = Thinner(self._rules, states), file
        return self._streams[stream.stream_id]


def _line_of(found: Thinned, *, before: int) -> _Line:
    numbers = {key: number for number, key in enumerate(found.states)}
    return _Line(
        before=before,
        keys=list(numbers),
        key_numbers=array("I", [numbers[reading.key] for reading in found.ruled]).tobytes(),
        steps=array("q", [reading.step for reading in found.ruled]).tobytes(),
        timestamps_ms=array("q", [reading.timestamp_ms for reading in found.ruled]).tobytes(),
        values=array("d", [reading.value for reading in found.ruled]).tobytes(),
        states=msgspec.msgpack.encode(found.states),
    )


def _has_pyarrow() -> bool:
    try:
        import pyarrow.parquet  # noqa: F401 - whether it can be imported
    except ImportError:
        return False
    return True


def _write_csv(path: Path, lines: Iterable[_Line]) -> None:
    # no time in the header, so equal readings are equal files
    with (
        open(path, "wb", opener=private) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerows((r.key, r.step, r.timestamp_ms, r.value) for r in line.readings())


def _write_parquet(path: Path, lines: Iterable[_Line]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = (pyarrow.string(), pyarrow.int64(), pyarrow.int64(), pyarrow.float64())
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with (
        open(path, "wb", opener=private) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        waiting: list[Any] = []
        for line in lines:
            numbers = pyarrow.array(_column("I", line.key_numbers), pyarrow.uint32())
            keys = pyarrow.array(line.keys, pyarrow.string()).take(numbers)
            steps, times = (_column("q", data) for data in (line.steps, line.timestamps_ms))
            columns = [keys, steps, times, _column("d", line.values)]
            columns = [pyarrow.array(c, kind) for c, kind in zip(columns, kinds, strict=True)]
            waiting.append(pyarrow.record_batch(columns, schema=schema))
            if sum(batch.num_rows for batch in waiting) >= ROWS_PER_GROUP:
                writer.write_table(pyarrow.Table.from_batches(waiting))
                waiting = []
        writer.write_table(pyarrow.Table.from_batches(waiting, schema=schema))


def _column(kind: str, data: bytes) -> array[Any]:
    column = array(kind)
    column.frombytes(data)
    return column


def _write_through(path: Path) -> None:
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
