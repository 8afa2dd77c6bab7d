"""
What the end of a process means for its run: status, words and error. Pure.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Sequence

import msgspec

from allele_mlflow.failures import Category
from allele_mlflow.records import ENDED_BY_EXIT, ErrorLogged, ProcessEnd, RunEnded, RunStatus
from allele_mlflow.sampling.phases import OpenPhase

UNKNOWN = "unknown"
#: Signals by which somebody wants a process to end.
INTERRUPTIONS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL})


def is_out_of_memory(found: ProcessEnd, kills_before: int | None, kills_after: int | None) -> bool:
    """
    Whether a process was probably killed for memory: by SIGKILL, in a cgroup that has killed since.
    None: not counted.
    """
    if found.signal != signal.SIGKILL or kills_before is None or kills_after is None:
        return False
    return kills_after > kills_before


def describe_end(found: ProcessEnd) -> tuple[RunStatus, str]:
    """
    The status of a run whose process ended so without a farewell, and the words for
    `allele.ended_by`.
    """
    if found.signal is not None:
        name = signal_name(found.signal)
        return "KILLED", f"{name}, probably out of memory" if found.is_out_of_memory else name
    if found.exit_code is not None:
        return "FINISHED" if found.exit_code == 0 else "FAILED", f"exit code {found.exit_code}"
    return "KILLED", UNKNOWN


def end_without_farewell(found: ProcessEnd, ended_ns: int) -> RunEnded:
    """
    The end of a run whose process is gone and said nothing.
    """
    status, ended_by = describe_end(found)
    return RunEnded(
        timestamp_ns=ended_ns,
        status=status,
        slots={},
        ended_by=ended_by,
        process_end=found if found.is_known else None,
    )


def corrected_end(farewell: RunEnded, found: ProcessEnd) -> RunEnded | None:
    """
    The end of a run whose process said farewell at its exit and then ended in another way than
    well; None where the farewell stands.
    """
    if farewell.ended_by != ENDED_BY_EXIT or not found.is_known or found.exit_code == 0:
        return None
    status, ended_by = describe_end(found)
    return msgspec.structs.replace(farewell, status=status, ended_by=ended_by, process_end=found)


def error_of_end(end: RunEnded, phases: Sequence[OpenPhase]) -> ErrorLogged | None:
    """
    The error that stands for the end of a process; None where that is no error, or not known.

    Args:
        end: The run's end.
        phases: What the process was in, oldest first.
    """
    found = end.process_end
    if found is None or found.exit_code == 0:
        return None
    if found.signal is not None:
        error_type = signal_name(found.signal)
        message = f"the process was ended by {error_type}"
    else:
        error_type = f"exit code {found.exit_code}"
        message = f"the process ended with {error_type}"
    if found.is_out_of_memory:
        message += (
            ", and its cgroup has killed for memory since the run began: probably out of memory"
        )
    return ErrorLogged(
        timestamp_ns=end.timestamp_ns,
        category=_category(found).value,
        error_type=error_type,
        message=message,
        traceback="",
        fingerprint=hashlib.sha256(f"end of process: {error_type}".encode()).hexdigest()[:16],
        step=phases[-1].step if phases else None,
        phase=phases[-1].name if phases else None,
    )


def signal_name(number: int) -> str:
    """
    "SIGTERM" for 15; a number without a name as it is.
    """
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time ones
        return f"signal {number}"


def _category(found: ProcessEnd) -> Category:
    if found.is_out_of_memory:
        return Category.OUT_OF_MEMORY
    return Category.INTERRUPTED if found.signal in INTERRUPTIONS else Category.UNKNOWN
