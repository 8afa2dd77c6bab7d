"""
Which remedy stands beside which failure of a store.
"""

from __future__ import annotations

from typing import Any

import pytest

from allele_mlflow.cli.checks.findings import Level
from allele_mlflow.cli.checks.mlflow_store import read_import, read_steps
from allele_mlflow.cli.checks.probing import ProbeResult
from allele_mlflow.cli.checks.store_failures import explain_failure
from allele_mlflow.tracking.probe import ProbeStep

STORE = "http://store"
IMPORTED = ProbeStep(step="import", version="3.17.2", place="/site/mlflow")
OPENED = ProbeStep(step="open")
WROTE = ProbeStep(step="write", call_ms=[1.0, 3.0, 2.0])
UPLOADED = ProbeStep(step="artifact")


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        ({"error": "x", "http_status": 401}, "MLFLOW_TRACKING_TOKEN"),
        ({"error": "x", "http_status": 403}, "ask the server's owner"),
        ({"error": "x", "http_status": 404}, "nothing of MLflow's is at http://store"),
        ({"error": "x", "http_status": 429}, "limits requests"),
        ({"error": "x", "http_status": 503}, "the server failed"),
        ({"error": "attempt to write a readonly database"}, "write access"),
        ({"error": "[Errno 111] Connection refused"}, "nobody listens at http://store"),
        ({"error": "[Errno -2] Name or service not known"}, "has no address"),
        ({"error": "Read timed out. (read timeout=5)"}, "answers too late"),
        ({"error": "the response body was not in a valid JSON format"}, "not MLflow that answers"),
        (
            {"error": "The filesystem tracking backend is in maintenance mode"},
            "sqlite:///mlflow.db",
        ),
        ({"error": "certificate verify failed"}, "REQUESTS_CA_BUNDLE"),
        ({"error": "No module named 'psycopg2'"}, "needs its driver"),
        ({"error": "x", "schema": "newer"}, "pip install --upgrade mlflow-skinny"),
        ({"error": "x", "schema": "older"}, "mlflow db upgrade 'http://store'"),
        ({"error": "x", "kind": "unauthorised"}, "give this user write access"),
        ({"error": "x", "kind": "store_busy"}, "another program keeps the store busy"),
        ({"error": "something else"}, "mend what the message says"),
    ],
)
def test_failure_of_the_store_has_its_remedy(facts: dict[str, Any], remedy: str) -> None:
    """
    What can be told apart has a remedy of its own, and all else one that can be followed.
    """
    _, found = explain_failure(ProbeStep(step="open", **facts), store=STORE)
    assert remedy in found


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("import: mlflow 2.1 is too old: want 3.9 or newer", "pip install --upgrade"),
        ("import: ModuleNotFoundError: No module named 'mlflow'", "pip install 'mlflow-skinny'"),
        ("import: SyntaxError: invalid syntax", "PYTHONPATH"),
    ],
)
def test_failure_of_the_import_has_its_remedy(error: str, remedy: str) -> None:
    """
    An mlflow that is missing, broken or too old: each names what to install.
    """
    (found,) = read_import(ProbeResult([ProbeStep(step="import", error=error)]))
    assert (found.check, found.level, found.exit_code) == ("mlflow", Level.PROBLEM, 6)
    assert remedy in found.remedy


@pytest.mark.parametrize("result", [ProbeResult(is_silent=True), ProbeResult(last_words="Killed")])
def test_import_that_says_nothing_is_a_problem(result: ProbeResult) -> None:
    """
    An import that hangs, or that ends the process, is told as what it is.
    """
    (found,) = read_import(result)
    assert (found.level, found.exit_code) == (Level.PROBLEM, 6)
    assert result.last_words in found.text


@pytest.mark.parametrize(
    ("steps", "is_silent", "expected"),
    [
        ([IMPORTED, OPENED, WROTE, UPLOADED, ProbeStep(step="clean")], False, {}),
        ([IMPORTED], True, {"store": "does not answer within 7 s"}),
        ([IMPORTED, OPENED], True, {"store": "does not answer"}),
        ([IMPORTED, OPENED, WROTE], True, {"artifacts": "does not answer"}),
        ([IMPORTED, OPENED, WROTE, UPLOADED], True, {"store": "does not answer"}),
        ([IMPORTED, ProbeStep(step="open", error="boo")], False, {"store": "boo"}),
        (
            [IMPORTED, OPENED, WROTE, ProbeStep(step="artifact", error="boo")],
            False,
            {"artifacts": "boo"},
        ),
        ([IMPORTED, OPENED], False, {"store": "ended without a word"}),
    ],
)
def test_problem_names_the_step_that_failed(
    steps: list[ProbeStep], is_silent: bool, expected: dict[str, str]
) -> None:
    """
    However far the probe got, its one problem is that of the step which did not end well.
    """
    result = ProbeResult(steps, is_silent=is_silent)
    findings = read_steps(result, store=STORE, experiment="e", timeout_s=7.0)
    problems = {one.check: one.text for one in findings if one.level is Level.PROBLEM}
    assert set(problems) == set(expected)
    assert all(text in problems[check] for check, text in expected.items())


@pytest.mark.parametrize(("call_ms", "level"), [(2.0, Level.GOOD), (1500.0, Level.WARNING)])
def test_latency_is_measured_and_judged(call_ms: float, level: Level) -> None:
    """
    The median and the longest call are told, and a store that takes seconds is called slow.
    """
    steps = [IMPORTED, OPENED, ProbeStep(step="write", call_ms=[call_ms, call_ms, 3 * call_ms])]
    result = ProbeResult([*steps, UPLOADED, ProbeStep(step="clean")])
    found = read_steps(result, store=STORE, experiment="e", timeout_s=7.0)[0]
    assert found.level is level
    assert found.facts == {"log_batch_p50_ms": call_ms, "log_batch_max_ms": 3 * call_ms}
