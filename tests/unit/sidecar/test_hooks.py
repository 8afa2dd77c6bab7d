"""
Hooks: how often they are called, and which files they may come from.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.alerts.rules import Hook
from allele_mlflow.clock import now_ns
from allele_mlflow.records import AlertRaised, RunSpec
from allele_mlflow.sidecar import hooks as hooks_module
from allele_mlflow.sidecar.hook_calls import split_credentials
from allele_mlflow.sidecar.hooks import STALE_NS, HookLimits, Hooks

RULES = """
[[alerts]]
name = "r"
metric = "m"
condition = "nan"

[[alerts.hooks]]
command = ["true"]
every_s = 0
"""


def hooks_of(file: Path) -> Hooks:
    fields: dict[str, Any] = {"run_uid": "u", "experiment": "e", "profile": "p"}
    fields["owner_stream"] = "s"
    return Hooks(RunSpec(**fields, created_ns=1, owner_pid=1, alerts_file=str(file)))


def alert(**more: Any) -> AlertRaised:
    fields: dict[str, Any] = {"timestamp_ns": now_ns(), "alert_id": "a", "name": "r"}
    fields["severity"] = "warning"
    return AlertRaised(**(fields | {"rule": "r", "source": "rule"} | more))


def waiting(hooks: Hooks) -> int:
    return len(hooks._jobs)


def test_each_rule_rests_and_all_share_a_minute() -> None:
    """
    A hook is called once in `every_s` for each rule, and all hooks of a run so often in a minute.
    """
    limits, hook = HookLimits(3), Hook(command=("a",), every_s=10.0)
    assert limits.may_call("r", hook, 0.0)
    assert not limits.may_call("r", hook, 9.9)
    assert limits.may_call("other", hook, 9.9)
    assert limits.may_call("r", hook, 10.0)
    assert not limits.may_call("third", hook, 20.0)
    assert limits.may_call("third", hook, 60.0)


@pytest.mark.parametrize(
    ("address", "bare", "header"),
    [
        ("https://h/x?y", "https://h/x?y", None),
        ("https://user:p%40ss@h:8/x", "https://h:8/x", "Basic dXNlcjpwQHNz"),
        ("https://token@h", "https://h", "Basic dG9rZW4="),
    ],
)
def test_credentials_go_into_the_header(address: str, bare: str, header: str | None) -> None:
    """
    User and password of an address are sent as HTTP wants them, and not in the address.
    """
    assert split_credentials(address) == (bare, header)


async def test_alert_calls_its_rules_hook(tmp_path: Path) -> None:
    """
    An alert of a rule waits for its call; one of another name, or too old, calls nobody.
    """
    file = tmp_path / "alerts.toml"
    file.write_text(RULES)
    hooks = hooks_of(file)
    hooks.offer(alert(name="other", rule="other"), lambda _: b"")
    hooks.offer(alert(timestamp_ns=now_ns() - STALE_NS - 1), lambda _: b"")
    assert waiting(hooks) == 0
    hooks.offer(alert(), lambda _: b"")
    assert waiting(hooks) == 1


async def test_what_is_too_much_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Calls beyond the limits are left out, and the next one says how many.
    """
    monkeypatch.setattr(hooks_module, "MOST_WAITING", 2)
    file = tmp_path / "alerts.toml"
    file.write_text(RULES)
    hooks, told = hooks_of(file), list[int]()

    def payload(left_out: int) -> bytes:
        told.append(left_out)
        return b""

    for _ in range(5):
        hooks.offer(alert(), payload)
    assert (waiting(hooks), hooks.left_out) == (2, 3)
    hooks._jobs.clear()
    hooks.offer(alert(), payload)
    assert told == [0, 0, 3]


@pytest.mark.parametrize("kind", ["missing", "everybody's", "bad", "a folder"])
async def test_file_that_is_not_ours_calls_nothing(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Hooks of a file that everybody can write, or that is none, are not called, and the log says why.
    """
    file = tmp_path / "alerts.toml"
    if kind == "a folder":
        file.mkdir()
    elif kind != "missing":
        file.write_text(RULES if kind == "everybody's" else "x")
        file.chmod(0o666 if kind == "everybody's" else 0o600)
    hooks = hooks_of(file)
    with caplog.at_level(logging.WARNING):
        hooks.offer(alert(), lambda _: b"")
        hooks.offer(alert(), lambda _: b"")
    assert waiting(hooks) == 0
    assert [record for record in caplog.messages if "no hooks: " in record] == caplog.messages
    assert len(caplog.messages) == 1
