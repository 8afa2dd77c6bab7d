"""
When to try again: full jitter, the server's wish honoured, no cap on the attempts.
"""

from __future__ import annotations

import random

BASE_S = 0.25
CAP_S = 30.0
#: The longest server wish that we follow; beyond it somebody mistyped a unit.
RETRY_AFTER_CAP_S = 600.0


def delay_s(attempt: int, *, retry_after_s: float | None = None, chance: random.Random) -> float:
    """
    Seconds before attempt number `attempt` + 1; at least what the server asked for.

    Source: "full jitter" of M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog,
    2015.
    """
    ceiling = min(CAP_S, BASE_S * 2 ** min(attempt, 20))
    delay = chance.uniform(0.0, ceiling)
    if retry_after_s is not None:
        delay += min(max(retry_after_s, 0.0), RETRY_AFTER_CAP_S)
    return delay
