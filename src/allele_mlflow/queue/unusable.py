"""
Readings that were written and cannot be used: what is said of them.
"""

from __future__ import annotations

from allele_mlflow.queue.segment_reader import SeriesPage
from allele_mlflow.records import RecordRejected

UNKNOWN_KEY = "unknown_key"
BAD_STEP = "bad_step"


def unknown_key(timestamp_ns: int, key_id: int, value: str) -> RecordRejected:
    """
    The dead letter of a reading whose key nobody knows.
    """
    return RecordRejected(
        timestamp_ns=timestamp_ns,
        reason=UNKNOWN_KEY,
        call="metric",
        key=f"#{key_id}",
        value=value,
        wanted="the key's definition, which is damaged in events.log",
    )


def bad_step(page: SeriesPage, name: str) -> RecordRejected:
    """
    The dead letter of a series whose steps no 64 bits hold.
    """
    return RecordRejected(
        timestamp_ns=page.timestamp_ns,
        reason=BAD_STEP,
        call="series",
        key=name,
        value=f"{len(page.values)} values from step {page.first_step} on",
        wanted="steps of 64 bits",
    )
