"""
Verdicts: what they need, what failures do to them, and what is said where none can be reached.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allele_mlflow.analysis.comparison import (
    SUCCESS_METRIC,
    CompareOptions,
    Comparison,
    Comparisons,
    Verdict,
    compare,
)
from allele_mlflow.analysis.effects import Magnitude
from allele_mlflow.analysis.locations import Location
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

CHANCE = np.random.default_rng(21)
NOISE = CHANCE.normal(size=12)
OTHER = CHANCE.normal(size=12)
#: Fewer arrangements than by default, for speed.
FAST = CompareOptions(arrangements=4999, resamples=2000)
UP = replace(FAST, directions={"fitness": Direction.HIGHER, "loss": Direction.LOWER})


def table(values: Any, metric: str = "fitness", **columns: Any) -> pd.DataFrame:
    """
    Runs of one cell with one metric.
    """
    return pd.DataFrame({metric: np.asarray(values, dtype=float), **columns})


def only(found: Comparisons) -> Comparison:
    """
    The only row.
    """
    (row,) = found.rows
    return row


@pytest.mark.parametrize(
    ("metric", "shift", "verdict"),
    [
        ("fitness", 3.0, Verdict.BETTER),
        ("fitness", -3.0, Verdict.WORSE),
        ("loss", 3.0, Verdict.WORSE),
        ("loss", -3.0, Verdict.BETTER),
        ("phase/evaluate/seconds", 3.0, Verdict.WORSE),
        ("unheard_of", 3.0, Verdict.DIFFERENT),
    ],
)
def test_direction_decides_which_is_better(metric: str, shift: float, verdict: Verdict) -> None:
    """A clear difference is judged by the metric's direction, told or known; without one, named."""
    row = only(compare(table(NOISE + 9, metric), table(OTHER + 9 + shift, metric), options=UP))
    assert row.verdict is verdict
    assert row.p_value == row.p_holm
    assert row.p_value is not None
    assert row.p_value < 0.001
    assert row.difference is not None
    assert row.difference.value == pytest.approx(OTHER.mean() - NOISE.mean() + shift)
    assert row.magnitude is Magnitude.LARGE
    assert row.reason.startswith("the difference is ")


def test_unit_comes_from_the_table_of_units() -> None:
    """A phase's seconds are known as seconds; a user's own metric has no unit."""
    found = compare(
        table(NOISE, "phase/evaluate/seconds", mine=NOISE),
        table(OTHER, "phase/evaluate/seconds", mine=OTHER),
    )
    assert [row.unit for row in found.rows] == ["seconds", None]


def test_noise_is_inconclusive() -> None:
    """No difference is not equivalence: the interval is wider than what makes no difference."""
    row = only(compare(table(NOISE + 9), table(OTHER + 9), options=UP))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.reason.startswith("p = 0.")


def test_narrow_interval_is_equivalence() -> None:
    """Within 2 % of the baseline's mean to both sides: equivalent, even where certain."""
    base = table(100 + 0.01 * NOISE)
    row = only(compare(base, table(101 + 0.01 * OTHER), options=UP))
    assert row.p_value is not None
    assert row.p_value < 0.001
    assert row.verdict is Verdict.EQUIVALENT
    assert "is within 2," in row.reason
    strict = CompareOptions(equivalences={"fitness": 0.5}, directions=UP.directions)
    assert only(compare(base, table(101 + 0.01 * OTHER), options=strict)).verdict is Verdict.BETTER


def test_same_constant_is_equivalent() -> None:
    """Deterministic metrics that agree are equivalent, also at zero, where 2 % are nothing."""
    for value in (0.0, 7.5):
        row = only(compare(table([value] * 5), table([value] * 5)))
        assert (row.verdict, row.p_value) == (Verdict.EQUIVALENT, 1.0)


def test_three_runs_can_never_be_enough() -> None:
    """Three against three: 0.1 is the smallest p there is, and the reason says so."""
    row = only(compare(table([1, 2, 3]), table([11, 12, 13]), options=UP))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.p_value == row.smallest_p == pytest.approx(0.1)
    assert row.reason == "n=3 per side: smallest reachable p is 0.1; want more repeats"


