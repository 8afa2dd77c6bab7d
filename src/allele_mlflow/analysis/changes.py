"""
Shifts of the level of one series: where, by how much, and how sure that is.

Isolated points are set aside first. Then the series is asked for the likeliest single shift
(shift_evidence.py). Its p-value is the larger of two: how often series without a shift reach such a
score, autocorrelated ones among them (shift_null.py), and how often this very series has a higher
one for its best split when it is shuffled, which is exact for noise of any shape as long as its
order means nothing. Where there is a shift, both sides are asked in turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from allele_mlflow.analysis.outliers import find_outliers
from allele_mlflow.analysis.shift_evidence import (
    MIN_SEGMENT,
    FloatArray,
    score_best_splits,
    score_shifts,
)
from allele_mlflow.analysis.shift_null import p_of_score
from allele_mlflow.errors import AnalysisError, ErrorKind, TooFewPointsError

#: Fewest finite points of a series in which a shift can be found.
MIN_POINTS = 2 * MIN_SEGMENT
#: The newest points that are looked at; older ones are left out.
MAX_POINTS = 200
PERMUTATIONS = 999
#: Spread below which a series is constant but for rounding, as part of its largest value.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Preset:
    """
    How sure and how large a shift has to be.

    Attributes:
        name: For a person.
        alpha: Highest p-value; of a whole scan, its rate of false discoveries.
        min_delta_sigma: Least shift in standard deviations of the noise.
        min_delta_ratio: Least shift as part of the level before.
    """

    name: str
    alpha: float
    min_delta_sigma: float
    min_delta_ratio: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 0.1:
            raise AnalysisError(
                f"alpha={self.alpha}: want a rate of false alarms above 0 and up to 0.1",
                kind=ErrorKind.BAD_DATA,
                alpha=self.alpha,
            )


STRICT = Preset(name="strict", alpha=0.01, min_delta_sigma=1.0, min_delta_ratio=0.01)
SENSITIVE = Preset(name="sensitive", alpha=0.025, min_delta_sigma=0.5, min_delta_ratio=0.005)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """
    One shift of the level.

    Attributes:
        index: Of the first point of the new level, in the series as it was given.
        level_before: Mean of the points up to the shift before this one, outliers left out.
        level_after: Mean of those up to the next shift.
        sigma: Standard deviation of the noise around both.
        p: See find_shifts.

    Units: levels and sigma as the values.
    """

    index: int
    level_before: float
    level_after: float
    sigma: float
    p: float

    @property
    def delta(self) -> float:
        """
        After minus before.
        """
        return self.level_after - self.level_before

    @property
    def delta_ratio(self) -> float | None:
        """
        The shift as part of the level before (0.1 = +10 % of its size); None where that is 0.
        """
        return self.delta / abs(self.level_before) if self.level_before else None

    def is_large(self, preset: Preset) -> bool:
        """
        Whether it is worth telling.
        """
        is_clear = abs(self.delta) >= preset.min_delta_sigma * self.sigma
        ratio = self.delta_ratio
        return is_clear and (ratio is None or abs(ratio) >= preset.min_delta_ratio)


@dataclass(frozen=True, kw_only=True)
class ShiftTest:
    """
    Whether one stretch has a shift.

    Attributes:
        split: The likeliest first point of a new level, counted from the stretch's first.
        p: How often a stretch without a shift would look like it.
    """

    split: int
    p: float


@dataclass(frozen=True)
class Cleaned:
    """
    A series without missing and isolated points.

    Attributes:
        values: What is left, oldest first, at most MAX_POINTS.
        indices: Where each stood in the series as it was given.
        outliers: Where the isolated points stood.
    """

    values: FloatArray
    indices: npt.NDArray[np.intp]
    outliers: npt.NDArray[np.intp]


def too_few_points(count: int) -> TooFewPointsError:
    """
    What is wrong with a series of so few finite values.
    """
    return TooFewPointsError(
        f"{count} finite point{'' if count == 1 else 's'}: want at least {MIN_POINTS}",
        kind=ErrorKind.TOO_FEW_POINTS,
        got=count,
        wanted=MIN_POINTS,
    )


def clean(values: FloatArray, *, spreads: FloatArray | None = None) -> Cleaned:
    """
    Set missing and isolated points aside.

    Args:
        values: Shape (n,), oldest first; NaN is missing.
        spreads: As for find_outliers.
    Raises:
        AnalysisError: an infinite value, or not one dimension.
        TooFewPointsError: fewer than MIN_POINTS finite values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        what = "an infinite value" if values.ndim == 1 else f"shape {values.shape}"
        raise AnalysisError(
            f"a series with {what}: want one dimension of numbers, NaN where there is none",
            kind=ErrorKind.BAD_VALUE,
        )
    indices = np.flatnonzero(~np.isnan(values))[-MAX_POINTS:]
    if len(indices) < MIN_POINTS:
        raise too_few_points(len(indices))
    kept_spreads = None if spreads is None else np.asarray(spreads, dtype=np.float64)[indices]
    is_outlier = find_outliers(values[indices], spreads=kept_spreads)
    kept = indices[~is_outlier]
    return Cleaned(values[kept], kept, indices[is_outlier])


