"""
When a cell has been repeated often enough: the interval of its objective's mean is narrow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def interval_half_width(values: Sequence[float], *, confidence: float) -> float:
    """
    Half the width of Student's interval of the mean.

    Args:
        values: Shape (n,), n >= 2, finite.
        confidence: As of 0.95.

    Units: as the values.
    """
    from scipy.special import stdtrit  # a third of a second, and only adaptive suites need it

    count = len(values)
    quantile = float(stdtrit(count - 1, 0.5 + confidence / 2))
    return quantile * statistics.stdev(values) / math.sqrt(count)


def is_known_well(values: Sequence[float], *, half_width_ratio: float, confidence: float) -> bool:
    """
    Whether the interval of the mean is within `half_width_ratio` of the mean to each side. Where
    the mean is 0, only values without any scatter are.
    """
    half_width = interval_half_width(values, confidence=confidence)
    return half_width <= half_width_ratio * abs(statistics.fmean(values))
