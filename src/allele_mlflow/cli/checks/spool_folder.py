"""
The spool: its folder, its disk, what a log call costs there, who waits in it and who delivers.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from allele_mlflow.cli.checks.findings import Finding, good, misconfigured, note, warning
from allele_mlflow.cli.checks.folders import can_write, nearest_existing
from allele_mlflow.clock import now_monotonic_ns, now_ns
from allele_mlflow.queue import layout, spool
from allele_mlflow.queue.calibration import seconds_per_call
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.queue.room import LOW_DISK_BYTES, quota_bytes, used_bytes
from allele_mlflow.settings import Settings
from allele_mlflow.watching.spools import find_all_spools, scopes, spooled_runs

CHECK = "spool"
#: Twice the size of Docker's /dev/shm and more; 1 MiB holds 32,000 readings.
SMALL_SHM_BYTES = 256 << 20
#: A sidecar publishes its status every second.
SILENT_AFTER_S = 30.0
RECORDS = 1000
_MOVE = "set ALLELE_MLFLOW_SPOOL_DIR to a folder on a local ext4, XFS or tmpfs"


class SidecarSeen(NamedTuple):
    """
    A sidecar as its lock and its status file show it. `age_s`: since its last sign of life, None
    where it has given none.
    """

    name: str
    is_alive: bool
    pid: int | None
    age_s: float | None
    last_error: str | None


class _Status(msgspec.Struct):
    pid: int
    updated_ns: int
    last_error: str | None = None


def spool_checks(settings: Settings) -> list[Callable[[], list[Finding]]]:
    """
    The checks of a spool, one by one; none of them makes its folder.
    """
    spool_dir = Path(settings.spool_dir)
    place = nearest_existing(spool_dir)
    return [
        lambda: [check_folder(spool_dir)],
        lambda: check_mode(place, spool.file_system_of(place)),
        lambda: [check_room(spool_dir, settings.spool_quota_bytes)],
        lambda: [check_writing(place, is_mapped=spool.can_map(place))],
        lambda: check_waiting(find_all_spools(settings.spool_dir)),
        lambda: [judge_sidecar(one) for one in find_sidecars(spool_dir / spool.scope_name())],
    ]


def check_folder(spool_dir: Path) -> Finding:
    """
    Whether the spool can be written or made, and who else may read it.
    """
    place = nearest_existing(spool_dir)
    if not can_write(place):
        text = f"{place} cannot be written, so the spool {spool_dir} not be used"
        remedy = f"chmod u+w {place}, or {_MOVE}; meanwhile the user's state folder is taken"
        return misconfigured(CHECK, text, remedy)
    if place != spool_dir:
        return good(CHECK, f"{spool_dir} is not there yet; the first run can make it")
    state = spool_dir.stat()
    if state.st_uid != os.getuid():
        text = f"{spool_dir} belongs to uid {state.st_uid}, not to you ({os.getuid()})"
        return warning(CHECK, text, f"chown -R {os.getuid()} {spool_dir}")
    mode = stat.S_IMODE(state.st_mode)
    if mode & 0o077:
        text = f"{spool_dir} has mode {mode:04o}: others can look into it"
        return warning(CHECK, text, f"chmod 700 {spool_dir}")
    return good(CHECK, f"{spool_dir} is yours, mode {mode:04o}")


def check_mode(place: Path, file_system: str) -> list[Finding]:
    """
    Whether records are stored into a mapped file or written by system calls, and why.

    Args:
        place: The spool or what is there of its path.
        file_system: Its type.
    """
    if file_system not in spool.MAPPABLE_FILE_SYSTEMS:
        text = (
            f"written, not mapped: {file_system} may fail or wait in a store to a mapped page; "
            "each call costs a system call (some 2 us)"
        )
        return [warning(CHECK, text, _MOVE, file_system=file_system, mode="write")]
    findings = [
        good(CHECK, f"mapped, on {file_system}", file_system=file_system, mode="map"),
    ]
    if file_system == "tmpfs":
        size_bytes = shutil.disk_usage(place).total
        text = f"{place} is in memory ({_mb(size_bytes)}): what waits there is lost at a reboot"
        if size_bytes < SMALL_SHM_BYTES:
            remedy = f"docker run --shm-size=1g, or {_MOVE}"
            findings.append(warning(CHECK, f"{text}, and it is small", remedy))
        else:
            findings.append(note(CHECK, text, "move it to a disk where that matters"))
    elif file_system == "overlay":
        text = "overlay: what waits there is deleted with its container"
        findings.append(note(CHECK, text, "set ALLELE_MLFLOW_SPOOL_DIR to a volume"))
    return findings


def check_room(spool_dir: Path, wanted_quota_bytes: int) -> Finding:
    """
    Free space, quota and what is used of it.
    """
    place = nearest_existing(spool_dir)
    disk = shutil.disk_usage(place)
    used = sum(used_bytes(scope) for scope in scopes(spool_dir))
    quota = quota_bytes(place, wanted_quota_bytes)
    return judge_room(free_bytes=disk.free, total_bytes=disk.total, used=used, quota=quota)


def judge_room(*, free_bytes: int, total_bytes: int, used: int, quota: int) -> Finding:
    """
    What free space and quota mean. All in bytes.
    """
    facts = {"free_bytes": free_bytes, "quota_bytes": quota, "used_bytes": used}
    text = f"{_mb(free_bytes)} free; {_mb(used)} used of a quota of {_mb(quota)}"
    if free_bytes < min(LOW_DISK_BYTES, total_bytes // 16):
        remedy = f"make room, or {_MOVE} with room"
        return misconfigured(
            CHECK, f"{text}: the disk is full, records are dropped", remedy, **facts
        )
    if used >= quota:
        remedy = "deliver with `allele-mlflow sync`, or raise ALLELE_MLFLOW_SPOOL_QUOTA_BYTES"
        return misconfigured(CHECK, f"{text}: full, records are dropped", remedy, **facts)
    if used * 2 > quota:
        remedy = "deliver with `allele-mlflow sync`, or raise ALLELE_MLFLOW_SPOOL_QUOTA_BYTES"
        return warning(CHECK, f"{text}: more than half", remedy, **facts)
    return good(CHECK, text, **facts)


def check_writing(place: Path, *, is_mapped: bool) -> Finding:
    """
    Store records there as the queue does, read them back, and tell what one costs.
    """
    path = place / f".allele-mlflow-doctor-{spool.new_uid()}"
    try:
        spool.make_segment(path, layout.SEGMENT_BYTES, now_ns())
        floor_us = _time_records(path, is_mapped=is_mapped)
    except OSError as exc:
        text = f"a segment of {_mb(layout.SEGMENT_BYTES)} cannot be made in {place}: {exc.strerror}"
        return misconfigured(CHECK, text, f"make room, or {_MOVE}")
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    call_us = seconds_per_call() * 1e6
    text = (
        f"a record is stored in {floor_us:.2f} us at least, a log call takes {call_us:.2f} us, "
        f"and {RECORDS:,} records were read back"
    )
    return good(CHECK, text, store_floor_us=floor_us, log_call_us=call_us)


def _time_records(path: Path, *, is_mapped: bool) -> float:
    """
    Median microseconds of storing a record; raises OSError where one is not read back.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        target = mmap.mmap(descriptor, layout.SEGMENT_BYTES) if is_mapped else None
        pack, word = layout.PACK_RECORD, layout.pack_word(layout.KIND_METRIC, 1)
        durations_ns = []
        for number in range(RECORDS):
            offset = layout.HEADER_BYTES + number * layout.RECORD_BYTES
            before_ns = now_monotonic_ns()
            if target is not None:
                pack(target, offset, number, number, 0.5, word)
            else:
                os.pwrite(descriptor, layout.RECORD.pack(number, number, 0.5, word), offset)
            durations_ns.append(now_monotonic_ns() - before_ns)
        data = os.pread(descriptor, RECORDS * layout.RECORD_BYTES, layout.HEADER_BYTES)
        if [record[0] for record in layout.RECORD.iter_unpack(data)] != list(range(RECORDS)):
            raise OSError(0, "what was stored is not what is read back")
    finally:
        os.close(descriptor)
    return sorted(durations_ns)[RECORDS // 2] / 1e3


def check_waiting(spools: list[Path]) -> list[Finding]:
    """
    Runs that nobody delivers, by the scope they are in.
    """
    findings = []
    for folder in spools:
        left: dict[str, list[int]] = {}
        served = 0
        for run in spooled_runs(folder, with_done=False):
            if run.is_served:
                served += 1
            else:
                left.setdefault(run.folder.parent.parent.name, []).append(run.ledger.pending)
        for scope, pending in left.items():
            whose = "this boot's" if scope == spool.scope_name() else f"another scope's ({scope})"
            text = f"{len(pending)} runs of {whose} wait with {sum(pending):,} records, unserved"
            findings.append(warning(CHECK, text, f"allele-mlflow sync {folder}"))
        if served:
            findings.append(good(CHECK, f"{served} runs wait that a sidecar serves"))
    return findings or [good(CHECK, "no run waits")]


def find_sidecars(scope: Path) -> list[SidecarSeen]:
    """
    The sidecars of this boot that have ever been.
    """
    found = []
    for lock in sorted(scope.glob("sidecar-*.lock")):
        name = lock.stem.removeprefix("sidecar-")
        try:
            status = msgspec.json.decode(lock.with_suffix(".json").read_bytes(), type=_Status)
        except (OSError, msgspec.MsgspecError):
            status = None
        found.append(
            SidecarSeen(
                name,
                is_locked(lock),
                status.pid if status else None,
                (now_ns() - status.updated_ns) / 1e9 if status else None,
                status.last_error if status else None,
            )
        )
    return [one for one in found if one.is_alive]  # the others have left as they should


def judge_sidecar(sidecar: SidecarSeen) -> Finding:
    """
    Whether a sidecar that holds its lock also works.
    """
    who = f"sidecar {sidecar.name}" + (f" (pid {sidecar.pid})" if sidecar.pid else "")
    if sidecar.age_s is not None and sidecar.age_s > SILENT_AFTER_S:
        remedy = "`allele-mlflow stop`; the next run, or `allele-mlflow sync`, goes on in its place"
        return warning("sidecar", f"{who} has been silent for {sidecar.age_s:.0f} s", remedy)
    if sidecar.last_error:
        remedy = "see the checks of mlflow and store; it tries again by itself"
        return warning("sidecar", f"{who} is alive; last error: {sidecar.last_error}", remedy)
    return good("sidecar", f"{who} is alive")


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
