"""
What findings mean for the exit code.
"""

from __future__ import annotations

import pytest

from allele_mlflow.cli.checks.findings import (
    Finding,
    Level,
    good,
    misconfigured,
    note,
    run_check,
    unusable,
    warning,
    worst_exit_code,
)
from allele_mlflow.cli.exit_codes import ExitCode

FINE = [good("a", "t"), note("a", "t"), warning("a", "t", "r")]


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], ExitCode.FINE),
        (FINE, ExitCode.FINE),
        ([*FINE, unusable("a", "t", "r")], ExitCode.UNREACHABLE),
        ([*FINE, misconfigured("a", "t", "r")], ExitCode.USAGE),
        ([unusable("a", "t", "r"), misconfigured("a", "t", "r")], ExitCode.USAGE),
    ],
)
def test_wrong_setting_comes_before_an_unusable_store(
    findings: list[Finding], code: ExitCode
) -> None:
    """
    Notes and warnings are fine; of two problems the setting has to be mended first.
    """
    assert worst_exit_code(findings) is code


@pytest.mark.parametrize(
    ("is_vital", "level", "code"), [(False, Level.WARNING, 0), (True, Level.PROBLEM, 6)]
)
def test_check_that_fails_is_a_finding(is_vital: bool, level: Level, code: int) -> None:
    """
    A fault of a check ends nothing, tells no secret, and does not pass for a usable store.
    """

    def broken() -> list[Finding]:
        raise RuntimeError("no answer of https://me:secret@host")

    (found,) = run_check("x", broken, is_vital=is_vital)
    assert (found.check, found.level, found.exit_code) == ("x", level, code)
    assert "RuntimeError: no answer of" in found.text
    assert "secret" not in found.text
