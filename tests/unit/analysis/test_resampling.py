"""
Locations as weights on sorted values, and their resamples, splits and sign flips.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from allele_mlflow.analysis.locations import FloatArray, Location, centres_of, weights_of
from allele_mlflow.analysis.resampling import (
    bootstrap_weights,
    count_flips,
    count_splits,
    flip_weights,
    jackknife_weights,
    split_weights,
)

CHANCE = np.random.default_rng(5)
VALUES = CHANCE.normal(size=9)


def plainly(values: FloatArray, location: Location) -> float:
    """
    The location as SciPy and NumPy compute it.
    """
    if location is Location.IQM:
        return float(stats.trim_mean(values, 0.25))
    return float(np.median(values) if location is Location.MEDIAN else np.mean(values))


@pytest.mark.parametrize("location", Location)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_location_is_what_it_is_called(location: Location, count: int) -> None:
    """A weighted sum of sorted values is the mean, the median and SciPy's trimmed mean."""
    assert weights_of(location, count).sum() == pytest.approx(1.0)
    table = np.stack([VALUES[:count], 2 * VALUES[:count]], axis=1)
    once = plainly(VALUES[:count], location)
    assert centres_of(table, location) == pytest.approx([once, 2 * once])


@pytest.mark.parametrize("location", Location)
def test_bootstrap_row_is_the_location_of_a_resample(location: Location) -> None:
    """The same draws, resampled one by one, have the locations that the rows give."""
    rows = bootstrap_weights(9, location, resamples=50, generator=np.random.default_rng(1))
    drawn = np.random.default_rng(1).integers(0, 9, size=(50, 9))
    ordered = np.sort(VALUES)
    assert rows @ ordered == pytest.approx([plainly(ordered[one], location) for one in drawn])


@pytest.mark.parametrize("location", Location)
def test_jackknife_row_leaves_one_out(location: Location) -> None:
    """Row i is the location of all but the i-th of the sorted values."""
    ordered = np.sort(VALUES)
    expected = [plainly(np.delete(ordered, place), location) for place in range(9)]
    assert jackknife_weights(9, location) @ ordered == pytest.approx(expected)


@pytest.mark.parametrize("location", Location)
def test_splits_are_all_ways_to_deal(location: Location) -> None:
    """Three of nine: 84 rows, each the difference of the locations of one split."""
    (rows,) = split_weights(6, 3, location, arrangements=0, generator=np.random.default_rng(0))
    ordered = np.sort(VALUES)
    expected = [
        plainly(ordered[list(chosen)], location) - plainly(np.delete(ordered, chosen), location)
        for chosen in combinations(range(9), 3)
    ]
    assert len(rows) == count_splits(6, 3) == 84
    assert sorted(rows @ ordered) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("location", Location)
def test_flips_are_all_choices_of_signs(location: Location) -> None:
    """Nine differences: 512 rows, each the location with one choice of signs."""
    (rows,) = flip_weights(9, location, arrangements=0, generator=np.random.default_rng(0))
    expected = [
        plainly(np.abs(VALUES) * signs, location) for signs in product((1.0, -1.0), repeat=9)
    ]
    assert len(rows) == count_flips(9) == 512
    assert sorted(rows @ np.sort(np.abs(VALUES))) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("location", Location)
def test_random_arrangements_come_in_chunks(location: Location) -> None:
    """Where all would be too many, just so many random ones, never held at once, from the seed."""

    def collect(seed: int) -> tuple[FloatArray, FloatArray]:
        generator = np.random.default_rng(seed)
        splits = list(split_weights(300, 300, location, arrangements=5000, generator=generator))
        flips = list(flip_weights(600, location, arrangements=5000, generator=generator))
        assert len(splits) > 1
        assert len(flips) > 1
        return np.concatenate(splits), np.concatenate(flips)

    splits, flips = collect(1)
    assert len(splits) == len(flips) == 5000
    assert splits.sum(axis=1) == pytest.approx(np.zeros(5000), abs=1e-9)
    assert np.abs(flips).sum(axis=1) == pytest.approx(np.ones(5000))
    assert (collect(1)[0] == splits).all()
    assert not (collect(2)[0] == splits).all()
