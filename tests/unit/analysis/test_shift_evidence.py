"""
The score of one shift against none, beside the same computed by brute force, and its p-value.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.signal import lfilter

from allele_mlflow.analysis import shift_evidence
from allele_mlflow.analysis.shift_evidence import FloatArray, score_shifts
from allele_mlflow.analysis.shift_null import COUNTS, RATES, p_of_score

NOISE = np.random.default_rng(1).standard_normal(12)
SHIFTED = NOISE + 4.0 * (np.arange(12) >= 8)


def log_density(values: FloatArray, rho: float, variance_of_shift: float, split: int) -> float:
    """
    Of values under AR(1) noise of unit size and one shift, level and size integrated out by matrix
    algebra and by quadrature, up to a factor that all stories share.
    """
    count = len(values)
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    covariance = rho**lags / (1 - rho**2)
    step = (np.arange(count) >= split).astype(float)
    covariance += variance_of_shift * np.outer(step, step)
    inverse, ones = np.linalg.inv(covariance), np.ones(count)
    scale = ones @ inverse @ ones
    mean = ones @ inverse @ values / scale
    rest = (values - mean) @ inverse @ (values - mean)
    integral = quad(lambda s: s**-count * math.exp(-rest / (2 * s * s)), 1e-3, 200, limit=500)[0]
    log_det = np.linalg.slogdet(covariance)[1]
    return float(-0.5 * log_det - 0.5 * math.log(scale) + math.log(integral))


@pytest.mark.parametrize("values", [NOISE, SHIFTED], ids=["noise", "shifted"])
def test_score_is_the_bayes_factor(values: FloatArray) -> None:
    """
    The score is that of a direct computation with covariance matrices and numeric integration.
    """
    splits = range(3, 10)
    weights = shift_evidence._split_weights(12 - np.array(splits))
    rows = list(
        zip(
            shift_evidence.AUTOCORRELATIONS,
            shift_evidence._WEIGHTS_WITHOUT,
            shift_evidence._WEIGHTS_WITH,
            strict=True,
        )
    )
    without = sum(weight * math.exp(log_density(values, rho, 0, 0)) for rho, weight, _ in rows)
    with_shift = sum(
        weight * of_split * math.exp(log_density(values, rho, 9.0, split))
        for rho, _, weight in rows
        for split, of_split in zip(splits, weights, strict=True)
    )
    scores = score_shifts(values[None, :])
    assert scores.score[0] == pytest.approx(math.log(with_shift / without), rel=1e-5)


def test_score_knows_no_unit() -> None:
    """
    Another unit or another zero changes nothing.
    """
    plain, other = score_shifts(SHIFTED[None, :]), score_shifts(1e9 * SHIFTED[None, :] - 3e8)
    assert plain.score[0] == pytest.approx(other.score[0])
    assert plain.split[0] == other.split[0] == 8


def test_many_series_score_as_one_by_one() -> None:
    """
    A batch is no more than its series.
    """
    both = score_shifts(np.stack([NOISE, SHIFTED])).score
    single = [score_shifts(one[None, :]).score[0] for one in (NOISE, SHIFTED)]
    assert both == pytest.approx(single)


@pytest.mark.parametrize("count", [6, 9, 12, 40, 200])
def test_recent_shifts_weigh_most(count: int) -> None:
    """
    Weights of the places of a shift add up to one; where there are older ones, they share a tenth.
    """
    after = count - np.arange(3, count - 2)
    weights = shift_evidence._split_weights(after)
    assert weights.sum() == pytest.approx(1.0)
    if (after > 11).any():
        assert weights[after > 11].sum() == pytest.approx(0.1)


def test_p_value_is_that_of_the_table() -> None:
    """
    At a threshold of the table the p-value is its rate; between them it falls with the score.
    """
    for count in COUNTS:
        found = [p_of_score(score, count) for score in (-50, -5, 0, 1, 2, 3, 5, 20)]
        assert found == sorted(found, reverse=True)
        assert found[0] == 1.0
    assert p_of_score(2.17, 40) == pytest.approx(RATES[-1])
    assert p_of_score(0.35, 40) == pytest.approx(RATES[0])
    assert p_of_score(2.17 + math.log(10), 40) == pytest.approx(RATES[-1] / 10)
    assert p_of_score(2.0, 30) < p_of_score(2.0, 27) < p_of_score(2.0, 25)


@pytest.mark.parametrize("rho", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_p_value_holds_in_the_tail(rho: float, rate: float) -> None:
    """
    Of 40,000 series without a shift, no more have a p-value up to 1 % and 0.1 % than that, and what
    chance explains (three standard errors).
    """
    noise = np.random.default_rng(7).standard_normal((40_000, 30))
    noise[:, 1:] *= math.sqrt(1 - rho**2)
    scores = score_shifts(np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=1))).score
    alarms = sum(p_of_score(float(score), 30) <= rate for score in scores[scores > 2.0])
    assert alarms <= 40_000 * rate + 3 * math.sqrt(40_000 * rate)
