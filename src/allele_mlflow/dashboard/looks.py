"""
How states and short curves look: a sign and a style each, never a colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

_GOOD, _BAD, _WARN, _LIVE, _SOFT = "good", "bad", "warn", "live", "soft"


class Look(NamedTuple):
    """
    A sign before a word, and the class of both.
    """

    symbol: str
    style: str


_LOOKS = {
    "good": Look("✓", _GOOD),
    "finished": Look("✓", _GOOD),
    "improvement": Look("✓", _GOOD),
    "passed": Look("✓", _GOOD),
    "alive": Look("✓", _GOOD),
    "served": Look("✓", _GOOD),
    "resolved": Look("✓", _GOOD),
    # as the figure of differences draws them
    "better": Look("▲", _GOOD),
    "worse": Look("▼", _BAD),
    "different": Look("◆", _WARN),
    "equivalent": Look("□", _SOFT),
    "inconclusive": Look("○", _SOFT),
    "failures": Look("✕", _BAD),
    "failed": Look("✕", _BAD),
    "regression": Look("✕", _BAD),
    "killed": Look("■", _BAD),
    "critical": Look("▲", _BAD),
    "error": Look("▲", _BAD),
    "production": Look("★", _GOOD),
    "staging": Look("◆", _LIVE),
    "candidate": Look("▲", _LIVE),
    "development": Look("○", _SOFT),
    "archived": Look("■", _SOFT),
    "interrupted": Look("■", _WARN),
    "goes": Look("✕", _WARN),
    "unclear": Look("!", _WARN),
    "warning": Look("!", _WARN),
    "active": Look("!", _WARN),
    "silent": Look("!", _WARN),
    "not served": Look("!", _WARN),
    "running": Look("▶", _LIVE),
    "waiting": Look("…", _LIVE),
}
_OTHER = Look("•", _SOFT)
_WIDTH, _HEIGHT = 120, 24


def look_of(state: object) -> Look:
    """
    How a state looks; one that is not known, like a thing of no importance.
    """
    return _LOOKS.get(str(state).casefold(), _OTHER)


def sparkline(window: Iterable[Sequence[object]]) -> Markup:
    """
    The last readings as a small curve, those that are no finite number left out.

    Args:
        window: Step, time and value of each, as `watch --json` has them.
    """
    values = [float(one[2]) for one in window if isinstance(one[2], int | float)]
    if len(values) < 2:
        return Markup()
    low, high = min(values), max(values)
    span = high - low or 1.0
    points = " ".join(
        f"{place * _WIDTH / (len(values) - 1):.1f},"
        f"{1 + (_HEIGHT - 2) * (1 - (value - low) / span if high > low else 0.5):.1f}"
        for place, value in enumerate(values)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline points="{}"/></svg>'
    ).format(_WIDTH, _HEIGHT, points)
