"""
The rules of alerts that a suite gives its cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from allele_mlflow.alerts.rules import AlertRule, check_rules, parse_rules
from allele_mlflow.errors import SettingsError
from allele_mlflow.matrix.suite import bad_suite


def read_alerts(tables: Sequence[Mapping[str, Any]]) -> tuple[AlertRule, ...]:
    """
    The rules in a suite's `[[alerts]]`, as in an alerts file, but for hooks: those stand in a file
    of the user's own, for a suite is sent from machine to machine.

    Raises:
        MatrixError: one is none.
    """
    if not tables:
        return ()
    try:
        found = parse_rules(tomli_w.dumps({"alerts": list(tables)}), label="alerts")
        return check_rules(found.alerts, label="alerts")
    except SettingsError as exc:
        raise bad_suite(("alerts",), str(exc)) from exc
