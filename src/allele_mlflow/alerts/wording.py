"""
What an alert says, in a line for a person.
"""

from __future__ import annotations

from allele_mlflow.alerts.rules import AlertRule, Condition

_WORDS: dict[Condition, str] = {
    "gt": "above",
    "gte": "at or above",
    "lt": "below",
    "lte": "at or below",
    "eq": "equal to",
    "ne": "other than",
}


def describe_finding(rule: AlertRule, key: str, value: float) -> str:
    """
    What a rule found: "mean of loss over 60 s is 5.2, above 5".
    """
    over = f" over {rule.window_s:g} s" if rule.window_s else ""
    if rule.condition == "nan":
        return f"{key} is not finite{over}, last {value:g}" if over else f"{key} is {value:g}"
    assert rule.condition is not None
    compared = f"{_WORDS[rule.condition]} {rule.limit:g}"
    if rule.threshold is None:
        unit = "a second" if rule.rate_per_s is not None else "a step"
        return f"{key} changes by {value:g} {unit}{over}, {compared}"
    if rule.statistic == "last":
        return f"{key} is {value:g}, {compared}"
    return f"{rule.statistic} of {key}{over} is {value:g}, {compared}"


def describe_stall(rule: AlertRule) -> str:
    """
    What has not come: "no reading of loss for 30 s".
    """
    what = "no sign of life" if rule.metric == "*" else f"no reading of {rule.metric}"
    return f"{what} for {rule.stalled_s:g} s"
