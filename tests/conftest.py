"""
What holds for every test: a known environment, Hypothesis profiles, and no silent skip in CI.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Generator

import hypothesis
import pytest

# Nobody's own settings decide how a test ends, and no test reports home.
for _name in [name for name in os.environ if name.startswith(("ALLELE_MLFLOW_", "MLFLOW_"))]:
    del os.environ[_name]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# The index of spools is the user's own: no test writes into it.
_state_home = tempfile.mkdtemp(prefix="allele-mlflow-state-")
os.environ["XDG_STATE_HOME"] = _state_home
atexit.register(shutil.rmtree, _state_home, ignore_errors=True)

# `make test &` and nohup start us deaf to Ctrl-C, and every script of a test would be so too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: on a busy machine of two cores the clock says nothing about the code.
hypothesis.settings.register_profile("usual", deadline=None)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile("usual")

SKIPS_FAIL = os.environ.get("CI", "").lower() == "true"
#: A skip may begin so in CI: this machine lacks a device that no package can bring.
ALLOWED_SKIP = "hardware:"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (SKIPS_FAIL and report.outcome == "skipped") or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIP):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, and not for {ALLOWED_SKIP!r}: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
