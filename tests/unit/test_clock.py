"""
Times as text.
"""

from __future__ import annotations

import pytest

from allele_mlflow.clock import utc_iso


@pytest.mark.parametrize(
    ("timestamp_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000+00:00"),
        (1_500_000_000, "1970-01-01T00:00:01.500+00:00"),
        (10**40, "2262-04-11T23:47:16.854+00:00"),
        (-(10**40), "1677-09-21T00:12:43.145+00:00"),
    ],
)
def test_every_time_has_a_text(timestamp_ns: int, text: str) -> None:
    """A time that no calendar has, as a damaged file may say it, is told as the nearest one."""
    assert utc_iso(timestamp_ns) == text
