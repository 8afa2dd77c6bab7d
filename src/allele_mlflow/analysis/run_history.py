"""
One metric of one run as arrays, and what an anomaly in it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from allele_mlflow.analysis.shift_evidence import FloatArray, IntArray
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.records import Severity

COLUMNS = ("key", "step", "timestamp_ms", "value")


class AnomalyKind(StrEnum):
    """
    What can be wrong within a run.
    """

    NOT_FINITE = "not finite"
    DIVERGENCE = "divergence"
    STUCK = "stuck objective"
    DIVERSITY_COLLAPSE = "diversity collapse"
    MEMORY_SLOPE = "memory slope"
    SPIKES = "spikes"
    THROUGHPUT_DROP = "throughput drop"
    STALL = "stall"


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """
    One finding within a run.

    Attributes:
        kind: What.
        key: The metric in which it shows; "*" for the program as a whole.
        first_step: Where it begins.
        last_step: Where it ends, or the newest step where it lasts.
        started_ms: When it begins.
        ended_ms: When it ends.
        severity: How bad it is.
        evidence: The numbers that it rests on, units in their names where they have any.
        words: The same in a line.
    """

    kind: AnomalyKind
    key: str
    first_step: int
    last_step: int
    started_ms: int
    ended_ms: int
    severity: Severity
    evidence: Mapping[str, float]
    words: str


@dataclass(frozen=True)
class History:
    """
    The readings of one key, by time.

    Units: `timestamp_ms` wall clock.
    """

    key: str
    steps: IntArray
    timestamp_ms: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)

    def finite(self) -> History:
        """
        Without what is no finite number.
        """
        return self.pick(np.isfinite(self.values))

    def pick(self, which: npt.NDArray[np.bool_] | slice) -> History:
        """
        Some of it.
        """
        return History(self.key, self.steps[which], self.timestamp_ms[which], self.values[which])

    def anomaly(
        self,
        kind: AnomalyKind,
        first: int,
        last: int,
        *,
        severity: Severity,
        words: str,
        evidence: Mapping[str, float],
    ) -> Anomaly:
        """
        A finding between two of its readings.
        """
        return Anomaly(
            kind=kind,
            key=self.key,
            first_step=int(self.steps[first]),
            last_step=int(self.steps[last]),
            started_ms=int(self.timestamp_ms[first]),
            ended_ms=int(self.timestamp_ms[last]),
            severity=severity,
            evidence=dict(evidence),
            words=words,
        )


def histories_of(readings: pd.DataFrame) -> list[History]:
    """
    The histories in a frame of one run's readings, by key.

    Args:
        readings: With COLUMNS, as of `Reader.history` (tracking/frames.py).
    Raises:
        AnalysisError: a column is missing.
    """
    missing = [name for name in COLUMNS if name not in readings.columns]
    if missing:
        raise AnalysisError(
            f"a frame of readings without {', '.join(missing)}: want {', '.join(COLUMNS)}",
            kind=ErrorKind.BAD_DATA,
            missing=missing,
        )
    ordered = readings.sort_values(["timestamp_ms", "step"], kind="stable")
    return [
        History(
            str(key),
            rows["step"].to_numpy(dtype=np.int64),
            rows["timestamp_ms"].to_numpy(dtype=np.int64),
            rows["value"].to_numpy(dtype=np.float64),
        )
        for key, rows in ordered.groupby("key", sort=True)
    ]
