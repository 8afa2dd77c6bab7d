"""
Finding spools and their runs, for the commands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.queue import spool, spool_index
from allele_mlflow.queue.run_reader import RunReader, count_ledger
from allele_mlflow.records import Ledger, RunSpec, RunState
from allele_mlflow.settings import DEFAULTS
from allele_mlflow.sidecar.profile import is_served


class SpooledRun(NamedTuple):
    """
    One run of a spool. `is_served`: a sidecar of its profile is alive. `is_described`: its
    `run.msgpack` can be read; else `spec` knows no more than its uid.
    """

    folder: Path
    spec: RunSpec
    state: RunState | None
    ledger: Ledger
    is_waiting: bool
    is_served: bool
    is_described: bool = True

    @property
    def name(self) -> str:
        """
        What a person calls it.
        """
        return self.spec.run_name or self.spec.run_uid


def find_spools(given: Path | None, setting: str) -> list[Path]:
    """
    The given spool; without one that of the settings, and the fallback in the user's state folder
    where there is one.

    Args:
        given: As on the command line, or None.
        setting: The setting `spool_dir`; need not exist.
    Raises:
        SettingsError: the given path is no spool.
    """
    if given is not None:
        _check_spool(given)
        return [given]
    first = Path(setting)
    # where `logger` goes when it cannot write to the first
    fallback = spool_index.state_folder() / "spool"
    return [first, fallback] if fallback != first and scopes(fallback) else [first]


def find_all_spools(setting: str) -> list[Path]:
    """
    Every spool of this user that is known: that of the settings, the fallback where there is one,
    and those of the index.
    """
    found = find_spools(None, setting)
    known = {os.path.realpath(folder) for folder in found}
    fallback = spool_index.state_folder() / "spool"
    others = [f for f in spool_index.registered() if str(f) not in known and f != fallback]
    return found + others


def describe_empty(what: str, spool_dir: Path) -> str:
    """
    A text on a spool where nothing waits, which says whether there is one at all.
    """
    return f"{what} in {spool_dir}" + ("" if scopes(spool_dir) else ": no spool there yet")


def scopes(spool_dir: Path) -> list[Path]:
    """
    The scopes of a spool: boots, hosts and PID namespaces that wrote into it.
    """
    if not spool_dir.is_dir():
        return []
    return sorted(folder for folder in spool_dir.iterdir() if (folder / spool.RUNS).is_dir())


def spooled_runs(spool_dir: Path, *, with_done: bool) -> Iterator[SpooledRun]:
    """
    The runs of a spool, oldest first; those that wait counted from their files.
    """
    for scope in scopes(spool_dir):
        served: dict[str, bool] = {}  # one look a profile: there may be thousands of runs
        folders = list((scope / spool.RUNS).iterdir())
        if with_done and (scope / spool.DONE).is_dir():
            folders += (scope / spool.DONE).iterdir()
        found = [run for folder in folders if (run := _read_run(folder, served)) is not None]
        yield from sorted(found, key=lambda run: run.spec.created_ns)


def look_again(run: SpooledRun) -> SpooledRun | None:
    """
    The run as it is now, waiting or done; None where it is gone.
    """
    scope = run.folder.parent.parent
    for place in (spool.RUNS, spool.DONE):
        found = _read_run(scope / place / run.folder.name, {})
        if found is not None:
            return found
    return None


def _read_run(folder: Path, served: dict[str, bool]) -> SpooledRun | None:
    spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec)
    is_waiting = folder.parent.name == spool.RUNS
    if spec is None:
        return _read_undescribed(folder) if is_waiting else None
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    if spec.profile not in served and not spec.offline:
        served[spec.profile] = is_served(folder.parent.parent, spec)
    has_sidecar = not spec.offline and served[spec.profile]
    ledger = state.ledger if state is not None else Ledger()
    if is_waiting and not has_sidecar:
        ledger = count_ledger(folder) or ledger
    return SpooledRun(folder, spec, state, ledger, is_waiting, has_sidecar)


def _read_undescribed(folder: Path) -> SpooledRun | None:
    """
    What the streams alone tell of a run, or None where there are none.
    """
    try:
        created_ns = (folder / spool.STREAMS).stat().st_mtime_ns
    except OSError:
        return None
    spec = RunSpec(
        run_uid=folder.name,
        experiment="",
        created_ns=created_ns,
        profile="",
        owner_stream="",
        owner_pid=0,
    )
    reader = RunReader(folder, spec)
    try:
        ledger = reader.ledger(is_exact=True)
    finally:
        reader.close()
    if not (reader.streams and ledger.accepted):
        return None  # a start that was interrupted at once
    state = spool.read_struct(folder / spool.STATE_FILE, RunState)
    return SpooledRun(folder, spec, state, ledger, True, False, is_described=False)


def _check_spool(given: Path) -> None:
    wanted = (
        f"want a spool, whose scope folders hold {spool.RUNS}/ and {spool.DONE}/ "
        "(`close` prints its path)"
    )
    try:
        if scopes(given):
            return
        usual = given / DEFAULTS["spool_dir"]
        near = [folder for folder in (usual, *_folders_in(given), given.parent) if scopes(folder)]
        got = "no spool" if given.is_dir() else "no folder" if given.exists() else "not there"
    except OSError as exc:
        near, got = [], f"not readable ({exc.strerror})"
    hint = f"; did you mean {near[0]}?" if near else ""
    raise SettingsError(
        f"SPOOL_DIR={str(given)!r} is {got}: {wanted}{hint}",
        kind=ErrorKind.BAD_SETTING,
        name="SPOOL_DIR",
        got=str(given),
    )


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
