"""
What a suite can show, against values computed by hand.
"""

from __future__ import annotations

import pandas as pd
import pytest

from allele_mlflow.analysis.sides import fewest_pairs
from allele_mlflow.analysis.suite_design import PastMetric, design_suite, past_metrics


def test_allele_default_of_three_repeats_shows_nothing() -> None:
    """20 cells with 3 repeats never reach significance: 2 / C(6, 3) = 0.1 is above 0.05 / 20."""
    answer = design_suite(20, 3, [PastMetric("score")])
    assert answer.hypotheses == 20
    assert answer.own_row.smallest_p == pytest.approx(0.1)
    assert not answer.own_row.is_reachable
    # unpaired: 2 / C(2n, n) < 0.0025 from n = 6 (2 / 924 = 0.00216) on
    assert answer.repeats_to_reach == 6
    row = next(row for row in answer.rows if row.repeats == 6)
    assert (row.is_reachable, row.is_paired) == (True, False)


def test_enough_pairs() -> None:
    """2 ** (1 - n) is below alpha / hypotheses from so many pairs on, and not before."""
    for hypotheses in (1, 4, 8, 20, 100):
        enough = fewest_pairs(hypotheses)
        assert 2.0 ** (1 - enough) < 0.05 / hypotheses
        assert enough == 6 or 2.0 ** (2 - enough) >= 0.05 / hypotheses


def test_effects_in_the_metric_s_unit() -> None:
    """A standard deviation of 2 around a mean of 50 makes an effect of 1 sd 4 % of the mean; more
    repeats find smaller ones, and take longer.
    """
    metric = PastMetric("score", mean=-50.0, deviation=2.0)
    assert metric.ratio_of(1.0) == pytest.approx(0.04)
    answer = design_suite(1, 10, [metric], trial_seconds=3.0, wanted_ratio=0.04)
    effects = [row.effect for row in answer.rows if row.effect is not None and row.is_paired]
    assert effects == sorted(effects, reverse=True)
    assert answer.own_row.seconds == 30.0
    assert answer.own_row.effect is not None
    assert answer.own_row.ratios["score"] == pytest.approx(answer.own_row.effect * 0.04)
    # Student's t, two sides of n, effect 1 sd, power 0.8: 17 (G*Power); pairs want their sd doubled
    repeats = answer.repeats_for["score"]
    assert repeats is not None
    assert 16 <= repeats <= 19


def test_unknown_scatter_is_said() -> None:
    """Without a past, or with one value a cell, nothing is claimed in percent."""
    answer = design_suite(2, 10, [PastMetric("score"), PastMetric("flat", 1.0, 0.0)])
    assert answer.repeats_for == {"score": None, "flat": None}
    assert answer.own_row.ratios["score"] is None


def test_what_the_past_tells() -> None:
    """The scatter is pooled within cells, failed runs are left out."""
    table = pd.DataFrame(
        {
            "cell": ["a", "a", "b", "b", "b"],
            "is_failed": [False, False, False, False, True],
            "m": [1.0, 3.0, 11.0, 13.0, 999.0],
            "one": [1.0, None, 2.0, None, None],
        }
    )
    known, single, missing = past_metrics(table, ["m", "one", "none"])
    assert known.mean == 7.0
    assert known.deviation == pytest.approx(2.0**0.5)
    assert (single.mean, single.deviation) == (1.5, None)
    assert (missing.mean, missing.deviation) == (None, None)
