"""
Which files of a run go, and whether its folder is its own alone. Pure.

Our own documents under `allele/` stay, for by them a run is compared, judged and run again. The
readings that `SAMPLING` thinned are no such document: they are what is large.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from urllib.parse import unquote, urlsplit

from allele_mlflow.records import OWN_ARTIFACTS
from allele_mlflow.registry.reachability import KnownRun
from allele_mlflow.tracking.artifact_names import READINGS_FILES


def unsafe_roots(runs: Iterable[KnownRun]) -> dict[str, str]:
    """
    Why it is not sure that a run's artifacts are its own alone, for those of which it is not.

    MLflow keeps a run's artifacts in `.../<run id>/artifacts`.
    """
    owners: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for run in runs:
        root = artifact_root(run.artifact_uri)
        owners.setdefault(root, []).append(run.run_id)
        is_own = root.endswith(f"/{run.run_id}/artifacts") and ".." not in root.split("/")
        if not is_own or not (root.startswith("/") or urlsplit(root).scheme):
            found[run.run_id] = f"its artifacts are at {run.artifact_uri!r}: no folder of its own"
    for root, ids in owners.items():
        theirs = [one for place in _parents(root) for one in owners.get(place, ())]
        if theirs or len(ids) > 1:
            for run_id in (*ids, *theirs):
                found[run_id] = "its artifacts are in one folder with another run's"
    return found


def artifact_root(uri: str) -> str:
    """
    An address of artifacts in one form: local folders as paths, no slash at the end.
    """
    if ":" not in uri:  # most are plain paths, and there are many
        return uri.rstrip("/")
    parts = urlsplit(uri)
    return (unquote(parts.path) if parts.scheme == "file" else uri).rstrip("/")


def is_kept_file(path: str) -> bool:
    """
    Whether a file of a run stays: one of our documents.
    """
    folder, _, name = path.rpartition("/")
    return folder.split("/")[0] == OWN_ARTIFACTS and name not in READINGS_FILES


def going_files(paths: Collection[str]) -> list[str]:
    """
    Those of a run's files that go.

    Old MLflow deletes from S3 whatever begins with a path. So a file stays whose path begins that
    of one that stays.
    """
    kept = [path for path in paths if is_kept_file(path)]
    return [p for p in paths if not is_kept_file(p) and not any(k.startswith(p) for k in kept)]


def going_paths(paths: Collection[str]) -> list[str]:
    """
    The same as few paths of files and folders.
    """
    going = set(going_files(paths))
    kept = [path for path in paths if path not in going]
    found: dict[str, None] = {}
    for path in sorted(going):
        folders = [path[:end] for end, letter in enumerate(path) if letter == "/"]
        free = (one for one in folders if not any(k.startswith(one) for k in kept))
        found[next(free, path)] = None
    return list(found)


def _parents(root: str) -> list[str]:
    return [root[:end] for end, letter in enumerate(root) if letter == "/" and end]
