"""
Resent NaN readings: most releases of MLflow fail a whole batch for one of them.

Their `log_batch` meets the row that is already there (IntegrityError), looks up which readings
are new by comparing values, finds that NaN equals nothing, and inserts the row again, for ever. So
it is from 2.10 at least to 3.14, as client and as server; 3.17 is cured. The error itself proves
that the row is there, since the table's key is the whole reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from allele_mlflow.records import Reading

# The primary key of the table `metrics` in the words of SQLite, PostgreSQL and MSSQL, and MySQL.
_DUPLICATE_READING = re.compile(
    r"UNIQUE constraint failed: metrics\.key|\bmetric_pk\b"
    r"|Duplicate entry .* for key '(?:metrics\.)?PRIMARY'"
)


def is_duplicate_reading(exc: BaseException | None) -> bool:
    """
    Whether a database refused a reading because exactly this one is stored already.
    """
    return exc is not None and _DUPLICATE_READING.search(str(exc)) is not None


def split_nan(readings: Sequence[Reading]) -> tuple[list[Reading], list[Reading]]:
    """
    The readings that are numbers, and the NaN ones, each of these once.
    """
    numbers = [reading for reading in readings if not math.isnan(reading.value)]
    nans = {
        (reading.key, reading.timestamp_ms, reading.step): reading
        for reading in readings
        if math.isnan(reading.value)
    }
    return numbers, list(nans.values())
