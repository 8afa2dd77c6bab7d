"""
The guide's figures on recommendations and predictions are those that were measured.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
RATE = re.compile(r"\d+\.\d \[\d+\.\d, \d+\.\d\]")


def test_every_rate_was_measured() -> None:
    """Each rate with its interval in the guide stands in advice.json."""
    report = json.loads((ROOT / "benchmarks" / "results" / "advice.json").read_text())
    rows = [row for name in ("nulls", "slopes", "curves") for row in report[name]]
    rates = [one for row in rows for one in row.values() if isinstance(one, dict)]
    measured = {
        "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * one[k] for k in ("ratio", "low", "high")))
        for one in rates
    }
    told = RATE.findall((ROOT / "docs" / "guides" / "recommendations.md").read_text())
    assert len(told) >= 20
    assert set(told) <= measured