def find_shifts(values: FloatArray, *, preset: Preset = STRICT, seed: int = 0) -> list[Shift]:
    """
    Split one series into stretches of constant level.

    Args:
        values: Shape (n,), oldest first. NaN marks a missing value and is skipped.
        preset: How sure and how large a shift has to be.
        seed: Of the shuffling.
    Returns:
        Shifts in time order; empty when one level explains the series. `p` of each is that of its
        own stretch; that of the surest is about the whole series.
    Raises:
        AnalysisError: as of `clean`.
        TooFewPointsError: fewer than MIN_POINTS finite values.

    Cost: O(n^2) for a series without a shift; each stretch with one is shuffled 999 times.
    """
    cleaned = clean(values)
    whole = judge_stretch(cleaned.values, seed=seed, enough=preset.alpha)
    return shifts_of(cleaned, whole, preset=preset, alpha=preset.alpha, seed=seed)


def shifts_of(
    cleaned: Cleaned, whole: ShiftTest, *, preset: Preset, alpha: float, seed: int
) -> list[Shift]:
    """
    The same for a series that is cleaned and judged as a whole, at a level that a scan has set.
    """
    found: dict[int, float] = {}
    waiting = [(0, len(cleaned.values), whole)]
    while waiting:
        start, stop, test = waiting.pop()
        split = start + test.split
        if test.p > alpha or not _shift(cleaned, (start, split, stop), test.p).is_large(preset):
            continue
        found[split] = test.p
        for part in ((start, split), (split, stop)):
            stretch = cleaned.values[slice(*part)]
            waiting.append((*part, judge_stretch(stretch, seed=seed, enough=alpha)))
    edges = [0, *sorted(found), len(cleaned.values)]
    shifts = [
        _shift(cleaned, (edges[i - 1], edges[i], edges[i + 1]), found[edges[i]])
        for i in range(1, len(edges) - 1)
    ]
    return [shift for shift in shifts if shift.is_large(preset)]


def judge_stretch(stretch: FloatArray, *, seed: int, enough: float = 1.0) -> ShiftTest:
    """
    Whether a stretch has a shift somewhere.

    Args:
        stretch: Shape (n,), finite, n <= MAX_POINTS, without isolated points.
        seed: Of the shuffling.
        enough: A p-value above it need not be known better: nothing is shuffled.
    """
    spread = float(np.ptp(stretch)) if len(stretch) else 0.0
    if len(stretch) < MIN_POINTS or spread <= _ROUNDING * float(np.abs(stretch).max()):
        return ShiftTest(split=0, p=1.0)
    scores = score_shifts(stretch[None, :])
    score, split = float(scores.score[0]), int(scores.split[0])
    p = p_of_score(score, len(stretch))
    if p <= enough:
        p = max(p, _shuffled_p(stretch, seed))
    return ShiftTest(split=split, p=p)


def _shuffled_p(stretch: FloatArray, seed: int) -> float:
    """
    How often the series shuffled scores higher; 0 where it never does: then the shuffling has
    nothing to object, and the other p-value stands. With few points that is all it can say, for
    there are few ways to shuffle them.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(stretch, (PERMUTATIONS, 1)), axis=1)
    score = float(score_best_splits(stretch[None, :])[0])
    # in another order sums round differently, so the same score may come out a little higher
    higher = int((score_best_splits(shuffled) > score + 1e-9 * (1 + abs(score))).sum())
    return (higher + 1) / (PERMUTATIONS + 1) if higher else 0.0


def _shift(cleaned: Cleaned, edges: tuple[int, int, int], p: float) -> Shift:
    start, split, stop = edges
    before, after = cleaned.values[start:split], cleaned.values[split:stop]
    squares = ((before - before.mean()) ** 2).sum() + ((after - after.mean()) ** 2).sum()
    return Shift(
        index=int(cleaned.indices[split]),
        level_before=float(before.mean()),
        level_after=float(after.mean()),
        sigma=math.sqrt(squares / (stop - start - 2)),
        p=p,
    )
