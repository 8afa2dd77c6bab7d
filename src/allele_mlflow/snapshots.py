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
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.queue import plain, spool
from allele_mlflow.records import content_hash

FICLONE = 0x40049409
TABLE_SUFFIXES = (".csv", ".json", ".parquet")
#: Longest name of a file on the usual file systems.
NAME_BYTES = 255
#: Levels of what is fed that are kept.
DEEPEST = 20


class Snapshot(NamedTuple):
    """
    One file as it is queued: a name in the run's artifact folder, or a path where it was too large.
    """

    source: str
    copied: bool
    size_bytes: int
    mtime_ns: int


class FoundFile(NamedTuple):
    """
    One entry of what is to be kept: where it is, its name below the artifact folder, and why it
    cannot be kept.
    """

    path: Path
    name: str
    problem: str | None = None


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
            where = str(path.absolute())
            if not _is_utf8(where):  # the queue holds text
                raise Unusable(
                    f"too large to copy, and its path {where!r} is no UTF-8: use copy=True"
                )
            return Snapshot(where, False, found.st_size, found.st_mtime_ns)
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
        # MLflow's local store hands the mode on, and others may read what they may read of the user
        os.fchmod(target, 0o666 & ~spool.user_umask() | 0o600)
        spool.write_all(target, data)
    return Snapshot(stored, True, len(data), 0)


def discard(snapshot: Snapshot, folder: Path) -> None:
    """
    Remove a copy that is not wanted after all.
    """
    if snapshot.copied:
        with contextlib.suppress(OSError):
            (folder / snapshot.source).unlink()


def find_files(path: str | os.PathLike[str], *, leaving_out: Path | None) -> list[FoundFile]:
    """
    What there is to keep of a path: itself, or all that is in a folder and its sub-folders.

    Args:
        path: A file or folder.
        leaving_out: A folder that is passed over where it lies below.
    Returns:
        Files with their names, a folder's own name before theirs, in order; and entries that cannot
        be kept, with the reason.
    Raises:
        Unusable: there is no such file or folder.
    """
    if not os.fspath(path):
        raise Unusable("want a file or folder, got an empty path")
    top = Path(path)
    if not top.exists():
        raise Unusable(f"want a file or folder that exists, got {str(path)!r}")
    name = os.path.basename(os.path.abspath(top))  # a link's own name, as MLflow has it
    if not top.is_dir():
        return [FoundFile(top, name)]
    return [
        FoundFile(one, f"{name}/{one.relative_to(top).as_posix()}", problem)
        for one, problem in _walk(top, leaving_out.resolve() if leaving_out is not None else None)
    ]


def _walk(folder: Path, leaving_out: Path | None) -> Iterator[tuple[Path, str | None]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        yield folder, f"want a folder that can be read: {exc.strerror}"
        return
    for entry in entries:
        try:
            is_folder, is_link, is_file = entry.is_dir(), entry.is_symlink(), entry.is_file()
            is_left_out = is_folder and leaving_out is not None and entry.resolve() == leaving_out
        except OSError as exc:  # a folder that may be listed and not entered
            yield entry, f"want a file that can be read: {exc.strerror}"
            continue
        if is_folder and is_link:
            yield entry, "a link to a folder is not followed: want the folder itself"
        elif is_folder:
            if not is_left_out:
                yield from _walk(entry, leaving_out)
        elif is_file:
            yield entry, None
        else:
            yield entry, "want a file: a pipe, a device, or a link to nothing cannot be kept"


class ArtifactPaths:
    """
    The artifact paths that a logger has used, to find one that is a file and a folder at once.
    """

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def clash(self, artifact_file: str) -> str | None:
        """
        What is wrong with a path beside those before it, None where nothing is.
        """
        if artifact_file in self._folders:
            return f"{artifact_file!r} is a folder of this run already: want another name"
        above = next((one for one in _folders_of(artifact_file) if one in self._files), None)
        if above is not None:
            return f"{above!r} is a file of this run already: want another folder"
        return None

    def add(self, artifact_file: str) -> None:
        """
        Note a path.
        """
        self._files.add(artifact_file)
        self._folders.update(_folders_of(artifact_file))


def _folders_of(artifact_file: str) -> list[str]:
    parts = artifact_file.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def artifact_problem(artifact_file: object) -> str | None:
    """
    What is wrong with the path of an artifact in the run, None where nothing is.
    """
    if not isinstance(artifact_file, str) or not artifact_file:
        return "want the artifact's path in the run, e.g. 'plots/fitness.png'"
    parts = artifact_file.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\0" in artifact_file
        or "\\" in artifact_file
    ):
        return f"want a relative path without empty, '.' or '..' parts, got {artifact_file!r}"
    if not _is_utf8(artifact_file):  # a file name that is no UTF-8; MLflow's addresses are
        return f"want a path of UTF-8 text, got {artifact_file!r}"
    if any(len(part.encode()) > NAME_BYTES for part in parts):
        return f"want names of at most {NAME_BYTES} bytes, got {artifact_file!r}"
    return None


