"""
Copies into the spool of what a caller hands over as an artifact: files, text, JSON, tables,
figures.

Everything is on disk before the call returns, so the caller may change or remove what it gave.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.queue import spool

FICLONE = 0x40049409
TABLE_SUFFIXES = (".csv", ".json", ".parquet")


class Snapshot(NamedTuple):
    """
    One file as it is queued: a name in the run's artifact folder, or a path where it was too large.
    """

    source: str
    copied: bool
    size_bytes: int
    mtime_ns: int


class Unusable(ValueError):
    """
    The caller's thing cannot become an artifact; the text says what was wanted.
    """


def snapshot_file(path: Path, folder: Path, *, copy_max_bytes: int) -> Snapshot:
    """
    Copy a file into the artifact folder (as a reflink where the file system can), or note where it
    is.

    Raises:
        Unusable: not a file that can be read.
        OSError: no room in the spool.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for its other end
            raise Unusable(f"want a file or folder, got something else at {str(path)!r}")
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise Unusable(f"want a file that can be read: {exc.strerror}") from exc
    try:
        if found.st_size > copy_max_bytes:
            return Snapshot(str(path.absolute()), False, found.st_size, found.st_mtime_ns)
        name = f"{spool.new_uid()}-{_file_name(path)}"
        with _new_file(folder, name) as target:
            # MLflow's local store hands the mode on to the artifact
            os.fchmod(target, stat.S_IMODE(found.st_mode) | 0o600)
            try:
                fcntl.ioctl(target, FICLONE, source)
            except OSError:
                with (
                    os.fdopen(os.dup(source), "rb") as reader,
                    os.fdopen(os.dup(target), "wb") as writer,
                ):
                    shutil.copyfileobj(reader, writer, 1 << 20)
        return Snapshot(name, True, (folder / name).stat().st_size, found.st_mtime_ns)
    finally:
        os.close(source)


def snapshot_bytes(data: bytes, name: str, folder: Path) -> Snapshot:
    """
    Store bytes as an artifact file.

    Raises:
        OSError: no room in the spool.
    """
    stored = f"{spool.new_uid()}-{_file_name(Path(name))}"
    with _new_file(folder, stored) as target:
        spool.write_all(target, data)
    return Snapshot(stored, True, len(data), 0)


def files_below(path: Path) -> list[tuple[Path, str]]:
    """
    The files to upload for a path: itself, or with their sub-folders all that a folder holds.

    Raises:
        Unusable: there is no such file or folder.
    """
    if path.is_dir():
        found = sorted(entry for entry in path.rglob("*") if entry.is_file())
        return [(entry, entry.relative_to(path).as_posix()) for entry in found]
    if not path.exists():
        raise Unusable(f"want a file or folder that exists, got {str(path)!r}")
    return [(path, path.name)]


def encode_json(value: Any) -> bytes:
    """
    A value as indented JSON.

    Raises:
        Unusable: it holds what JSON does not know.
    """
    try:
        return msgspec.json.format(msgspec.json.encode(value, enc_hook=_to_plain), indent=2)
    except Exception as exc:
        raise Unusable(f"want something JSON knows: {exc}") from exc


def encode_table(table: Any, name: str) -> bytes:
    """
    A pandas DataFrame (or a mapping of columns) in the format that the file name says.

    `.json` is what MLflow's own `log_table` writes: {"columns": [...], "data": [[...]]}.

    Raises:
        Unusable: not a table, or a format that cannot be written here.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise Unusable(f"want a name that ends in one of {', '.join(TABLE_SUFFIXES)}, got {name!r}")
    if isinstance(table, dict):
        return _encode_columns(table, suffix)
    try:
        if suffix == ".csv":
            return str(table.to_csv(index=False)).encode()
        if suffix == ".json":
            return str(table.to_json(orient="split", index=False, date_format="iso")).encode()
        return bytes(table.to_parquet(index=False))
    except AttributeError as exc:
        raise Unusable(f"want a pandas DataFrame, got {type(table).__name__}") from exc
    except Exception as exc:
        raise Unusable(f"want a table that can be written as {suffix}: {exc}") from exc


def _encode_columns(columns: dict[Any, Any], suffix: str) -> bytes:
    try:
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
    except (TypeError, ValueError) as exc:
        raise Unusable(f"want columns of equal length: {exc}") from exc
    if suffix == ".json":
        return encode_json({"columns": list(columns), "data": rows})
    if suffix == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([list(columns), *rows])
        return text.getvalue().encode()
    raise Unusable("want a pandas DataFrame for .parquet, got a mapping")


def encode_figure(figure: Any, name: str) -> bytes:
    """
    A matplotlib or plotly figure in the format that the file name says.

    Raises:
        Unusable: neither, or a format that cannot be written here.
    """
    suffix = Path(name).suffix.lower()
    try:
        if hasattr(figure, "savefig"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix.lstrip(".") or "png")
            return buffer.getvalue()
        if hasattr(figure, "to_html"):
            if suffix == ".html":
                return str(figure.to_html(include_plotlyjs="cdn")).encode()
            if suffix == ".json":
                return str(figure.to_json()).encode()
            return bytes(figure.to_image(format=suffix.lstrip(".")))
    except Exception as exc:
        raise Unusable(f"want a figure that can be written as {suffix or 'png'}: {exc}") from exc
    raise Unusable(f"want a matplotlib or plotly figure, got {type(figure).__name__}")


def plain_genome(genome: Any) -> Any:
    """
    A deep, plain copy of a genome: what its `to_dict` gives, or itself, with NumPy scalars as
    numbers.

    Raises:
        Unusable: it holds what JSON does not know.
    """
    value = genome.to_dict() if hasattr(genome, "to_dict") else genome
    return msgspec.json.decode(encode_json(value))


def _to_plain(value: Any) -> Any:
    for method in ("tolist", "to_dict", "isoformat"):  # NumPy, pandas and genomes, dates
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"{type(value).__name__} is nothing that JSON knows")


def _file_name(path: Path) -> str:
    return path.name[-100:] or "artifact"


@contextlib.contextmanager
def _new_file(folder: Path, name: str) -> Iterator[int]:
    folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(folder / name, flags, 0o600)
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        raise
    finally:
        os.close(descriptor)