def test_correction_can_make_it_unreachable() -> None:
    """Five against five reach 0.0079, but not over seven metrics."""
    base = pd.DataFrame({f"m{i}": np.arange(5.0) for i in range(7)})
    found = compare(base, base + 100)
    assert {row.verdict for row in found.rows} == {Verdict.INCONCLUSIVE}
    assert found.rows[0].reason == (
        "n=5 per side: smallest reachable p is 0.0079, 0.056 after Holm over 7; want more repeats"
    )
    six = pd.DataFrame({f"m{i}": np.arange(5.0) for i in range(6)})
    assert compare(six, six + 100).count(Verdict.DIFFERENT) == 6


def test_holm_is_over_cells_and_metrics() -> None:
    """Two cells of two metrics are a family of four; p-values are those of Holm by hand."""
    cells = np.repeat(["a", "b"], 12)
    base = table(np.tile(NOISE, 2), cell=cells, loss=np.tile(OTHER, 2))
    more = table(np.tile(OTHER, 2) + np.repeat([0, 5], 12), cell=cells, loss=np.tile(NOISE, 2))
    found = compare(base, more, options=UP)
    assert found.family_count == 4
    assert [(row.cell, row.metric) for row in found.rows] == [
        ("a", "fitness"),
        ("a", "loss"),
        ("b", "fitness"),
        ("b", "loss"),
    ]
    clear = found.rows[2]
    assert clear.verdict is Verdict.BETTER
    assert clear.p_value is not None
    assert clear.p_holm == pytest.approx(4 * clear.p_value)
    assert "after Holm over 4" in clear.reason


def test_same_seeds_are_pairs() -> None:
    """Seeds in another order are put together, and what they share cancels out."""
    seeds = np.arange(12)
    base = table(10 * NOISE + 50, seed=seeds)
    more = table(10 * NOISE + 51 + 0.1 * OTHER, seed=seeds).iloc[::-1]
    row = only(compare(base, more, options=UP))
    assert row.is_paired
    assert row.test == "sign-flip test of the mean"
    assert (row.verdict, row.p_value) == (Verdict.BETTER, 2 / 2**12)
    apart = only(compare(base, more.assign(seed=seeds + 1), options=UP))
    assert not apart.is_paired
    assert apart.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("seeds", [[1, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, None], None])
def test_doubtful_seeds_make_no_pairs(seeds: list[int | None] | None) -> None:
    """A seed twice, a seed that is missing, no seeds at all: independent runs."""
    columns: dict[str, Any] = {} if seeds is None else {"seed": seeds}
    base = table(NOISE[:8], **columns)
    assert not only(compare(base, base)).is_paired


def test_seeds_of_any_kind_make_pairs() -> None:
    """Seeds are names: texts and numbers may stand beside each other."""
    seeds = [*range(11), "the last"]
    base = table(10 * NOISE + 50, seed=seeds)
    more = table(10 * NOISE + 51, seed=seeds).iloc[::-1]
    row = only(compare(base, more, options=UP))
    assert row.is_paired
    assert row.difference is not None
    assert row.difference[:3] == pytest.approx((1.0, 1.0, 1.0))


def test_too_few_pairs_are_taken_as_independent() -> None:
    """Five pairs can never reach 0.05, the same runs without pairs can."""
    base = table(np.arange(5.0), seed=range(5))
    row = only(compare(base, base.assign(fitness=base["fitness"] + 100), options=UP))
    assert not row.is_paired
    assert row.verdict is Verdict.BETTER
    assert row.p_value == pytest.approx(2 / 252)


def crashed(count: int) -> pd.DataFrame:
    """
    Twelve runs far above the noise, of which so many crashed.
    """
    is_failed = np.arange(12) < count
    return table(np.where(is_failed, np.nan, OTHER + 12), is_failed=is_failed)


def test_crashes_cannot_win() -> None:
    """
    Two good runs of twelve beat the baseline's, but ten crashed: worse, not better, and the success
    rates are a row of the same family. Fisher by hand: 2 * C(12, 2) / C(24, 14).
    """
    values, success = (found := compare(table(NOISE + 9), crashed(10), options=UP)).rows
    assert values.verdict is Verdict.WORSE
    assert values.test == "permutation test of penalised ranks"
    assert values.difference is not None
    assert values.difference.value > 2.0
    assert values.a12 is not None
    assert values.a12.value == pytest.approx(2 / 12)
    assert "10 of 12 of the candidate gave no value, counted as the worst" in values.reason
    assert (success.metric, success.verdict) == (SUCCESS_METRIC, Verdict.WORSE)
    assert success.test == "Fisher's exact test"
    assert success.p_value == pytest.approx(2 * 66 / 1961256)
    assert success.candidate.success.value == pytest.approx(2 / 12)
    assert found.family_count == 2


