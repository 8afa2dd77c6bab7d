"""
The file of a SQLite store, looked at without making one.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from allele_mlflow.cli.checks.findings import Finding, good, note, unusable
from allele_mlflow.cli.checks.folders import can_write, nearest_existing

CHECK = "database"
#: A writer that holds it so long is no short transaction.
LOCK_PATIENCE_S = 2.0
_MAGIC = b"SQLite format 3\x00"


def check_database_file(path: Path) -> list[Finding]:
    """
    Whether a local store can be opened for writing, or made where it is missing.

    Args:
        path: A SQLite file, or the folder of a file store.
    """
    if not path.exists():
        return [_check_maker(path, f"{path} is not there yet")]
    if path.is_dir():
        if can_write(path):
            return [good(CHECK, f"{path} is a folder that can be written")]
        return [unusable(CHECK, f"{path} cannot be written", f"chmod u+w {path}")]
    if path.stat().st_size == 0:
        return [_check_maker(path, f"{path} is empty")]
    return [_check_file(path)]


def _check_maker(path: Path, what: str) -> Finding:
    nearest = nearest_existing(path.parent)
    if can_write(nearest):
        return note(CHECK, f"{what}: the first run will make it; {nearest} can be written")
    remedy = f"chmod u+w {nearest}, or set ALLELE_MLFLOW_TRACKING_URI to a file elsewhere"
    return unusable(CHECK, f"{what}, and {nearest} cannot be written", remedy)


def _check_file(path: Path) -> Finding:
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as exc:
        return unusable(CHECK, f"{path} cannot be read: {exc.strerror}", f"chmod u+rw {path}")
    if head != _MAGIC:
        remedy = "set ALLELE_MLFLOW_TRACKING_URI to a database, or move this file away"
        return unusable(CHECK, f"{path} is no SQLite database", remedy)
    if not os.access(path, os.W_OK):
        return unusable(CHECK, f"{path} is read-only", f"chmod u+w {path}, or have it remounted")
    if not can_write(path.parent):
        # the journal stands beside it
        remedy = f"chmod u+w {path.parent}: SQLite keeps its journal beside the file"
        return unusable(CHECK, f"the folder of {path} is read-only", remedy)
    return _check_lock(path)


def _check_lock(path: Path) -> Finding:
    uri = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=LOCK_PATIENCE_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as exc:
        if "locked" in str(exc):
            text = f"{path} is locked: another program has been writing for {LOCK_PATIENCE_S:g} s"
            remedy = f"wait, or end that program (`fuser {path}` names it); records wait meanwhile"
            return unusable(CHECK, text, remedy)
        remedy = f"restore it from a backup, or look with `sqlite3 {path} 'PRAGMA integrity_check'`"
        return unusable(CHECK, f"{path}: {exc}", remedy)
    size_mb = path.stat().st_size / 1e6
    return good(CHECK, f"{path} can be written and is not locked; {size_mb:.1f} MB")
