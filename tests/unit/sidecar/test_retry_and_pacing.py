"""
When to try again, and how much CPU delivery may take.
"""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from allele_mlflow.sidecar import retry
from allele_mlflow.sidecar.pacing import BURST_CPU_S, RUNS_AT_FULL_PACE, CpuBudget, stretch_of


@given(attempt=st.integers(0, 10_000), seed=st.integers())
def test_delay_is_bounded_however_often_it_failed(attempt: int, seed: int) -> None:
    """A store that is down for a week is asked again at least every half minute."""
    delay_s = retry.delay_s(attempt, chance=random.Random(seed))
    assert 0.0 <= delay_s <= retry.CAP_S


def test_delays_grow() -> None:
    """The more failures, the longer the wait on average."""
    chance = random.Random(7)
    means = [sum(retry.delay_s(a, chance=chance) for _ in range(300)) / 300 for a in (0, 2, 4, 7)]
    assert means == sorted(means)


def test_wish_of_the_server_is_the_least_wait() -> None:
    """Retry-After is honoured, up to ten minutes."""
    chance = random.Random(1)
    assert retry.delay_s(0, retry_after_s=20.0, chance=chance) >= 20.0
    assert retry.delay_s(0, retry_after_s=1e9, chance=chance) <= retry.RETRY_AFTER_CAP_S + 1


@pytest.mark.parametrize("percent", [1.0, 25.0, 100.0])
@pytest.mark.parametrize("piece_s", [0.001, 0.05, 2.0])
def test_spent_cpu_stays_under_the_limit(percent: float, piece_s: float) -> None:
    """Whoever waits as told uses the allowed share of a core, and a burst at most more."""
    now_s = 0.0
    budget = CpuBudget(percent, now_s)
    spent_s = 0.0
    for _ in range(200):
        now_s += piece_s  # the work itself takes its time
        spent_s += piece_s
        now_s += budget.spend(piece_s, now_s)
    assert spent_s <= now_s * percent / 100.0 + BURST_CPU_S + piece_s


def test_idle_time_is_not_saved_up() -> None:
    """After an hour of rest there is no more than one burst to spend at once."""
    budget = CpuBudget(25.0, 0.0)
    assert budget.spend(1.0, 3600.0) == pytest.approx((1.0 - BURST_CPU_S) * 4)


def test_looks_do_not_grow_with_the_runs() -> None:
    """Up to so many runs each keeps its pace; of more, all together are looked at no more often."""
    assert {stretch_of(runs) for runs in range(RUNS_AT_FULL_PACE + 1)} == {1.0}
    for runs in (RUNS_AT_FULL_PACE, 100, 1_000, 10_000):
        assert runs / stretch_of(runs) == pytest.approx(RUNS_AT_FULL_PACE)
