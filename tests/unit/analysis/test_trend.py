"""
Scans of many histories: classes, directions, what is known already, and how sure a finding is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from allele_mlflow.analysis.changes import SENSITIVE
from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.analysis.trend import TrendReport, scan_trends
from allele_mlflow.analysis.trend_findings import (
    FindingKey,
    FindingKind,
    Outcome,
    key_of,
    outcome_of,
)
from allele_mlflow.errors import AnalysisError
from allele_mlflow.units import Direction

SECONDS = "phase/evaluate/seconds"


def noise(seed: int, count: int = 40) -> FloatArray:
    """
    Normal noise of 3 % around 1.
    """
    return 1 + 0.03 * np.random.default_rng(seed).standard_normal(count)


def history(
    values: FloatArray,
    *,
    metric: str = SECONDS,
    cell: str = "a=1",
    environment: list[str] | None = None,
    first: int = 0,
) -> pd.DataFrame:
    """
    One history as a frame.
    """
    count = len(values)
    frame = pd.DataFrame(
        {
            "cell": cell,
            "metric": metric,
            "execution_id": [f"e{first + index:03}" for index in range(count)],
            "started_ms": 1_000 * (first + np.arange(count)),
            "value": values,
        }
    )
    if environment is not None:
        frame["environment"] = environment
    return frame


def shifted(index: int = 30, delta: float = 0.3, seed: int = 1) -> FloatArray:
    """
    Noise with one shift.
    """
    return noise(seed) + delta * (np.arange(40) >= index)


def p_values(frame: pd.DataFrame) -> list[float]:
    """
    Of the changes that a scan of this history alone finds.
    """
    return [one.p for one in scan_trends(frame).findings if one.p is not None]


def kinds(report: TrendReport) -> list[FindingKind]:
    """
    The classes of all findings.
    """
    return [one.kind for one in report.findings]


def test_regression_is_found_named_and_dated() -> None:
    """
    A phase that became slower: class, outcome, levels, execution, and a line that says so.
    """
    (finding,) = scan_trends(history(shifted())).findings
    assert (finding.kind, finding.outcome) == (FindingKind.CHANGE, Outcome.REGRESSION)
    assert (finding.index, finding.execution_id, finding.started_ms) == (30, "e030", 30_000)
    assert finding.key == FindingKey("a=1", SECONDS, FindingKind.CHANGE, "e030")
    assert finding.delta_ratio == pytest.approx(0.3, abs=0.03)
    assert finding.words.startswith("regression: phase/evaluate/seconds of a=1 rose by ")


def test_faster_is_an_improvement() -> None:
    """
    The other way round it is one, and a metric nobody knows the direction of is neutral.
    """
    faster = scan_trends(history(shifted(delta=-0.3))).findings[0]
    unknown = scan_trends(history(shifted(), metric="mine")).findings[0]
    assert (faster.outcome, unknown.outcome) == (Outcome.IMPROVEMENT, Outcome.NEUTRAL)
    assert " fell by " in faster.words


def test_caller_knows_the_direction() -> None:
    """
    What the caller says of a metric counts, against the table too.
    """
    frame = history(shifted(), metric="mine")
    higher = scan_trends(frame, directions={"mine": Direction.HIGHER}).findings[0]
    lower = scan_trends(frame, directions={"mine": Direction.LOWER}).findings[0]
    assert (higher.outcome, lower.outcome) == (Outcome.IMPROVEMENT, Outcome.REGRESSION)
    assert outcome_of(SECONDS, 1.0, direction=None) is Outcome.REGRESSION
    assert outcome_of(SECONDS, 0.0, direction=None) is Outcome.NEUTRAL


@pytest.mark.parametrize("count", [3, 40])
def test_infinite_value_leaves_out_its_history_alone(count: int) -> None:
    """
    A history with an infinite value is named with the reason; the others are judged.
    """
    values = noise(3, count)
    values[1] = np.inf
    report = scan_trends(pd.concat([history(shifted()), history(values, cell="a=2")]))
    assert [one.key.cell for one in report.findings] == ["a=1"]
    assert report.judged_count == 1
    ((cell, metric, reason),) = report.skipped
    assert (cell, metric) == ("a=2", SECONDS)
    assert "an infinite value" in reason


def test_single_execution_is_an_outlier() -> None:
    """
    One slow execution is told as one, with what is usual beside it, and is no change.
    """
    values = noise(2)
    values[12] = 1.8
    (finding,) = scan_trends(history(values)).findings
    assert (finding.kind, finding.index, finding.p) == (FindingKind.OUTLIER, 12, None)
    assert finding.level_before == pytest.approx(1.0, abs=0.05)
    assert finding.words.startswith("outlier: phase/evaluate/seconds of a=1 was 1.8 once")


def test_newest_execution_is_not_told_as_once() -> None:
    """
    A newest value like the one before it is beside those before, and did not come once.
    """
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.008, 1.993])
    (finding,) = scan_trends(history(values)).findings
    beside = "is 1.993 in the newest execution, beside 1 of those before"
    assert finding.words == f"outlier: {SECONDS} of a=1 {beside}"


def test_outlier_that_came_again_is_not_told_as_once() -> None:
    """
    Two slow executions far from each other are two outliers, neither the only one.
    """
    values = noise(2)
    values[[12, 25]] = 1.8
    first, second = scan_trends(history(values)).findings
    for finding in (first, second):
        assert finding.words.startswith(f"outlier: {SECONDS} of a=1 was 1.8, beside ")


def test_steady_rise_is_a_drift() -> None:
    """
    A slope is one finding, with its steepness, and not a staircase of changes.
    """
    (finding,) = scan_trends(history(noise(3, 60) + 0.01 * np.arange(60))).findings
    assert (finding.kind, finding.outcome) == (FindingKind.DRIFT, Outcome.REGRESSION)
    assert finding.slope_per_step == pytest.approx(0.01, rel=0.1)
    assert finding.level_after - finding.level_before == pytest.approx(0.59, rel=0.1)
    assert finding.key.execution_id == ""


def test_perfect_line_is_a_drift() -> None:
    """
    Without any noise too.
    """
    assert kinds(scan_trends(history(1 + 0.1 * np.arange(30.0)))) == [FindingKind.DRIFT]


@pytest.mark.parametrize("delta", [0.2, 1.0])
def test_two_levels_are_no_drift(delta: float) -> None:
    """
    A shift, though Mann-Kendall sees it rise, stays a change.
    """
    for index in (10, 20, 30):
        report = scan_trends(history(shifted(index=index, delta=delta)))
        assert kinds(report) == [FindingKind.CHANGE]


@pytest.mark.parametrize("moved", [28, 30, 32])
def test_change_with_the_environment_is_told_apart(moved: int) -> None:
    """
    Another fingerprint at the shift, or two executions beside it: an environment change.
    """
    prints = ["old"] * moved + ["new"] * (40 - moved)
    (finding,) = scan_trends(history(shifted(), environment=prints)).findings
    assert finding.kind is FindingKind.ENVIRONMENT_CHANGE
    assert finding.environments == ("old", "new")
    assert "with it" in finding.words


@pytest.mark.parametrize("moved", [20, 33, 40])
def test_environment_elsewhere_excuses_nothing(moved: int) -> None:
    """
    A fingerprint that changed at another time, or never, leaves a change a change.
    """
    prints = ["old"] * moved + ["new"] * (40 - moved)
    assert kinds(scan_trends(history(shifted(), environment=prints))) == [FindingKind.CHANGE]


def test_unknown_environment_is_no_other_one() -> None:
    """
    An execution without a fingerprint counts as the one before it.
    """
    frame = history(shifted(), environment=["same"] * 40)
    frame.loc[[0, 29, 30], "environment"] = None
    assert kinds(scan_trends(frame)) == [FindingKind.CHANGE]


def test_finding_keeps_its_key() -> None:
    """
    A later scan that sees the shift one execution off tells of the same finding.
    """
    known = FindingKey("a=1", SECONDS, FindingKind.CHANGE, "e031")
    far = known._replace(execution_id="e020")
    other = known._replace(kind=FindingKind.OUTLIER, execution_id="e030")
    (finding,) = scan_trends(history(shifted()), known=[far, other, known]).findings
    assert finding.key == known
    (new,) = scan_trends(history(shifted()), known=[far, other]).findings
    assert new.key.execution_id == "e030"


def test_nearest_known_key_is_taken() -> None:
    """
    Of several that are near the nearest; of executions that are gone none.
    """
    executions = [f"e{index}" for index in range(10)]
    kind = FindingKind.CHANGE
    known = [FindingKey("c", "m", kind, name) for name in ("e3", "e6", "gone")]
    found = key_of("c", "m", kind, index=5, executions=executions, known=known)
    assert found.execution_id == "e6"


def test_order_is_that_of_time() -> None:
    """
    Rows in any order give the same report.
    """
    frame = history(shifted())
    mixed = frame.sample(frac=1.0, random_state=1)
    assert scan_trends(mixed) == scan_trends(frame)


def test_missing_values_and_short_histories() -> None:
    """
    NaN is skipped; a history with too few values is named with the reason, and stops nobody.
    """
    values = shifted()
    values[[4, 29]] = np.nan
    short = history(np.r_[np.ones(5), np.full(3, np.nan)], cell="a=2")
    report = scan_trends(pd.concat([history(values), short]))
    assert [one.index for one in report.findings] == [30]
    assert report.judged_count == 1
    assert report.skipped == [("a=2", SECONDS, "5 finite points: want at least 6")]


def test_empty_frame_has_nothing() -> None:
    """
    No history is no finding.
    """
    report = scan_trends(history(noise(1)).iloc[:0])
    assert (report.findings, report.judged_count) == ([], 0)


def test_more_histories_ask_for_surer_findings() -> None:
    """
    A shift that is just sure enough alone is not among 200 histories of noise, and a clear one is;
    nothing is found in the noise.
    """
    drawn = (history(shifted(37, 0.06, seed), cell="weak") for seed in range(100))
    weak = next(frame for frame in drawn if any(p > 0.002 for p in p_values(frame)))
    crowd = [history(noise(10_000 + seed), cell=f"n{seed}") for seed in range(200)]
    clear = history(shifted(), cell="clear")
    report = scan_trends(pd.concat([*crowd, weak, clear]))
    changes = [one for one in report.findings if one.kind is not FindingKind.OUTLIER]
    assert [one.key.cell for one in changes] == ["clear"]


def test_sensitive_finds_more() -> None:
    """
    Of the same 40 weak shifts the sensitive preset finds more than the strict one.
    """
    frames = [history(shifted(37, 0.06, seed)) for seed in range(40)]
    strict = sum(bool(scan_trends(frame).findings) for frame in frames)
    sensitive = sum(bool(scan_trends(frame, preset=SENSITIVE).findings) for frame in frames)
    assert strict < sensitive


def test_spread_of_repeats_is_told_and_explains() -> None:
    """
    The spread behind values is in the finding; a point within its own is no outlier.
    """
    values = noise(2)
    values[12] = 1.8
    frame = history(values)
    frame["spread"] = 0.02
    (finding,) = scan_trends(frame).findings
    assert finding.spread == pytest.approx(0.02)
    frame.loc[12, "spread"] = 0.5
    assert scan_trends(frame).findings == []


def test_wrong_frames_are_refused() -> None:
    """
    A missing column and two values for one execution are errors that name it.
    """
    with pytest.raises(AnalysisError, match="without started_ms, value: want cell, metric"):
        scan_trends(history(noise(1)).drop(columns=["started_ms", "value"]))
    twice = pd.concat([history(noise(1)), history(noise(2))])
    with pytest.raises(AnalysisError, match="two values of phase/evaluate/seconds of a=1"):
        scan_trends(twice)
