"""
A claimed score against fresh measurements: what is let through, and how often wrongly not.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.claims import check_claim
from allele_mlflow.errors import TooFewPointsError
from allele_mlflow.units import Direction

HIGHER, LOWER = Direction.HIGHER, Direction.LOWER
VALUES = [9.0, 10.0, 11.0, 10.5, 9.5]


def test_mean_and_limit_are_students() -> None:
    """The interval of the mean is SciPy's; the limit is where one more value ends in 97.5 %."""
    found = check_claim(VALUES, HIGHER, claimed=None)
    mean, error = float(np.mean(VALUES)), float(stats.sem(VALUES))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, mean, error))
    one_more = float(np.std(VALUES, ddof=1)) * (1 + 1 / 5) ** 0.5
    assert found.limit == pytest.approx(mean + stats.t.ppf(0.975, 4) * one_more)
    assert (found.count, found.mean, found.is_verified) == (5, mean, True)


@pytest.mark.parametrize(
    ("direction", "claimed", "is_verified"),
    [
        (HIGHER, 11.0, True),
        (HIGHER, 20.0, False),
        (HIGHER, 1.0, True),
        (LOWER, 9.0, True),
        (LOWER, 1.0, False),
        (LOWER, 20.0, True),
    ],
)
def test_only_a_claim_that_is_too_good_is_doubted(
    direction: Direction, claimed: float, is_verified: bool
) -> None:
    """Worse than measured is no reason for doubt; better than likely is, in either direction."""
    assert check_claim(VALUES, direction, claimed=claimed).is_verified is is_verified


@pytest.mark.parametrize(
    ("claimed", "is_verified"),
    [(0.9, True), (0.9 * (1 + 1e-12), True), (0.9001, False), (0.8, True)],
)
def test_without_scatter_the_claim_is_met_up_to_rounding(claimed: float, is_verified: bool) -> None:
    """A deterministic evaluation gives the same value again, but for the last digits."""
    found = check_claim([0.9] * 3, HIGHER, claimed=claimed)
    assert found.is_verified is is_verified
    assert found.low == found.high == found.limit == pytest.approx(0.9)


@pytest.mark.parametrize("chosen_from", [1, 8])
def test_true_claims_are_seldom_doubted(chosen_from: int) -> None:
    """
    A claim that was measured as the fresh values were is doubted in one of forty cases at most,
    also where it is the best of eight: 4,000 seeded tries, with room for their own scatter.
    """
    generator = np.random.default_rng(5)
    doubted = 0
    for _ in range(4_000):
        claimed = float(generator.normal(size=chosen_from).max())
        values = generator.normal(size=5).tolist()
        found = check_claim(values, HIGHER, claimed=claimed, chosen_from=chosen_from)
        doubted += not found.is_verified
    assert doubted / 4_000 < 0.025 + 3 * (0.025 * 0.975 / 4_000) ** 0.5
    assert doubted > 0


def test_one_value_says_nothing() -> None:
    """Fewer than two values are refused, with how many are wanted."""
    with pytest.raises(TooFewPointsError, match="1 fresh values: want at least 2"):
        check_claim([1.0], HIGHER, claimed=1.0)
