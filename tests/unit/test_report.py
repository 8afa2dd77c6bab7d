"""
What `close` returns and says.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import DeliveryReport, Ledger


def report(**more: Any) -> DeliveryReport:
    """
    A report of a delivered run, with changes.
    """
    given: dict[str, Any] = {
        "experiment": "allele_benchmark_e",
        "run_uid": "0123456789abcdef",
        "run_id": "f" * 32,
        "run_url": "http://server/#/experiments/1/runs/" + "f" * 32,
        "status": "FINISHED",
        "ledger": Ledger(delivered={"metric": 3183, "phase": 4}),
        "is_complete": True,
        "elapsed_s": 12.1,
        "waited_s": 0.3,
        "overhead_ratio": 0.004,
        "spool": Path("/spool"),
    }
    return DeliveryReport(**(given | more))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "3,183 metrics delivered, 0 rejected, 0 pending; logger 0.4 % of 12.1 s"),
        (
            {"overhead_ratio": None},
            "3,183 metrics delivered, 0 rejected, 0 pending; run of 12.1 s",
        ),
        (
            {"ledger": Ledger()},
            "0 metrics delivered, 0 rejected, 0 pending; logger 0.4 % of 12.1 s",
        ),
        (
            {"ledger": Ledger(rejected={"bad_key": 1000, "store": 1}, pending=5000, torn=2)},
            "0 metrics delivered, 1,001 rejected (bad_key 1,000, store 1), 5,000 pending, 2 torn; "
            "logger 0.4 % of 12.1 s",
        ),
        (
            {"ledger": Ledger(dropped={"quota": 1200, "closed": 3})},
            "0 metrics delivered, 0 rejected, 0 pending, 1,203 dropped (closed 3, quota 1,200); "
            "logger 0.4 % of 12.1 s",
        ),
    ],
)
def test_ledger_line(change: dict[str, Any], line: str) -> None:
    """
    One plain line says what became of the records and what the logger cost.
    """
    assert report(**change).line() == line


def test_complete_report_has_two_lines() -> None:
    """
    Experiment and address, then the ledger.
    """
    told = report()
    assert told.lines() == [f"experiment allele_benchmark_e, run {told.run_url}", told.line()]


def test_run_without_address_goes_by_its_uid() -> None:
    """
    A run that MLflow does not know yet is named by our own id.
    """
    assert report(run_url=None).lines()[0] == "experiment allele_benchmark_e, run 0123456789abcdef"


def test_incomplete_report_says_how_to_go_on() -> None:
    """
    How many records wait, where, the command that delivers them, and the store's last words.
    """
    told = report(
        is_complete=False,
        spool=Path("/my spool"),
        ledger=Ledger(pending=1234),
        last_error="nobody answers",
    )
    waiting, error = told.lines()[2:]
    assert waiting.startswith("1,234 records wait in /my spool")
    assert "allele-mlflow sync '/my spool'" in waiting
    assert error == "last error: nobody answers"


@pytest.mark.parametrize("uri", ["URI", "https://me:***@host"])
def test_sync_is_told_the_store_that_the_spool_does_not_know(uri: str) -> None:
    """
    An offline run has no store, and secrets are in no spool: the command says where one belongs.
    """
    told = report(is_complete=False, ledger=Ledger(pending=1), needed_uri=uri)
    assert told.lines()[2].rpartition(" --tracking-uri ")[2].strip("'") == uri


def test_report_without_spool_has_nothing_to_sync() -> None:
    """
    Where there was no spool there is nothing to deliver later.
    """
    told = report(is_complete=False, spool=None, ledger=Ledger(dropped={"no_spool": 7}))
    assert len(told.lines()) == 2


def test_report_does_not_change() -> None:
    """
    A report is a fact.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        report().status = "FAILED"  # type: ignore[misc]