def file_name_for(key: str) -> str:
    """
    A path for the file of a param or tag: the key, or where a part is too long, its hash.
    """
    if all(len(part.encode()) <= NAME_BYTES - 4 for part in key.split("/")):
        return key
    return content_hash(key)[:32]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_json(value: Any) -> bytes:
    """
    A value as indented JSON.

    Raises:
        Unusable: it holds what JSON does not know.
    """
    try:
        return msgspec.json.format(msgspec.json.encode(value, enc_hook=_to_plain), indent=2)
    except Exception as exc:
        raise Unusable(f"want something JSON knows: {plain.said(exc)}") from exc


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
        raise Unusable(
            f"want a pandas DataFrame or a mapping of columns, got {type(table).__name__}"
        ) from exc
    except Exception as exc:
        raise Unusable(f"want a table that can be written as {suffix}: {plain.said(exc)}") from exc


def _encode_columns(columns: dict[Any, Any], suffix: str) -> bytes:
    try:
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
    except Exception as exc:
        raise Unusable(f"want columns of equal length: {plain.said(exc)}") from exc
    if suffix == ".json":
        return encode_json({"columns": list(columns), "data": rows})
    if suffix == ".csv":
        try:
            text = io.StringIO(newline="")
            csv.writer(text).writerows([list(columns), *rows])
            return text.getvalue().encode()
        except Exception as exc:
            raise Unusable(f"want cells that can be written: {plain.said(exc)}") from exc
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
        raise Unusable(
            f"want a figure that can be written as {suffix or 'png'}: {plain.said(exc)}"
        ) from exc
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


def plain_fields(thing: object) -> dict[str, Any]:
    """
    A plain copy of what an object or a mapping holds, nothing of which is the caller's any more.

    Of an object with `to_dict` what that gives, else its fields. NumPy scalars and arrays are
    numbers, enums their values, times ISO text; NaN stays. What is none of these is its `repr`, cut
    short.

    Raises:
        Unusable: it holds nothing, or itself.
    """
    if isinstance(thing, Mapping):
        source: Any = dict(thing)
    elif hasattr(thing, "to_dict"):
        source = thing.to_dict()
    elif hasattr(type(thing), "__dataclass_fields__") or isinstance(thing, msgspec.Struct):
        source = thing
    else:
        found = getattr(thing, "__dict__", {})
        source = {name: value for name, value in found.items() if not name.startswith("_")}
    copied = msgspec.to_builtins(source, enc_hook=_to_plain_or_text, str_keys=True)
    if not isinstance(copied, dict) or not copied:
        raise Unusable(f"want an object or a mapping with fields, got {type(thing).__name__}")
    return {_storable(str(name)): _storable(value) for name, value in copied.items()}


def _to_plain_or_text(value: Any) -> Any:
    try:
        return _to_plain(value)
    except Exception:  # noqa: BLE001 - the log call's border: its methods are the caller's code
        return plain.shown(value)


def _storable(value: Any, depth: int = 0) -> Any:
    """
    Plain data as an event can hold it: numbers of 64 bits, text that is Unicode, twenty levels.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict) and depth < DEEPEST:
        return {_storable(str(k)): _storable(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and depth < DEEPEST:
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if value is None or isinstance(value, (int, float)):
        return value
    return plain.shown(value)


def _to_plain(value: Any) -> Any:
    for method in ("tolist", "to_dict", "isoformat"):  # NumPy, pandas and genomes, dates
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"{type(value).__name__} is nothing that JSON knows")


def _file_name(path: Path) -> str:
    """
    A name for the copy that any file system and locale takes; the end of the file's own, to be
    recognised by.
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[-100:] or "artifact"


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
