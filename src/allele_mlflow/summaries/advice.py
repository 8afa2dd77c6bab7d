"""
The recommendations of an experiment and what they brought, gathered for its report.
"""

from __future__ import annotations

import math

import pandas as pd

from allele_mlflow.analysis.advice_ledger import LedgerEntry
from allele_mlflow.analysis.experiment_advice import AdviceReader
from allele_mlflow.reports.figures.calibration import GAIN_COLUMNS
from allele_mlflow.tracking.frames import Reader

#: Runs of an experiment whose artifacts are looked through.
MOST_RUNS = 300


def advice_of(reader: Reader, tracking_uri: str, experiment_id: str) -> pd.DataFrame:
    """
    A row a recommendation, as `ExperimentSummary.advice`.

    Raises:
        TrackingError: the store does not answer.

    Cost: a look at the artifacts of each run.
    """
    entries = AdviceReader(reader, tracking_uri, experiment_id).ledger()
    return pd.DataFrame([_row(one) for one in entries], columns=[*GAIN_COLUMNS, *_MORE])


_MORE = ("follow_ups", "reason")


def _row(entry: LedgerEntry) -> dict[str, object]:
    told, gain = entry.recommendation, entry.gain
    return {
        "source": told.source,
        "title": told.title,
        "verdict": entry.found.verdict.value if entry.found is not None else "",
        "expected": _or_nan(told.expected),
        "expected_low": _or_nan(told.expected_low),
        "expected_high": _or_nan(told.expected_high),
        "gain": _or_nan(gain.value if gain is not None else None),
        "gain_low": _or_nan(gain.low if gain is not None else None),
        "gain_high": _or_nan(gain.high if gain is not None else None),
        "follow_ups": len(entry.follow_ups),
        "reason": entry.reason,
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
