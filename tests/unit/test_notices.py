"""
What the program is told of its delivery.
"""

from __future__ import annotations

from allele_mlflow.notices import ERROR_EVERY_S, DeliveryNotices
from allele_mlflow.records import RunState


def make(max_lag_s: float = 10.0) -> tuple[DeliveryNotices, list[str], list[float]]:
    errors: list[str] = []
    lags: list[float] = []
    notices = DeliveryNotices(errors.append, lags.append, max_lag_s=max_lag_s, started_s=0.0)
    return notices, errors, lags


def state(updated: int, *, lag_s: float = 0.0, error: str | None = None) -> RunState:
    return RunState(run_uid="r", updated_ns=updated, lag_s=lag_s, last_error=error)


def test_lag_is_told_while_it_lasts() -> None:
    """Each look beyond the limit is told, with what the sidecar said; none below it."""
    notices, _, lags = make()
    notices.look(state(1, lag_s=9.0), 1.0)
    notices.look(state(2, lag_s=11.0), 2.0)
    notices.look(state(3, lag_s=12.0), 3.0)
    notices.look(state(4, lag_s=0.0), 4.0)
    assert lags == [11.0, 12.0]


def test_silence_of_the_sidecar_is_lag() -> None:
    """A sidecar that never spoke, or speaks no more, is behind by the time of its silence."""
    notices, _, lags = make()
    notices.look(None, 5.0)
    notices.look(None, 15.0)
    notices.look(state(1), 16.0)
    notices.look(state(1), 20.0)
    notices.look(state(1), 30.0)
    assert lags == [15.0, 14.0]


def test_error_is_told_once_and_again_after_recovery() -> None:
    """The same words once; after a delivery, and a minute, once more; others once a minute."""
    notices, errors, _ = make()
    for now_s in range(0, 50, 10):
        notices.look(state(now_s + 1, error="401"), float(now_s))
    notices.look(state(90, error="500 other words"), 55.0)
    assert errors == ["401"]
    notices.look(state(100), ERROR_EVERY_S + 1)
    notices.look(state(101, error="401"), ERROR_EVERY_S + 2)
    assert errors == ["401", "401"]


def test_callback_that_raises_reaches_nobody() -> None:
    """What the user's callbacks raise stays inside."""

    def fail(_: object) -> None:
        raise RuntimeError("mine")

    notices = DeliveryNotices(fail, fail, max_lag_s=1.0, started_s=0.0)
    notices.look(state(1, lag_s=5.0, error="x"), 1.0)
    assert notices.is_wanted
    assert not DeliveryNotices(None, None, max_lag_s=1.0, started_s=0.0).is_wanted
