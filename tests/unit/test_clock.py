"""
Times as text.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.clock import read_iso, utc_iso


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


NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-28T12:00", NOON),
        ("2026-11-28 12:00:00", NOON),
        ("2026-11-28T12:00:00Z", NOON),
        (" 2026-11-28t12:00:00.000z ", NOON),
        ("2026-11-28T13:30:00+01:30", NOON),
        ("2026-11-28T12:00:00.000+00:00", NOON),
        ("20261128T120000", NOON),
        ("2026-11-28T12:00:00.5", NOON.replace(microsecond=500_000)),
        ("2026-11-28T12:00:00,123456789Z", NOON.replace(microsecond=123_456)),
        ("2026-11-28", NOON.replace(hour=0)),
        ("2026-11", NOON.replace(day=1, hour=0)),
        ("2026", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_in_any_form(text: str, moment: datetime) -> None:
    """With or without offset, fraction and time of day: the same moment, in UTC."""
    found = read_iso(text)
    assert found == moment
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "28.11.2026", "2026-13", "2026-11-31", "0000", "26", "1e3", "99999-01-01"),
        *("2026-11-28T25:00", "0001-01-01T00:00+14:00", "2026-11-28T12:00 CET"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    """It is said what was got, and what is wanted."""
    with pytest.raises(ValueError, match="is no time: want ISO 8601"):
        read_iso(text)


@given(st.integers(0, 1 << 62))
def test_what_is_written_is_read(timestamp_ns: int) -> None:
    """A time of ours comes back as the millisecond that it was."""
    found = read_iso(utc_iso(timestamp_ns))
    assert abs(found.timestamp() - timestamp_ns / 1e9) < 0.0011
