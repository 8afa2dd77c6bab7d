"""
Rules of alerts: what a file may say, and what a mistake says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.alerts.rules import (
    AlertRule,
    Hook,
    RuleSet,
    check_rules,
    decode_rules,
    encode_rules,
    parse_rules,
)
from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.records import AlertRaised

FULL = """
hooks_per_minute = 3

[[alerts]]
name = "memory grows"
metric = "system/process_rss_megabytes"
condition = "gt"
rate_per_s = 5
window_s = 60
minimum_samples = 10
cooldown_s = 300
severity = "error"
description = "a leak?"

[[alerts.hooks]]
command = ["notify", "--loud"]

[[alerts]]
name = "silent"
metric = "*"
stalled_s = 30.5

[[alerts]]
name = "not now"
metric = "x"
condition = "nan"
enabled = false

[[hooks]]
webhook = "https://user:secret@hooks.example/T0/B0/token?key=1"
severity = "critical"
timeout_s = 5
"""

GOOD = {"name": "n", "metric": "m", "condition": "gt", "threshold": 1}


def rule(**more: Any) -> AlertRule:
    fields: dict[str, Any] = {"name": "n", "metric": "m", "condition": "gt", "threshold": 1.0}
    return AlertRule(**(fields | more))


def as_toml(**fields: Any) -> str:
    lines = [f"{name} = {value!r}".replace("True", "true") for name, value in fields.items()]
    return "\n".join(["[[alerts]]", *lines])


def test_file_is_read_whole() -> None:
    """
    Rules, their hooks and those of all come from one file; a rule that is not enabled is none.
    """
    found = parse_rules(FULL, label="f.toml")
    grows, silent = found.alerts
    assert (grows.limit, grows.statistic, grows.window_s) == (5.0, "mean", 60.0)
    assert grows.hooks == (Hook(command=("notify", "--loud")),)
    assert (silent.stalled_s, silent.condition, silent.limit) == (30.5, None, None)
    assert (found.hooks_per_minute, found.hooks[0].timeout_s, found.has_hooks) == (3, 5.0, True)


@pytest.mark.parametrize("text", ["", "hooks_per_minute = 1", "# nothing"])
def test_file_without_rules_is_one(text: str) -> None:
    """
    A file may hold nothing yet.
    """
    assert parse_rules(text, label="f").alerts == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [", "f.toml: not TOML: "),
        ("[[alert]]", "f.toml: alert: no such field; did you mean alerts?"),
        ("[alerts]", "f.toml: alerts: want tables [[alerts]], got dict"),
        (as_toml(metric="m"), "f.toml: [[alerts]] 1: Object missing required field `name`"),
        (as_toml(**GOOD, treshold=1), "f.toml: rule 'n': treshold: no such field; did you mean"),
        (
            as_toml(**GOOD | {"condition": "greater"}),
            "f.toml: rule 'n': condition='greater': want one of gt, gte, lt, lte, eq, ne, nan",
        ),
        (
            as_toml(**GOOD, severity="critcal"),
            "f.toml: rule 'n': severity='critcal': want one of info, warning, error, critical; "
            "did you mean 'critical'?",
        ),
        (
            as_toml(**GOOD | {"threshold": "5"}),
            "f.toml: rule 'n': threshold: want a number, got text",
        ),
        (as_toml(**GOOD, window_s=-1), "f.toml: rule 'n': window_s: want a number >= 0"),
        (as_toml(**GOOD, minimum_samples=0), "f.toml: rule 'n': minimum_samples: want a whole"),
        (
            as_toml(**GOOD) + "\n" + as_toml(**GOOD),
            "f.toml: rule 'n': name: another rule has it; want its own",
        ),
        (
            as_toml(**GOOD) + "\n[[alerts.hooks]]\nwebhoock = 'http://h'",
            "f.toml: rule 'n': hook 1: webhoock: no such field; did you mean webhook?",
        ),
        (
            "[[hooks]]\nwebhook = 'ftp://u:secret@h/'",
            "f.toml: [[hooks]] 1: webhook: want an address that begins with http://",
        ),
        ("[[hooks]]\ncommand = []", "f.toml: [[hooks]] 1: want command"),
        ("[[hooks]]\ncommand = 'ls -l'", "f.toml: [[hooks]] 1: command: want a list, got text"),
    ],
)
def test_mistake_names_file_rule_and_field(text: str, told: str) -> None:
    """
    The message alone is enough to mend the file, and quotes no address.
    """
    with pytest.raises(SettingsError) as caught:
        parse_rules(text, label="f.toml")
    assert str(caught.value).startswith(told)
    assert caught.value.kind is ErrorKind.BAD_SETTING
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": " "}, "name=' ': want 1 to 250 characters"),
        ({"window_s": "5"}, "a field of a wrong type"),
        ({"name": "x" * 251}, "want 1 to 250 characters"),
        ({"metric": ""}, "metric='': want a key"),
        ({"condition": None, "threshold": None}, "want condition (one of gt, "),
        ({"threshold": None}, "want one of threshold, rate_per_s, rate_per_step, got none"),
        ({"rate_per_s": 1.0}, "got threshold, rate_per_s"),
        ({"condition": "nan"}, "condition='nan' stands alone: leave threshold out"),
        ({"stalled_s": 1.0}, "stalled_s stands alone: leave threshold, condition out"),
        ({"threshold": float("nan")}, "threshold=nan: want a finite number"),
        ({"cooldown_s": float("inf")}, "cooldown_s=inf: want a finite number"),
        ({"aggregate": "max"}, "aggregate='max': want a window_s above 0"),
        (
            {"threshold": None, "rate_per_step": 1.0, "window_s": 9.0, "aggregate": "mean"},
            "aggregate='mean': rate_per_step looks at the whole window; leave it out",
        ),
    ],
)
def test_contradiction_is_told(fields: dict[str, Any], told: str) -> None:
    """
    Fields that contradict each other are refused in a program as in a file.
    """
    with pytest.raises(ValueError, match=r"want|leave|wrong") as caught:
        rule(**fields)
    assert told in str(caught.value)


def test_rules_travel_without_hooks() -> None:
    """
    What goes into the spool is the rules alone: no address, no command.
    """
    (grows, silent) = parse_rules(FULL, label="f").alerts
    text = encode_rules([grows, silent])
    assert "notify" not in text
    found, problems = decode_rules(text)
    assert [one.name for one in found] == ["memory grows", "silent"]
    assert (found[0].rate_per_s, found[0].hooks, problems) == (5.0, (), [])


def test_rule_of_another_version_is_left_out() -> None:
    """
    A rule that this version cannot read costs that rule only; unknown fields are passed over.
    """
    text = encode_rules([rule(name="a"), rule(name="b")])
    newer = text.replace('"name":"a"', '"name":"a","shiny":1').replace('"gt"', '"near"', 1)
    found, problems = decode_rules(newer)
    assert [one.name for one in found] == ["b"]
    assert problems[0].startswith("rule 'a': ")
    broken, told = decode_rules("{")
    assert (broken, len(told)) == ([], 1)
    assert decode_rules("") == ([], [])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([rule(), rule()], "alerts: rule 'n': name: another rule has it"),
        ([rule(hooks=(Hook(command=("a",)),))], "alerts: rule 'n': hooks: want them in a rules"),
        ([rule(minimum_samples=2.5)], "alerts: rule 'n': minimum_samples: want a whole"),
    ],
)
def test_rules_of_a_program_are_checked(given: list[AlertRule], told: str) -> None:
    """
    Rules made in code are checked as those of a file, and bring no hooks into the spool.
    """
    with pytest.raises(SettingsError) as caught:
        check_rules(given, label="alerts")
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("hook", "label"),
    [
        (Hook(command=("/usr/bin/notify", "--token=secret")), "/usr/bin/notify"),
        (Hook(webhook="https://u:secret@h.example:8/secret?k=secret"), "https://h.example:8"),
        (Hook(webhook="http://h?secret"), "http://h"),
    ],
)
def test_hook_shows_no_secret(hook: Hook, label: str) -> None:
    """
    Of a hook the program or the host is shown, and nothing that may be a secret.
    """
    assert hook.label == label
    assert "secret" not in repr(RuleSet(hooks=(hook,)))


def test_hooks_of_an_alert() -> None:
    """
    An alert calls the hooks of its own rule, and of all where it is grave enough; one that a
    program tells under a rule's name does not call that rule's.
    """
    own, grave = Hook(command=("own",)), Hook(command=("grave",), severity="error")
    found = RuleSet(alerts=(rule(hooks=(own,)), rule(name="other")), hooks=(grave,))

    def told(**more: Any) -> list[Hook]:
        given: dict[str, Any] = {"timestamp_ns": 1, "alert_id": "a", "name": "n"}
        given["severity"] = "warning"
        return found.hooks_for(AlertRaised(**(given | more)))

    assert told(rule="n", source="rule") == [own]
    assert told(rule="other", source="rule", severity="critical") == [grave]
    assert told(rule="n", severity="error") == [grave]
    assert told() == []


@pytest.mark.parametrize(
    ("metric", "key", "is_for"),
    [
        ("loss", "loss", True),
        ("loss/*", "loss/a/b", True),
        ("loss/*", "Loss/a", False),
        ("system/gpu_[01]_*", "system/gpu_1_power_usage_watts", True),
        ("a[b", "a[b", True),
        ("*", "anything", True),
    ],
)
def test_metric_is_a_glob(metric: str, key: str, is_for: bool) -> None:
    """
    A rule is for a key, or for all keys that fit its glob, by case.
    """
    assert rule(metric=metric).is_for(key) is is_for


def test_example_file() -> None:
    """
    config/alerts.toml holds no rule as it stands, and good ones where every # is taken away.
    """
    text = (Path(__file__).parents[3] / "config" / "alerts.toml").read_text(encoding="utf-8")
    assert parse_rules(text, label="f") == RuleSet()
    switched_on = re.sub(r"(?m)^#(?=[\[a-z])", "", text)
    found = parse_rules(switched_on, label="f")
    assert len(found.alerts) == switched_on.count("[[alerts]]") == text.count("#[[alerts]]")
    assert (len(found.hooks), sum(len(rule.hooks) for rule in found.alerts)) == (1, 1)
