"""
What a check has found, and what it means for the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.settings import mask_secrets


class Level(StrEnum):
    """
    How bad a finding is. Only a problem has an exit code.
    """

    GOOD = "good"
    #: Worth knowing; nothing has to be done.
    NOTE = "note"
    #: Works, but not as well as it could, or not in all circumstances.
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """
    One line of the doctor's: what was looked at, what was found, what to do about it.

    `exit_code`: USAGE or UNREACHABLE for a problem. `facts`: numbers for programs, each with its
    unit in its name.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""
    exit_code: int = ExitCode.FINE
    facts: dict[str, Any] = {}


def good(check: str, text: str, **facts: Any) -> Finding:
    """
    All is well.
    """
    return Finding(check=check, level=Level.GOOD, text=text, facts=facts)


def note(check: str, text: str, remedy: str = "", **facts: Any) -> Finding:
    """
    Worth knowing.
    """
    return Finding(check=check, level=Level.NOTE, text=text, remedy=remedy, facts=facts)


def warning(check: str, text: str, remedy: str, **facts: Any) -> Finding:
    """
    Works, with a but.
    """
    return Finding(check=check, level=Level.WARNING, text=text, remedy=remedy, facts=facts)


def misconfigured(check: str, text: str, remedy: str, **facts: Any) -> Finding:
    """
    A problem that a setting, or room on a disk, would end.
    """
    return Finding(
        check=check,
        level=Level.PROBLEM,
        text=text,
        remedy=remedy,
        exit_code=ExitCode.USAGE,
        facts=facts,
    )


def unusable(check: str, text: str, remedy: str, **facts: Any) -> Finding:
    """
    A problem of the store, or of the MLflow that speaks to it.
    """
    return Finding(
        check=check,
        level=Level.PROBLEM,
        text=text,
        remedy=remedy,
        exit_code=ExitCode.UNREACHABLE,
        facts=facts,
    )


def worst_exit_code(findings: Iterable[Finding]) -> ExitCode:
    """
    The command's exit code: a wrong setting before a store that cannot be used.
    """
    codes = {finding.exit_code for finding in findings}
    order = (ExitCode.USAGE, ExitCode.UNREACHABLE)
    return next((code for code in order if code in codes), ExitCode.FINE)


def run_check(
    name: str, check: Callable[[], Sequence[Finding]], *, is_vital: bool = False
) -> list[Finding]:
    """
    The findings of a check; one that fails itself is a finding too, and ends nothing.

    Args:
        name: What was to be checked.
        check: Does it.
        is_vital: Without it nobody knows whether the store can be used: no exit code 0 then.
    """
    try:
        return list(check())
    except Exception as exc:  # noqa: BLE001 - the other checks are still wanted
        said = mask_secrets(" ".join(str(exc).split())) or "no more is known"
        text = f"could not be checked: {type(exc).__name__}: {said}"
        remedy = "please report this with the line above, it is a fault of the check"
        return [unusable(name, text, remedy) if is_vital else warning(name, text, remedy)]
