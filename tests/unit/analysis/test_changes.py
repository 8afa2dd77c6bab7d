"""
Shifts of one series: known ones are found, noise is silent, what cannot be judged is said.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from allele_mlflow.analysis.changes import SENSITIVE, STRICT, Preset, clean, find_shifts
from allele_mlflow.analysis.outliers import find_outliers, noise_sigma
from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.errors import AnalysisError, TooFewPointsError


def noise(seed: int, count: int = 40, sigma: float = 0.03) -> FloatArray:
    """
    Normal noise around 1.
    """
    return 1 + sigma * np.random.default_rng(seed).standard_normal(count)


def step(values: FloatArray, index: int, delta: float) -> FloatArray:
    """
    The same with a shift from an index on.
    """
    return values + delta * (np.arange(len(values)) >= index)


def test_shift_is_found_where_it_is() -> None:
    """
    One shift of five sigma: its place, both levels, the difference and its sign.
    """
    (shift,) = find_shifts(step(noise(1), 30, 0.15))
    assert shift.index == 30
    assert shift.level_before == pytest.approx(1.0, abs=0.02)
    assert shift.delta == pytest.approx(0.15, abs=0.03)
    assert shift.delta_ratio == pytest.approx(shift.delta / shift.level_before)
    assert shift.sigma == pytest.approx(0.03, rel=0.3)
    assert shift.p < 0.001
    (fall,) = find_shifts(step(noise(1), 30, -0.15))
    assert fall.delta < 0


def test_several_shifts_are_found() -> None:
    """
    Both sides of a shift are searched; shifts come in time order, each with its own levels.
    """
    values = step(step(noise(2, 60), 20, 0.3), 45, -0.2)
    first, second = find_shifts(values)
    assert (first.index, second.index) == (20, 45)
    assert first.level_after == second.level_before == pytest.approx(1.3, abs=0.02)
    assert second.level_after == pytest.approx(1.1, abs=0.02)


def test_shift_in_a_short_history_is_found() -> None:
    """
    Eleven executions with a clear shift are enough, though they can be shuffled in few ways.
    """
    (shift,) = find_shifts(step(noise(3, 11), 8, 0.5))
    assert shift.index == 8


@pytest.mark.parametrize("count", [30, 60])
def test_noise_is_silent(count: int) -> None:
    """
    Of 400 series of noise at most as many have a shift as one per cent explains (p = 0.999).
    """
    alarms = sum(bool(find_shifts(noise(seed, count))) for seed in range(20_000, 20_400))
    assert alarms <= 11


def test_wandering_series_is_silent() -> None:
    """
    Autocorrelated noise looks like shifts, and is not taken for them.
    """
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(30_000 + seed)
        values = [rng.standard_normal()]
        for _ in range(59):
            values.append(0.5 * values[-1] + math.sqrt(0.75) * rng.standard_normal())
        alarms += bool(find_shifts(100 + 3 * np.array(values)))
    assert alarms <= 7


def test_heavy_tails_are_shuffled() -> None:
    """
    Noise that no table is for: the permutations keep the rate.
    """
    rng = np.random.default_rng(40_000)
    alarms = sum(bool(find_shifts(10 + rng.standard_t(2, 60))) for _ in range(300))
    assert alarms <= 9


@pytest.mark.parametrize("kind", ["counts", "successes", "two modes"])
def test_coarse_noise_is_silent(kind: str) -> None:
    """
    Small counts, rates of success of 0 or 1, and noise that jumps between two values: of 200 series
    no more have a shift than one per cent explains (p = 0.999).
    """
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(50_000 + seed)
        drawn = {
            "counts": rng.poisson(3, 40),
            "successes": rng.random(40) < 0.9,
            "two modes": 1 + 0.2 * (rng.random(40) < 0.5) + 0.02 * rng.standard_normal(40),
        }
        alarms += bool(find_shifts(drawn[kind].astype(float)))
    assert alarms <= 7


def test_single_point_is_no_shift() -> None:
    """
    One point far off, wherever it is, is an outlier and no shift; the newest one too.
    """
    for index in (0, 1, 20, 38, 39):
        values = noise(4)
        values[index] *= 1.6
        assert find_shifts(values) == []
        assert clean(values).outliers.tolist() == [index]


def test_new_level_is_no_outlier() -> None:
    """
    Three points at a new level are a shift, not three outliers.
    """
    values = step(noise(5), 37, 0.4)
    assert clean(values).outliers.tolist() == []
    (shift,) = find_shifts(values)
    assert shift.index == 37


def test_own_spread_explains_a_point() -> None:
    """
    A point whose repeats differ as much as it does from the others is no outlier.
    """
    values = noise(6)
    values[10] = 2.0
    spreads = np.full(40, 0.03)
    assert np.flatnonzero(find_outliers(values, spreads=spreads)).tolist() == [10]
    spreads[10] = 0.5
    assert not find_outliers(values, spreads=spreads).any()
    assert np.flatnonzero(find_outliers(values, spreads=np.full(40, np.nan))).tolist() == [10]


def test_noise_sigma_is_of_neighbours() -> None:
    """
    Hand-computed: differences 1, 1, 4 give 1.4826 x 1 / sqrt(2); equal neighbours fall back to the
    mean, 1.2533 x (0 + 0 + 3) / 3 / sqrt(2); a constant has none.
    """
    assert noise_sigma(np.array([0.0, 1.0, 2.0, 6.0])) == pytest.approx(1.4826 / math.sqrt(2))
    assert noise_sigma(np.array([0.0, 0.0, 0.0, 3.0])) == pytest.approx(1.2533 / math.sqrt(2))
    assert noise_sigma(np.ones(5)) == 0.0


def test_missing_values_are_skipped() -> None:
    """
    NaN marks an execution without the metric; indices stay those of the series as given.
    """
    values = step(noise(7), 30, 0.3)
    values[[3, 10, 29]] = np.nan
    (shift,) = find_shifts(values)
    assert shift.index == 30


def test_constant_series_is_silent() -> None:
    """
    A constant has no shift, nor has one that differs by rounding.
    """
    assert find_shifts(np.full(30, 0.1)) == []
    assert find_shifts(np.cumsum(np.full(30, 0.1)) - 0.1 * np.arange(30)) == []


def test_shift_without_noise_is_found() -> None:
    """
    Values that do not scatter at all, as counts may: the shift is there, and sigma is 0.
    """
    (shift,) = find_shifts(np.r_[np.full(20, 7.0), np.full(10, 8.0)])
    assert (shift.index, shift.delta, shift.sigma) == (20, 1.0, 0.0)


def test_small_shift_is_not_worth_telling() -> None:
    """
    A shift below the least size of a preset is left out, however sure it is.
    """
    values = step(noise(8, 80, sigma=0.0005), 40, 0.006)
    assert find_shifts(values, preset=STRICT) == []
    assert len(find_shifts(values, preset=SENSITIVE)) == 1


def test_level_of_zero_has_no_ratio() -> None:
    """
    From nothing to something is no percentage, and is found.
    """
    (shift,) = find_shifts(np.r_[np.zeros(20), np.ones(10)])
    assert shift.delta_ratio is None


def test_same_seed_same_answer() -> None:
    """
    The same series gives the same shifts, bit by bit.
    """
    values = step(noise(9), 33, 0.09)
    assert find_shifts(values) == find_shifts(values.copy())


@pytest.mark.parametrize("finite", [0, 1, 5])
def test_too_few_points_are_said(finite: int) -> None:
    """
    Fewer than six finite values are an error that says how many there are, and are wanted.
    """
    points = "point" if finite == 1 else "points"
    words = f"{finite} finite {points}: want at least 6"
    with pytest.raises(TooFewPointsError, match=words) as info:
        find_shifts(np.r_[np.full(4, np.nan), np.ones(finite)])
    assert info.value.facts == {"got": finite, "wanted": 6}


@pytest.mark.parametrize("values", [np.ones((3, 10)), np.r_[np.ones(10), np.inf]])
def test_bad_series_is_refused(values: FloatArray) -> None:
    """
    Two dimensions or an infinite value: an error, not a guess.
    """
    with pytest.raises(AnalysisError, match="want one dimension of numbers"):
        find_shifts(values)


def test_long_series_is_judged_by_its_newest_points() -> None:
    """
    Of more than 200 points the newest 200 are looked at.
    """
    values = step(step(noise(10, 400), 100, 1.0), 350, 1.0)
    assert [shift.index for shift in find_shifts(values)] == [350]


def test_bad_preset_is_refused() -> None:
    """
    A rate of false alarms that is none is an error.
    """
    with pytest.raises(AnalysisError, match="alpha=0: want a rate"):
        Preset(name="never", alpha=0, min_delta_sigma=1, min_delta_ratio=0)