@pytest.mark.parametrize(("count", "verdict"), [(1, Verdict.BETTER), (6, Verdict.INCONCLUSIVE)])
def test_few_crashes_can_be_outweighed(count: int, verdict: Verdict) -> None:
    """One crash beside eleven much better runs is still better; six beside six decide nothing."""
    assert compare(table(NOISE + 9), crashed(count), options=UP).rows[0].verdict is verdict


def test_crash_of_a_pair_counts_against_its_side() -> None:
    """A pair of which one side failed is lost by that side, one of which both did by neither."""
    seeds = np.arange(12)
    failed = np.arange(12) >= 10
    base = table(NOISE, seed=seeds, is_failed=failed)
    more = table(NOISE + 0.001, seed=seeds, is_failed=np.arange(12) >= 1)
    row = compare(base, more, options=UP).rows[0]
    assert row.is_paired
    assert row.difference is not None
    assert row.difference.low is None
    # Nine pairs lost by a crash, one won by a thousandth, two of which both sides failed: of the
    # 2^10 choices of their signs, the one with the smallest rank either way, and all lost.
    assert row.p_value == pytest.approx(2 * 2 / 2**10)
    assert row.verdict is Verdict.WORSE


def test_value_that_is_none_counts_as_failed() -> None:
    """NaN and infinity of finished runs are no values; they count, and the success rates do not."""
    values = OTHER.copy() + 12
    values[:10] = [np.nan, np.inf] * 5
    row = only(compare(table(NOISE + 9), table(values), options=UP))
    assert (row.candidate.runs, row.candidate.values) == (12, 2)
    assert row.verdict is Verdict.WORSE


def test_failures_leave_a_neutral_metric_open() -> None:
    """Without a better direction there is no worst value: the runs that failed are left out."""
    row = compare(table(NOISE, "m"), crashed(2).rename(columns={"fitness": "m"})).rows[0]
    assert row.test == "permutation test of the mean"
    assert row.verdict is Verdict.DIFFERENT
    assert "2 of 12 of the candidate gave no value, left out" in row.reason


def test_failures_forbid_equivalence() -> None:
    """Runs that agree are not equivalent configurations while one of them crashed."""
    base = table(100 + 0.01 * NOISE)
    more = table(100 + 0.01 * NOISE, is_failed=np.arange(12) < 1)
    assert compare(base, more, options=UP).rows[0].verdict is Verdict.INCONCLUSIVE


def test_metric_that_a_side_never_logged_is_not_tested() -> None:
    """It is no failure of its runs, takes no part in the correction, and says why."""
    found = compare(table(NOISE, loss=OTHER), table(OTHER), options=UP)
    fitness, loss = found.rows
    assert found.family_count == 1
    assert fitness.p_value == fitness.p_holm
    assert (loss.verdict, loss.p_value, loss.p_holm, loss.a12) == (
        Verdict.INCONCLUSIVE,
        *(None, None, None),
    )
    assert loss.reason == "no run of the candidate gave a finite value (12 runs)"


def test_all_runs_failed_on_both_sides() -> None:
    """Nothing to compare but the success rates, which agree."""
    base = table(NOISE, is_failed=True)
    values, success = compare(base, base, options=UP).rows
    assert (values.verdict, values.baseline.centre) == (Verdict.INCONCLUSIVE, None)
    assert success.p_value == 1.0
    assert success.verdict is Verdict.INCONCLUSIVE


def test_all_runs_of_one_side_failed() -> None:
    """The side that has nothing left is worse, although there is no difference to show."""
    values, _ = compare(table(NOISE), table(OTHER, is_failed=True), options=UP).rows
    assert values.difference is None
    assert values.verdict is Verdict.WORSE


