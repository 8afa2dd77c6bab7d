"""
What a score of shift_evidence.py is worth: how often a series without a shift reaches it.

Set on simulated series, seeds 0 to 9999, as the highest over the kinds of noise that a history may
have (normal, log-normal, with one spike, AR(1) 0.25 and 0.5): `python
benchmarks/shift_thresholds.py` prints the table again. How well it holds on other seeds is what
`python benchmarks/detection.py` measures.
"""

from __future__ import annotations

import math

import numpy as np

from allele_mlflow.analysis.shift_evidence import FloatArray

#: Rates of false alarms that the table has scores for.
RATES = (0.1, 0.05, 0.025, 0.01)
#: Of each number of points, the scores that series without a shift reach at these rates.
_SCORES = {
    6: (0.74, 1.38, 1.93, 2.52),
    7: (0.79, 1.36, 1.87, 2.49),
    8: (0.82, 1.32, 1.83, 2.51),
    10: (0.78, 1.23, 1.74, 2.43),
    12: (0.75, 1.24, 1.71, 2.44),
    15: (0.62, 1.18, 1.72, 2.41),
    20: (0.43, 1.06, 1.58, 2.40),
    25: (0.25, 0.91, 1.53, 2.39),
    30: (0.23, 0.76, 1.44, 2.24),
    35: (0.28, 0.76, 1.40, 2.08),
    40: (0.35, 0.84, 1.29, 2.17),
    50: (0.40, 0.86, 1.42, 2.28),
    60: (0.47, 0.95, 1.47, 2.18),
    80: (0.53, 1.11, 1.71, 2.78),
    100: (0.52, 1.07, 1.69, 2.56),
    140: (0.59, 1.17, 1.79, 2.83),
    200: (0.64, 1.22, 1.87, 2.82),
}
COUNTS = tuple(_SCORES)
_TABLE: FloatArray = np.array([_SCORES[count] for count in COUNTS])


def p_of_score(score: float, count: int) -> float:
    """
    How often a series of so many points without a shift has such a score or a higher one.

    Between the numbers of the table it is interpolated, on logarithms. Beyond the last rate it
    falls as the Bayes factor rises, which is slower than simulated series do (the test of this
    module shows it).
    """
    counts = np.log(COUNTS)
    scores = [float(np.interp(math.log(count), counts, column)) for column in _TABLE.T]
    if score >= scores[-1]:
        return RATES[-1] * math.exp(scores[-1] - score)
    logs = np.log(RATES)
    if score >= scores[0]:
        return math.exp(float(np.interp(score, scores, logs)))
    slope = (logs[0] - logs[1]) / (scores[1] - scores[0])
    return min(1.0, RATES[0] * math.exp(slope * (scores[0] - score)))
