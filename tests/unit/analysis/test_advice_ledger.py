"""
The ledger by hand: gains, calibration, and what documents say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from allele_mlflow.analysis.advice_ledger import LedgerEntry, calibrate, enter
from allele_mlflow.analysis.comparison import CompareOptions, Verdict
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.told_advice import Recommendation, is_like, recommendation_of
from allele_mlflow.units import Direction

HIGHER = CompareOptions(directions={"y": Direction.HIGHER})
LOWER = CompareOptions(directions={"y": Direction.LOWER})


def told(**more: Any) -> Recommendation:
    """
    Ten percent better are expected.
    """
    return recommendation_of({"id": "r", "source": "s", "expected_improvement": 10} | more, "run")


def table(*values: float, prefix: str = "a") -> pd.DataFrame:
    """
    A run for each value; NaN failed.
    """
    index = [f"{prefix}{number}" for number in range(len(values))]
    failed = [bool(np.isnan(value)) for value in values]
    return pd.DataFrame({"is_failed": failed, "y": values}, index=index)


BASELINE = table(9.0, 10.0, 11.0, 9.0, 11.0)


def test_gain_by_hand() -> None:
    """
    Means 10 and 12: a gain of 0.2, with Welch's interval of the difference over 10.
    """
    follow_up = table(11.0, 12.0, 13.0, 11.0, 13.0, prefix="b")
    entry = enter(told(), BASELINE, follow_up, metric="y", options=HIGHER)
    assert entry.gain is not None
    assert entry.gain.value == pytest.approx(0.2)
    half = stats.t.ppf(0.975, 8) * np.sqrt(2 * 1.0 / 5) / 10
    assert (entry.gain.low, entry.gain.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert entry.found is not None
    assert entry.found.verdict is Verdict.BETTER
    assert entry.follow_ups == ("b0", "b1", "b2", "b3", "b4")
    assert entry.is_as_expected is True, "0.1 is within 0.2 -+ 0.146"


def test_less_can_be_a_gain() -> None:
    """
    Where less is better, from 10 to 8 is a gain of 0.2, its interval the right way round.
    """
    follow_up = table(7.0, 8.0, 9.0, 7.0, 9.0)
    entry = enter(told(), BASELINE, follow_up, metric="y", options=LOWER)
    assert entry.gain is not None
    assert entry.gain.value == pytest.approx(0.2)
    assert entry.gain.low is not None
    assert entry.gain.high is not None
    assert entry.gain.low < 0.2 < entry.gain.high


def test_crashes_are_no_gain() -> None:
    """
    A follow-up of which most runs crash is worse, however good the last one is.
    """
    follow_up = table(50.0, np.nan, np.nan, np.nan, np.nan, np.nan)
    entry = enter(told(), table(*[9.0, 10.0, 11.0] * 2), follow_up, metric="y", options=HIGHER)
    assert entry.found is not None
    assert entry.found.verdict is not Verdict.BETTER


@pytest.mark.parametrize(
    ("follow_up", "metric", "options", "reason"),
    [
        (table(), "y", HIGHER, "nobody has tried it"),
        (table(1.0), None, HIGHER, "it does not say of which metric"),
        (table(1.0), "y", CompareOptions(), "which way is better is not known of y"),
        (table(1.0), "z", CompareOptions(directions={"z": Direction.LOWER}), "metric 'z'"),
    ],
)
def test_what_cannot_be_judged(
    follow_up: pd.DataFrame, metric: str | None, options: CompareOptions, reason: str
) -> None:
    """
    An entry all the same, with its reason.
    """
    entry = enter(told(), BASELINE, follow_up, metric=metric, options=options)
    assert entry.gain is None
    assert entry.reason.startswith(reason)


def entry_of(gain: float | None, expected: float | None, source: str = "s") -> LedgerEntry:
    """
    A realised gain with 0.1 to each side.
    """
    found = None if gain is None else Estimate(gain, gain - 0.1, gain + 0.1, "by hand")
    percent = None if expected is None else 100 * expected
    return LedgerEntry(
        told(expected_improvement=percent, source=source), "y", ("b",), found, None, ""
    )


def test_calibration_by_hand() -> None:
    """
    Gains 0.2, 0.1, -0.3, 0.05 where 0.2, 0.3, 0.1 and nothing was said: three of four the right
    way, a mean of 0 where 0.2 was expected, one of three as expected.
    """
    entries = [
        entry_of(0.2, 0.2),
        entry_of(0.1, 0.3),
        entry_of(-0.3, 0.1),
        entry_of(0.05, None),
        entry_of(None, 0.5),
        entry_of(0.1, 0.1, source="other"),
    ]
    first, other = calibrate(entries)
    assert (first.source, first.told, first.followed, first.judged) == ("s", 5, 5, 4)
    assert first.direction_right is not None
    assert first.direction_right.value == 0.75
    wilson = stats.binomtest(3, 4).proportion_ci(0.95, method="wilson")
    assert first.direction_right.low == pytest.approx(wilson.low)
    assert (first.expected, first.realised) == pytest.approx((0.2, 0.0))
    assert first.realised_ratio == pytest.approx(0.0)
    assert first.coverage is not None
    assert first.coverage.value == pytest.approx(1 / 3)
    assert first.verdict == "not enough evidence: 4 judged, want 5"
    assert other.source == "other"
    assert other.realised_ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.1] * 8, "mostly right"),
        ([-0.1] * 8, "mostly wrong"),
        ([0.1, -0.1] * 4, "no better than a coin, as far as can be told"),
    ],
)
def test_word_of_a_source(gains: list[float], verdict: str) -> None:
    """
    Said only where Wilson's interval leaves a half out.
    """
    (found,) = calibrate([entry_of(gain, 0.1) for gain in gains])
    assert found.verdict == verdict


def test_both_intervals_count() -> None:
    """
    Realised 0.1 -+ 0.1 and expected 0.24 -+ 0.1 may be the same: apart 0.14, within 0.1 * sqrt(2);
    taken as exact 0.24 is too much.
    """
    both = entry_of(0.1, 0.24)
    assert both.is_as_expected is False
    told_too = told(expected_improvement=24, expected_interval=[14, 34])
    assert both.__class__(told_too, "y", ("b",), both.gain, None, "").is_as_expected is True


def test_alleles_document_is_read() -> None:
    """
    Percentages become ratios, the prose's parameter what a follow-up has; the id is ours.
    """
    found = recommendation_of(
        {
            "id": "ours",
            "recommendation_id": "evolution_config_stagnating",
            "title": "Raise the rate",
            "component_type": "evolution_engine",
            "current_value": "0.1",
            "recommended_value": "0.2",
            "parameter": "mutation_rate",
            "expected_improvement": "15%",
            "time": "2026-01-01T00:00:00Z",
        },
        "run",
    )
    assert (found.recommendation_id, found.source) == ("ours", "evolution_engine")
    assert found.params == {"mutation_rate": "0.2"}
    assert found.current_params == {"mutation_rate": "0.1"}
    assert (found.expected, found.expected_low, found.metric) == (0.15, None, None)
    assert found.time_ms == 1767225600000


def test_odd_documents_are_read_as_far_as_they_go() -> None:
    """
    What is no number, no mapping and no interval is not there.
    """
    found = recommendation_of(
        {"expected_improvement": "much", "params": [1], "expected_interval": [2, 1], "time": 5}, "r"
    )
    assert (found.source, found.title, found.expected) == ("unknown", "", None)
    assert (found.params, found.expected_low, found.time_ms) == ({}, None, None)


@pytest.mark.parametrize(
    ("value", "wanted", "is_same"),
    [
        (0.2, "0.20", True),
        (100, "100.0", True),
        ("adam", "adam", True),
        (True, "True", True),
        (0.2, "0.3", False),
        ("a", 1, False),
    ],
)
def test_params_are_told_as_texts(value: Any, wanted: Any, is_same: bool) -> None:
    """
    A number is the same however it is written.
    """
    assert is_like(value, wanted) is is_same
