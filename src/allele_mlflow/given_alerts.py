"""
The rules of alerts that a run is given: those of a file, or those that the program made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from allele_mlflow.alerts.rules import AlertRule, check_rules, encode_rules
from allele_mlflow.alerts.shapes import rule_of
from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.queue import plain
from allele_mlflow.rules_file import read_rules
from allele_mlflow.snapshots import plain_fields


class GivenAlerts(NamedTuple):
    """
    What a run's description says of its rules: `RunSpec.alert_rules` and `RunSpec.alerts_file`.
    """

    rules: str = ""
    file: str = ""


NO_ALERTS = GivenAlerts()


def file_of(alerts: object) -> dict[str, Any]:
    """
    The setting that the argument `alerts` of `start_logger` is, where it names a file.
    """
    return {"alerts": alerts} if isinstance(alerts, (str, os.PathLike)) else {}


def find_alerts(file: str, alerts: object) -> GivenAlerts:
    """
    The rules of a run.

    Args:
        file: The setting `alerts`, or "".
        alerts: The argument of `start_logger`: rules of the program stand in place of a file's.
    Raises:
        SettingsError: a rule or a file that is none.
    """
    if alerts is None or file_of(alerts):
        found = read_rules(file) if file else None
        if found is None:
            return NO_ALERTS
        return GivenAlerts(encode_rules(found.alerts), file if found.has_hooks else "")
    if isinstance(alerts, AlertRule) or not isinstance(alerts, Iterable):
        raise _bad(f"want a file or a list of AlertRule, got {type(alerts).__name__}")
    made = [_ours(rule, number) for number, rule in enumerate(alerts, 1)]
    return GivenAlerts(encode_rules(check_rules(made, label="alerts")))


def _ours(rule: object, number: int) -> AlertRule:
    if isinstance(rule, AlertRule):
        return rule
    try:
        return rule_of(plain_fields(rule))
    except Exception as exc:
        raise _bad(f"rule {number}: {plain.said(exc)}") from exc


def _bad(problem: str) -> SettingsError:
    return SettingsError(f"alerts: {problem}", kind=ErrorKind.BAD_SETTING, name="alerts")
