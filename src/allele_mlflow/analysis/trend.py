"""
The scan: many histories at once, and what is new in them.

A history is one metric of one cell over the executions of a suite. All histories are judged
together: the more there are, the surer each finding must be, so that of those that a scan names at
most `preset.alpha` are expected to be false (Benjamini and Hochberg).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import false_discovery_control

from allele_mlflow.analysis.changes import (
    MIN_POINTS,
    STRICT,
    Cleaned,
    Preset,
    Shift,
    ShiftTest,
    clean,
    judge_stretch,
    shifts_of,
    too_few_points,
)
from allele_mlflow.analysis.drift import MIN_DRIFT_POINTS, Drift, measure_drift
from allele_mlflow.analysis.outliers import NEIGHBOURS, noise_sigma
from allele_mlflow.analysis.shift_evidence import FloatArray
from allele_mlflow.analysis.trend_findings import (
    LOCATION_SLACK,
    FindingKey,
    FindingKind,
    TrendFinding,
    key_of,
    outcome_of,
)
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction

#: What a frame of histories must have; `environment` (a fingerprint) and `spread` (standard
#: deviation of the repeats behind a value) may be there.
COLUMNS = ("cell", "metric", "execution_id", "started_ms", "value")
_SERIES = ["cell", "metric"]


class SkippedSeries(NamedTuple):
    """
    A history that was not judged, and why.
    """

    cell: str
    metric: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrendReport:
    """
    What a scan found.

    Attributes:
        findings: By cell and metric, then in time order.
        judged_count: Histories in which a change could be found.
        skipped: Those in which none could.
    """

    findings: list[TrendFinding]
    judged_count: int
    skipped: list[SkippedSeries]


@dataclass(frozen=True)
class _History:
    """
    One series, oldest first, and what it is without missing and isolated points.
    """

    cell: str
    metric: str
    rows: pd.DataFrame
    cleaned: Cleaned
    whole: ShiftTest

    def strings(self, column: str) -> list[str]:
        """
        A column of text.
        """
        return [str(one) for one in self.rows[column]]


class _Place(NamedTuple):
    """
    Where a finding is, and what it says, before it has a key.
    """

    kind: FindingKind
    position: int
    levels: tuple[float, float]
    sigma: float
    p: float | None = None
    slope_per_step: float | None = None
    environments: tuple[str, str] | None = None
    is_newest: bool = False
    is_alone: bool = True


def scan_trends(
    frame: pd.DataFrame,
    *,
    preset: Preset = STRICT,
    directions: Mapping[str, Direction] | None = None,
    known: Collection[FindingKey] = (),
    seed: int = 0,
) -> TrendReport:
    """
    What changed in the histories of a suite.

    Args:
        frame: One row for each execution, cell and metric, with COLUMNS; a value of NaN is missing.
        preset: How sure and how large a change has to be.
        directions: Which way is better, for metrics that units.py does not know.
        known: Keys of earlier scans' findings; what is found again keeps its key.
        seed: Of the shuffling.
    Raises:
        AnalysisError: a column is missing, or an execution has two values of one metric and cell.

    Cost: benchmarks/trend_scan.py measures it; histories with a change take most.
    """
    _check(frame)
    histories: list[_History] = []
    long, skipped = _without_short(frame)
    for (cell, metric), rows in long.groupby(_SERIES, sort=True):
        try:
            histories.append(_read(str(cell), str(metric), rows, preset, seed))
        except AnalysisError as exc:  # too few points, or an infinite one
            skipped.append(SkippedSeries(str(cell), str(metric), exc.message))
    alpha = _level([one.whole.p for one in histories], preset.alpha)
    findings = [
        _finding(history, place, directions or {}, known)
        for history in histories
        for place in sorted(_places(history, preset, alpha, seed), key=lambda one: one.position)
    ]
    skipped.sort()
    return TrendReport(findings=findings, judged_count=len(histories), skipped=skipped)


def _without_short(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[SkippedSeries]]:
    """
    The histories that may be long enough, and those that are not: there may be thousands, each of
    one execution, and one by one they would take seconds.
    """
    values = frame["value"].to_numpy(dtype=np.float64)
    told = pd.DataFrame({"count": ~np.isnan(values), "odd": np.isinf(values)})
    totals = told.groupby([frame[name].to_numpy() for name in _SERIES]).transform("sum")
    counts, odd = totals["count"].to_numpy(), totals["odd"].to_numpy()
    is_short = (counts < MIN_POINTS) & (odd == 0)  # an odd one is told, however short
    short = frame[is_short].assign(count=counts[is_short])[[*_SERIES, "count"]]
    skipped = [
        SkippedSeries(str(cell), str(metric), too_few_points(int(count)).message)
        for cell, metric, count in short.drop_duplicates().itertuples(index=False, name=None)
    ]
    return frame[~is_short], skipped


def _check(frame: pd.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise AnalysisError(
            f"a frame of histories without {', '.join(missing)}: want {', '.join(COLUMNS)}",
            kind=ErrorKind.BAD_DATA,
            missing=missing,
        )
    doubles = frame.duplicated([*_SERIES, "execution_id"])
    if doubles.any():
        cell, metric, execution = frame.loc[doubles, [*_SERIES, "execution_id"]].iloc[0]
        raise AnalysisError(
            f"two values of {metric} of {cell} in execution {execution}: want one, of all repeats",
            kind=ErrorKind.BAD_DATA,
        )


def _read(cell: str, metric: str, rows: pd.DataFrame, preset: Preset, seed: int) -> _History:
    rows = rows.sort_values(["started_ms", "execution_id"])
    spreads = _spreads(rows)
    cleaned = clean(rows["value"].to_numpy(dtype=np.float64), spreads=spreads)
    whole = judge_stretch(cleaned.values, seed=seed, enough=preset.alpha)
    return _History(cell, metric, rows, cleaned, whole)


def _spreads(rows: pd.DataFrame) -> FloatArray | None:
    if "spread" not in rows.columns:
        return None
    spreads: FloatArray = rows["spread"].to_numpy(dtype=np.float64)
    return spreads


def _level(p_values: list[float], alpha: float) -> float:
    """
    The p-value up to which series are named; below 0 where none is.
    """
    if not p_values:
        return -1.0
    adjusted = false_discovery_control(p_values)
    named = int((adjusted <= alpha).sum())
    return alpha * named / len(p_values) if named else -1.0


def _places(history: _History, preset: Preset, alpha: float, seed: int) -> Iterator[_Place]:
    """
    What one history has; outliers always, the rest where it is one of those that are named.
    """
    yield from _outliers(history)
    if history.whole.p > alpha:
        return
    whole = history.whole
    shifts = shifts_of(history.cleaned, whole, preset=preset, alpha=alpha, seed=seed)
    drift = _drift(history.cleaned, shifts, preset)
    if drift is not None:
        ends = drift.intercept + drift.slope_per_step * history.cleaned.indices[[0, -1]]
        yield _Place(
            FindingKind.DRIFT,
            int(history.cleaned.indices[-1]),
            (float(ends[0]), float(ends[1])),
            noise_sigma(history.cleaned.values),
            p=max(drift.p, history.whole.p),
            slope_per_step=drift.slope_per_step,
        )
        return
    for shift in shifts:
        environments = _environments(history, shift.index)
        kind = FindingKind.CHANGE if environments is None else FindingKind.ENVIRONMENT_CHANGE
        levels = (shift.level_before, shift.level_after)
        yield _Place(kind, shift.index, levels, shift.sigma, p=shift.p, environments=environments)


def _outliers(history: _History) -> Iterator[_Place]:
    values = history.rows["value"].to_numpy(dtype=np.float64)
    sigma = noise_sigma(history.cleaned.values) if len(history.cleaned.values) > 1 else 0.0
    for index in history.cleaned.outliers:
        beside = np.r_[values[max(0, index - NEIGHBOURS) : index], values[index + 1 :][:NEIGHBOURS]]
        levels = (float(np.nanmedian(beside)), float(values[index]))
        middle = levels[0] / 2 + levels[1] / 2
        is_like = values > middle if levels[1] > middle else values < middle
        yield _Place(
            FindingKind.OUTLIER,
            int(index),
            levels,
            sigma,
            is_newest=index == len(values) - 1,
            is_alone=int(is_like.sum()) == 1,
        )


def _drift(cleaned: Cleaned, shifts: list[Shift], preset: Preset) -> Drift | None:
    """
    The drift that explains the series better than its shifts do; None where they do.

    Shifts are compared with a straight line by the Bayesian information criterion: each has a place
    and a size, the line a slope.
    """
    count = len(cleaned.values)
    if count < MIN_DRIFT_POINTS:
        return None
    at = cleaned.indices.astype(np.float64)
    drift = measure_drift(cleaned.values, positions=at)
    if drift.p > preset.alpha:
        return None
    rest = cleaned.values - drift.slope_per_step * at
    steps = [int(np.searchsorted(cleaned.indices, shift.index)) for shift in shifts]
    from_line = _squares([rest])
    from_levels = _squares(np.split(cleaned.values, steps))
    nothing = 1e-20 * _squares([cleaned.values])  # what rounding leaves of a perfect fit
    gain = np.log((from_levels + nothing) / (from_line + nothing))
    if count * gain + (2 * len(shifts) - 1) * np.log(count) <= 0:
        return None
    whole = Shift(
        index=0,
        level_before=drift.intercept + drift.slope_per_step * at[0],
        level_after=drift.intercept + drift.slope_per_step * at[-1],
        sigma=float(np.sqrt(from_line / (count - 2))),
        p=drift.p,
    )
    return drift if whole.is_large(preset) else None


def _squares(parts: list[FloatArray]) -> float:
    return sum(float(((part - part.mean()) ** 2).sum()) for part in parts)


def _environments(history: _History, index: int) -> tuple[str, str] | None:
    """
    The fingerprints before and after, where they differ at most LOCATION_SLACK executions from a
    shift; the nearest such place. None where they do not.
    """
    if "environment" not in history.rows.columns:
        return None
    given = [None if pd.isna(one) else str(one) for one in history.rows["environment"]]
    first = next((one for one in given if one is not None), "")
    # an execution without a fingerprint counts as the one before it
    prints = list(accumulate(given, lambda last, one: one or last, initial=first))[1:]
    changed = [at for at in range(1, len(prints)) if prints[at] != prints[at - 1]]
    near = min(changed, key=lambda at: abs(at - index), default=None)
    if near is None or abs(near - index) > LOCATION_SLACK:
        return None
    return prints[near - 1], prints[near]


def _finding(
    history: _History,
    place: _Place,
    directions: Mapping[str, Direction],
    known: Collection[FindingKey],
) -> TrendFinding:
    executions = history.strings("execution_id")
    key = key_of(
        history.cell,
        history.metric,
        place.kind,
        index=place.position,
        executions=executions,
        known=known,
    )
    before, after = place.levels
    direction = directions.get(history.metric)
    return TrendFinding(
        key=key,
        outcome=outcome_of(history.metric, after - before, direction=direction),
        index=place.position,
        execution_id=executions[place.position],
        started_ms=int(history.rows["started_ms"].iloc[place.position]),
        level_before=before,
        level_after=after,
        sigma=place.sigma,
        spread=_median_spread(_spreads(history.rows)),
        p=place.p,
        slope_per_step=place.slope_per_step,
        environments=place.environments,
        is_newest=place.is_newest,
        is_alone=place.is_alone,
    )


def _median_spread(spreads: npt.NDArray[np.float64] | None) -> float | None:
    known = np.array([]) if spreads is None else spreads[~np.isnan(spreads)]
    return float(np.median(known)) if len(known) else None
