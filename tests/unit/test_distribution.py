"""
What describes many values: NumPy's numbers, from arrays and from plain lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.distribution import describe_values

NAMES = ["min", "q25", "median", "q75", "max", "mean", "std"]
KINDS: list[Callable[[list[float]], Any]] = [list, tuple, np.array, lambda v: np.array([v]), iter]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.sampled_from(KINDS))
def test_as_numpy_has_it(values: list[float], kind: Callable[[list[float]], Any]) -> None:
    """Quantiles, mean and deviation are those of NumPy's defaults."""
    found = describe_values(kind(values))
    assert isinstance(found, dict)
    assert list(found) == NAMES
    wanted = [*np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), np.mean(values), np.std(values)]
    assert list(found.values()) == pytest.approx(wanted, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("kind", [list, np.array])
@pytest.mark.filterwarnings("error")
def test_nan_and_infinities(kind: Callable[[list[float]], Any]) -> None:
    """One NaN makes all of them NaN; of infinities, those numbers that there are. No warning."""
    found = describe_values(kind([1.0, math.nan, 2.0]))
    assert isinstance(found, dict)
    assert all(math.isnan(number) for number in found.values())
    found = describe_values(kind([1.0, 2.0, math.inf]))
    assert isinstance(found, dict)
    assert (found["min"], found["median"], found["max"]) == (1.0, 2.0, math.inf)
    assert found["mean"] == math.inf
    assert math.isnan(found["std"])


def test_the_callers_array_stays_as_it_is() -> None:
    """Sorting is done on a copy."""
    values = np.array([3.0, 1.0, 2.0])
    describe_values(values)
    assert values.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "want one value or more, got none"),
        (np.zeros((0, 3)), "want one value or more, got none"),
        ("text", "want numbers in an order, got str"),
        ([1.0, "x"], "want numbers"),
        (np.array(["a"]), "want numbers, got an array of"),
    ],
)
def test_what_is_no_number_is_told(values: Any, told: str) -> None:
    """The answer says what is wanted."""
    found = describe_values(values)
    assert isinstance(found, str)
    assert found.startswith(told)