@pytest.mark.parametrize("location", Location)
@pytest.mark.parametrize("scale", [1e-300, np.finfo(float).max / 30])
def test_size_of_the_values_does_not_matter(scale: float, location: Location) -> None:
    """Values near the ends of what a float holds have the verdict of ordinary ones."""
    options = replace(UP, location=location)
    plain = only(compare(table(NOISE + 9), table(OTHER + 12), options=options))
    tiny = only(compare(table(scale * (NOISE + 9)), table(scale * (OTHER + 12)), options=options))
    assert (tiny.verdict, tiny.p_value) == (plain.verdict, plain.p_value)
    assert plain.difference is not None
    assert tiny.difference is not None
    assert tiny.difference.low == pytest.approx(
        scale * (plain.difference.low or 0.0), rel=1e-9, abs=0.0
    )


def test_worst_float_as_a_penalty_is_survived() -> None:
    """Runs that were given the largest float there is widen the interval; nothing overflows."""
    largest = np.finfo(float).max
    bad = np.where(np.arange(12) < 3, largest, OTHER)
    row = only(compare(table(NOISE, "loss"), table(bad, "loss"), options=UP))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.difference is not None
    assert row.difference.value == pytest.approx(largest / 4)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object", "float64"])
def test_failures_are_read_from_any_column(dtype: str) -> None:
    """True and 1 are failed, missing is not."""
    failed = pd.Series([True, False] * 6).astype(dtype)
    if dtype in ("boolean", "object"):
        failed[1] = None
    row = compare(table(NOISE), table(OTHER, is_failed=failed), options=UP).rows[0]
    assert row.candidate.values == 6


def test_one_run_a_side_says_nothing() -> None:
    """One run each: a difference, no interval, p = 1, no warning."""
    row = only(compare(table([1.0]), table([2.0]), options=UP))
    assert (row.verdict, row.p_value) == (Verdict.INCONCLUSIVE, 1.0)
    assert row.difference is not None
    assert row.difference.value == 1.0


def test_row_does_not_depend_on_other_rows() -> None:
    """A metric compared alone has the figures it has among others, except for the correction."""
    base = pd.DataFrame(CHANCE.lognormal(size=(12, 4)), columns=list("abcd"))
    more = pd.DataFrame(CHANCE.lognormal(size=(13, 4)), columns=list("abcd"))
    options = replace(FAST, location=Location.IQM)
    together = compare(base, more, options=options).rows[2]
    alone = only(compare(base, more, metrics=["c"], options=options))
    assert together.p_value == alone.p_value
    assert (together.baseline, together.candidate) == (alone.baseline, alone.candidate)
    for name in ("difference", "ratio", "a12"):
        assert getattr(together, name)[:3] == pytest.approx(getattr(alone, name)[:3])


def test_cells_of_one_side_are_named() -> None:
    """They are not compared, and not forgotten."""
    base = table(NOISE, cell=["a"] * 6 + ["b"] * 6)
    more = table(NOISE, cell=["b"] * 6 + ["c"] * 6)
    found = compare(base, more)
    assert (found.only_baseline, found.only_candidate) == (("a",), ("c",))
    assert [row.cell for row in found.rows] == ["b"]


def test_frame_has_a_row_for_each() -> None:
    """Plain columns, one row a comparison, missing as missing."""
    frame = compare(table(NOISE), crashed(10), options=UP).frame()
    assert list(frame["metric"]) == ["fitness", SUCCESS_METRIC]
    assert list(frame["verdict"]) == ["worse", "worse"]
    assert np.isnan(frame.loc[0, "ratio"])
    assert frame.loc[0, "candidate_success_ratio"] == pytest.approx(2 / 12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: compare(table([]), table([1.0])),
            "no cell on both sides: the baseline has no runs",
        ),
        (
            lambda: compare(table([1.0], cell="a"), table([1.0], cell="b")),
            r"the baseline has \['a'\], the candidate \['b'\]",
        ),
        (
            lambda: compare(table([1.0]), table([1.0]), metrics=["x"]),
            "metric 'x': in neither table",
        ),
        (lambda: CompareOptions(alpha=5), "alpha=5: want a number between 0 and 1"),
        (lambda: CompareOptions(equivalences={"m": -1.0}), "want a number 0 or more"),
        (lambda: CompareOptions(resamples=3), "resamples=3: want a number 100 or more"),
    ],
)
def test_bad_input_says_what_is_wanted(call: Any, words: str) -> None:
    """Tables without a common cell, metrics and options that are none."""
    with pytest.raises(AnalysisError, match=words):
        call()
