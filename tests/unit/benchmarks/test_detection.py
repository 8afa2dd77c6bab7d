"""
The benchmark of change detection: its series, its counting, and the table in the docs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import detection
from benchmarks.made_series import NULLS, SHIFTS, Shift, draw_null, draw_shifted

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "understanding" / "change-detection.md"


def test_table_in_the_docs_is_the_measured_one() -> None:
    """
    The page has the table of the committed JSON, line by line.
    """
    report = json.loads(detection.OUTPUT.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8").splitlines()
    table = detection.as_markdown(report)
    start = page.index(table[0])
    assert page[start : start + len(table)] == table


def test_measured_false_alarms_keep_the_bound() -> None:
    """
    The committed figures hold what the page promises: at most 1 % of at least 2,000 series of each
    noise, with an upper bound of 2 %; the sensitive preset at most 2.5 %.
    """
    report = json.loads(detection.OUTPUT.read_text(encoding="utf-8"))
    assert detection.judge(report) == 0
    for name in NULLS:
        for count in detection.COUNTS:
            strict, sensitive = (
                report["detectors"][preset]["groups"][f"{name}, n = {count}"]
                for preset in ("strict", "sensitive")
            )
            assert strict["of"] >= 2_000
            assert strict["ratio"] <= 0.01
            assert sensitive["ratio"] <= 0.025


def test_series_are_the_same_each_time() -> None:
    """
    A seed, a kind and a length make one series; another seed makes another one.
    """
    for name in NULLS:
        assert draw_null(name, 30, 5).tolist() == draw_null(name, 30, 5).tolist()
        assert draw_null(name, 30, 5).tolist() != draw_null(name, 30, 6).tolist()


def test_noise_is_what_it_is_called() -> None:
    """
    Spread, skew, spike and autocorrelation, over 300 series each.
    """
    many = {name: np.array([draw_null(name, 60, seed) for seed in range(300)]) for name in NULLS}
    assert many["gaussian"].std() == pytest.approx(0.03, rel=0.03)
    assert np.log(many["log-normal"]).std() == pytest.approx(0.25, rel=0.03)
    assert ((many["one spike"] > 1.3).sum(axis=1) == 1).all()
    wander = many["AR(1) 0.5"] - 1
    assert wander.std() == pytest.approx(0.03, rel=0.05)
    assert (wander[:, 1:] * wander[:, :-1]).mean() / wander.var() == pytest.approx(0.5, abs=0.03)


def test_shift_is_as_large_as_said() -> None:
    """
    Two sigma with ten points after: the last ten are higher by 0.06 on average.
    """
    drawn = np.array([draw_shifted(Shift(2, 10), 40, seed) for seed in range(300)])
    assert drawn[:, 30:].mean() - drawn[:, :30].mean() == pytest.approx(0.06, abs=0.002)
    assert Shift(2, 10).name == "2 sigma, 10 after"
    assert SHIFTS[:3] == (Shift(2, 3), Shift(2, 10), Shift(3, 3))


def test_what_counts_as_found() -> None:
    """
    Without a shift anything is an alarm; with one, what is within two points of it is found.
    """
    assert detection.is_hit([12], None)
    assert not detection.is_hit([], None)
    assert detection.is_hit([5, 39], 37)
    assert not detection.is_hit([5, 34, 40], 37)


def test_upper_bound_is_the_published_one() -> None:
    """
    No hit in 100: 1 - 0.05^(1/100), the exact form of the rule of three.
    """
    assert detection.rate(0, 100)["upper"] == pytest.approx(1 - 0.05**0.01, abs=1e-4)
    assert detection.rate(3, 3)["upper"] == 1.0
    assert detection.rate(10, 1000)["ratio"] == 0.01


def test_fixed_threshold_is_the_usual_one() -> None:
    """
    Hand-made: 1, 1, 1, 1.2 alarms at the fourth point, 1.05 does not, three points never.
    """
    assert detection.find_fixed(np.array([1, 1, 1, 1.2, 1.05])) == [3]
    assert detection.find_fixed(np.array([1, 5, 1])) == []


def test_seeds_of_thresholds_are_not_used() -> None:
    """
    Whatever --seed is, the series are others than those of seeds 0 to 9999.
    """
    assert detection.FIRST_SEED >= 10_000
    assert detection.SEEDS_EACH >= 10_000
