"""
One detector of others on given series, in an environment of its own that has NumPy and it.

    python detection_arm.py NAME SERIES.json RESULT.json LONGEST_S

SERIES.json is a list of groups, each a list of series; RESULT.json gets, group by group, the places
that each series is said to shift at. What is not done after LONGEST_S seconds is left out, so every
group gets an equal part of the time.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Detector = Callable[[list[float]], list[int]]


def load_otava() -> Detector:
    """
    Apache Otava with the options of its command line: window 50, p 0.001, no least magnitude.
    """
    from otava.analysis import compute_change_points  # type: ignore[import-not-found]

    return lambda series: [int(one.index) for one in compute_change_points(series)[0]]


def load_asv() -> Detector:
    """
    The steps that asv publishes its regressions from.
    """
    from asv.step_detect import detect_steps  # type: ignore[import-not-found]

    return lambda series: [int(one[0]) for one in detect_steps(series)[1:]]


def load_ruptures() -> Detector:
    """
    PELT with squared loss and BIC's penalty, 2 ln n, in units of the noise; segments of 3 or more.
    """
    import numpy
    import ruptures  # type: ignore[import-not-found]

    def detect(series: list[float]) -> list[int]:
        jumps = [abs(b - a) for a, b in itertools.pairwise(series)]
        sigma = 1.4826 * statistics.median(jumps) / math.sqrt(2)
        search = ruptures.Pelt(model="l2", min_size=3, jump=1).fit(numpy.array(series) / sigma)
        return [int(one) for one in search.predict(pen=2 * math.log(len(series)))[:-1]]

    return detect


LOADERS = {"apache-otava": load_otava, "asv": load_asv, "ruptures": load_ruptures}


def detect_all(detect: Detector, groups: list[list[list[float]]], longest_s: float) -> list[Any]:
    """
    What is found in each series of each group, as far as the time goes.
    """
    found: list[list[list[int]]] = []
    share_s = longest_s / max(1, len(groups))
    for group in groups:
        ends_s = time.monotonic() + share_s
        done: list[list[int]] = []
        for series in group:
            if time.monotonic() > ends_s:
                break
            done.append(detect(series))
        found.append(done)
    return found


def main() -> int:
    """
    The command line.
    """
    name, series, result, longest_s = sys.argv[1:]
    groups = json.loads(Path(series).read_text(encoding="utf-8"))
    found = detect_all(LOADERS[name](), groups, float(longest_s))
    Path(result).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
