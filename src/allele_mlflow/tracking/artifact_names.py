"""
An artifact is found under the path that the user gave, or refused: never kept under another name.

MLflow takes the last part of the path from the local file's own name, and over HTTP puts the path
into a URL as it is, so that `a#b.txt` is stored as `a`, with success.
"""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from allele_mlflow.errors import ErrorKind, PermanentTrackingError

#: All readings of what `SAMPLING` thinned: of our own artifacts the one thing that is large.
READINGS_FILES = ("readings.parquet", "readings.csv.gz")


def bad_artifact(artifact_path: str, reason: str) -> PermanentTrackingError:
    """
    The error for an artifact that no retry will help, to be raised by the caller.
    """
    return PermanentTrackingError(
        f"artifact {artifact_path!r}: {reason}",
        kind=ErrorKind.BAD_ARTIFACT,
        artifact_path=artifact_path,
    )


def check_artifact_path(artifact_path: str) -> None:
    """
    Refuse what is not the relative path of a file. (MLflow checks the folder alone.)

    Raises:
        PermanentTrackingError: an absolute path, or an empty, `.` or `..` part (BAD_ARTIFACT).
    """
    is_plain = posixpath.normpath(artifact_path) == artifact_path and artifact_path != "."
    # Two leading dots even as the start of a name: store/artifact/artifact_repo.py,
    # verify_artifact_path.
    if not is_plain or artifact_path.startswith(("/", "..")) or "\0" in artifact_path:
        raise bad_artifact(artifact_path, "want a relative path with no empty, '.' or '..' part")


def find_clash(root: Path, artifact_path: str) -> str | None:
    """
    Why a local artifact folder cannot hold a path: what stands in its way there; None if nothing.
    """
    for parent in PurePosixPath(artifact_path).parents:
        if str(parent) != "." and (root / parent).exists() and not (root / parent).is_dir():
            return f"{str(parent)!r} is a file of this run already"
    return "it is a folder of this run already" if (root / artifact_path).is_dir() else None


def needs_quoting(artifact_path: str) -> bool:
    """
    Whether the path has something in it that a URL gives a meaning to.
    """
    return any(character in "#?%" or not character.isprintable() for character in artifact_path)


def quoted_for_url(artifact_path: str) -> str:
    """
    The path as MLflow's HTTP artifact repository must be given it to store it as it is.

    Raises:
        PermanentTrackingError: the server refuses or alters such a name even so (BAD_ARTIFACT).

    Source: store/artifact/http_artifact_repo.py, log_artifact; utils/uri.py, validate_path_is_safe.
    """
    if "#" in artifact_path or unquote(artifact_path) != artifact_path:
        raise bad_artifact(
            artifact_path, "MLflow's server keeps no name with # or a %-escape in it"
        )
    if not artifact_path.isprintable():
        raise bad_artifact(artifact_path, "MLflow's server keeps no name with control characters")
    return quote(artifact_path)


@contextmanager
def named(file: Path, name: str) -> Iterator[Path]:
    """
    The file under another name, for as long as the block lasts.

    A symbolic link: it works across file systems, and unlike a hard link it changes nothing on a
    file that may be the user's own.
    """
    if file.name == name:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="allele-mlflow-") as folder:
        link = Path(folder) / name
        try:
            link.symlink_to(file.resolve())
        except OSError:
            shutil.copyfile(file, link)
        yield link
