"""
Holm and Benjamini-Hochberg by hand and against SciPy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.locations import FloatArray
from allele_mlflow.analysis.multiplicity import adjust_bh, adjust_holm
from allele_mlflow.errors import AnalysisError

Adjust = Callable[[FloatArray], FloatArray]


def test_holm_by_hand() -> None:
    """Sorted 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 lifted to the one before it."""
    found = adjust_holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_bh_by_hand() -> None:
    """Sorted 0.005 * 4/1, 0.01 * 4/2, 0.03 * 4/3, 0.04 * 4/4, and none above the one after it."""
    found = adjust_bh([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_bh_is_scipys() -> None:
    """A hundred random p-values."""
    p_values = np.random.default_rng(0).random(100)
    assert adjust_bh(p_values) == pytest.approx(stats.false_discovery_control(p_values))


@pytest.mark.parametrize("adjust", [adjust_holm, adjust_bh])
def test_what_was_not_tested_does_not_count(adjust: Adjust) -> None:
    """NaN stays where it is, and the family is as large as the others are many."""
    found = adjust(np.array([0.01, np.nan, 0.03, np.nan]))
    assert np.isnan(found).tolist() == [False, True, False, True]
    assert found[[0, 2]] == pytest.approx(adjust(np.array([0.01, 0.03])))
    assert np.isnan(adjust(np.array([np.nan]))).all()
    assert len(adjust(np.array([]))) == 0


@pytest.mark.parametrize("adjust", [adjust_holm, adjust_bh])
def test_adjusted_values_stay_probabilities(adjust: Adjust) -> None:
    """None is above 1 or below what it was, and their order is kept."""
    p_values = np.random.default_rng(1).random(50)
    found = adjust(p_values)
    assert (found <= 1.0).all()
    assert (found >= p_values).all()
    assert (np.diff(found[np.argsort(p_values)]) >= 0.0).all()


@pytest.mark.parametrize("adjust", [adjust_holm, adjust_bh])
@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_no_probability_is_refused(adjust: Adjust, wrong: float) -> None:
    """A number that is no probability is named."""
    with pytest.raises(AnalysisError, match=f"got {wrong:g}, want"):
        adjust(np.array([0.5, wrong]))
