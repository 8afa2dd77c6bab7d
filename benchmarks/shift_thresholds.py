"""
Sets the thresholds of change detection: the table in src/allele_mlflow/analysis/shift_null.py.

Scores of series without a shift, seeds 0 to 9999, for each length and kind of noise; a threshold is
the highest quantile over all kinds. It is set at nine tenths of the rate that it stands for, which
covers the error of 10,000 series. Figures are reported on other seeds (detection.py).

    python benchmarks/shift_thresholds.py     four minutes on two cores; prints the table
"""

from __future__ import annotations

import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.analysis.outliers import find_outliers
from allele_mlflow.analysis.shift_evidence import MIN_SEGMENT, score_shifts
from allele_mlflow.analysis.shift_null import COUNTS, RATES
from benchmarks.made_series import NULLS, FloatArray, draw_null

SERIES = 10_000
KINDS = (*NULLS, "AR(1) 0.25")
MARGIN = 0.9


def score_all(drawn: list[FloatArray]) -> FloatArray:
    """
    The scores of series without their isolated points, as find_shifts sees them.
    """
    by_count: dict[int, list[FloatArray]] = defaultdict(list)
    for values in drawn:
        kept = values[~find_outliers(values)]
        by_count[len(kept)].append(kept)
    found = [
        score_shifts(np.array(group)).score
        if count >= 2 * MIN_SEGMENT
        else np.full(len(group), -np.inf)  # too few points are left to judge
        for count, group in by_count.items()
    ]
    return np.concatenate(found)


def thresholds_of(count: int) -> list[float]:
    """
    Of one length, the score for each rate.
    """
    quantiles = 1 - MARGIN * np.array(RATES)
    rows = []
    for kind in KINDS:
        scores = score_all([draw_null(kind, count, seed) for seed in range(SERIES)])
        rows.append(np.quantile(scores, quantiles, method="higher"))
    return [round(float(one), 2) for one in np.max(rows, axis=0)]


def main() -> int:
    """
    Print the table as it stands in the module.
    """
    with ProcessPoolExecutor() as pool:
        for count, row in zip(COUNTS, pool.map(thresholds_of, COUNTS), strict=True):
            print(f"    {count}: ({', '.join(f'{one:.2f}' for one in row)}),", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
