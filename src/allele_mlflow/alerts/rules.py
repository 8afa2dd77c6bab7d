"""
Rules of alerts: what one says, and reading them from TOML.

    [[alerts]]
    name = "loss is not a number"
    metric = "loss/*"
    condition = "nan"
    severity = "critical"

A mistake is an error that names file, rule and field, and the nearest right name.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.records import SEVERITIES, AlertRaised, Severity

Condition = Literal["gt", "gte", "lt", "lte", "eq", "ne", "nan"]
Aggregate = Literal["mean", "min", "max", "last", "count"]
#: What may stand on the right of a comparison.
LIMITS = ("threshold", "rate_per_s", "rate_per_step")
NAME_LENGTH = 250
#: The table of rules in a file.
TABLE = "alerts"

_POSITIVE = Meta(gt=0)
_NOT_NEGATIVE = Meta(ge=0)
#: What msgspec calls them, and TOML does not.
_KINDS = {"float": "a number", "int": "a whole number", "str": "text", "array": "a list"}
_PLACE = re.compile(r"(?P<words>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)

T = TypeVar("T", bound=msgspec.Struct)


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    What to run or call when an alert is raised.

    Attributes:
        command: A program and its arguments; it gets the alert as JSON on its standard input. No
            shell.
        webhook: An http(s) address; it gets the same as a POST.
        severity: Alerts milder than this do not count.
        timeout_s: How long it may take.
        every_s: Of one rule at most one call in so many seconds.
    """

    command: tuple[str, ...] = ()
    webhook: str = ""
    severity: Severity = "info"
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    every_s: Annotated[float, _NOT_NEGATIVE] = 60.0

    def __post_init__(self) -> None:
        problem = None
        if bool(self.command) == bool(self.webhook):
            problem = "want command (a list of words) or webhook (an address)"
        elif self.command and not self.command[0]:
            problem = "command: want a program first"
        elif self.webhook and not re.match(r"https?://[^/\s]", self.webhook):
            # not the address: it may hold a secret
            problem = "webhook: want an address that begins with http:// or https:// and a host"
        if problem is not None:
            raise ValueError(problem)

    @property
    def label(self) -> str:
        """
        What may be shown of it: of a command the program, of an address the host, for the rest may
        be a secret.
        """
        if self.command:
            return self.command[0]
        scheme, _, rest = self.webhook.partition("://")
        return f"{scheme}://{re.split('[/?#]', rest)[0].rpartition('@')[2]}"

    def __repr__(self) -> str:
        return f"Hook({self.label!r}, severity={self.severity!r})"

    def is_for(self, severity: Severity) -> bool:
        """
        Whether an alert of this severity is grave enough.
        """
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.severity)


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One rule: which metric, what must not be, and what then.

    Attributes:
        name: Of the rule, and of its alerts.
        metric: A key or a glob of keys, by case: the user's metrics and resources (`system/...`)
            alike. Each key of each process is watched for itself.
        condition: `gt`, `gte`, `lt`, `lte`, `eq`, `ne` compare with one of the three limits that
            follow; `nan` is for a reading that is not finite and needs none.
        threshold: Limit of the value.
        rate_per_s: Limit of the change in a second.
        rate_per_step: Limit of the change in a step.
        stalled_s: In place of a condition: no reading of the metric for so long, or with metric "*"
            no sign of life of the program.
        window_s: What is looked at: readings of the last seconds; 0: the last reading (for a rate,
            the last two).
        aggregate: What of a window is compared: `mean` by default, `min`, `max`, `last`, `count`.
        minimum_samples: With fewer readings in the window (without one: ever) nothing is said.
        cooldown_s: After an alert, the next of the same rule, key and process comes no sooner.
        severity: Of its alerts.
        enabled: Whether it counts.
        description: For who gets the alert.
        hooks: What to run or call; only in a rules file.
    Raises (also when it is made):
        ValueError: fields that contradict each other.
    """

    name: str
    metric: str
    condition: Condition | None = None
    threshold: float | None = None
    rate_per_s: float | None = None
    rate_per_step: float | None = None
    stalled_s: Annotated[float, _POSITIVE] | None = None
    window_s: Annotated[float, _NOT_NEGATIVE] = 0.0
    aggregate: Aggregate | None = None
    minimum_samples: Annotated[int, Meta(ge=1)] = 1
    cooldown_s: Annotated[float, _NOT_NEGATIVE] = 60.0
    severity: Severity = "warning"
    enabled: bool = True
    description: str = ""
    hooks: tuple[Hook, ...] = ()

    def __post_init__(self) -> None:
        try:
            problem = _problem_of(self)
        except (TypeError, AttributeError) as exc:  # made by a program
            problem = f"a field of a wrong type: {exc}"
        if problem is not None:
            raise ValueError(problem)

    @property
    def limit(self) -> float | None:
        """
        The number that is compared with; None for `nan` and stalls.
        """
        given = (self.threshold, self.rate_per_s, self.rate_per_step)
        return next((one for one in given if one is not None), None)

    @property
    def statistic(self) -> Aggregate:
        """
        What of the window is compared, where it is no rate.
        """
        return self.aggregate or ("mean" if self.window_s else "last")

    def is_for(self, key: str) -> bool:
        """
        Whether a key is watched by it.
        """
        return key == self.metric or fnmatch.fnmatchcase(key, self.metric)


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a rules file holds.

    Attributes:
        alerts: The rules that count, in order.
        hooks: For every alert of the run, whoever raises it.
        hooks_per_minute: Calls of hooks of one run in a minute, at most.
    """

    alerts: tuple[AlertRule, ...] = ()
    hooks: tuple[Hook, ...] = ()
    hooks_per_minute: Annotated[int, Meta(ge=0)] = 10

    @property
    def has_hooks(self) -> bool:
        """
        Whether anything is to be run or called.
        """
        return bool(self.hooks) or any(rule.hooks for rule in self.alerts)

    def hooks_for(self, alert: AlertRaised) -> list[Hook]:
        """
        What is to be run or called for an alert: the hooks of its rule, then those of all.
        """
        is_ours = alert.source == "rule"
        own = [h for rule in self.alerts if is_ours and rule.name == alert.rule for h in rule.hooks]
        return [hook for hook in (*own, *self.hooks) if hook.is_for(alert.severity)]


def parse_rules(text: str, *, label: str) -> RuleSet:
    """
    The rules in a TOML text.

    Args:
        text: With tables `[[alerts]]`, and `[[hooks]]` and `hooks_per_minute` as of `RuleSet`.
        label: Where it is from; begins an error's message.
    Raises:
        SettingsError: not TOML, an unknown field, or a value that a field cannot have.
    """
    import tomllib  # only where there are rules: 5 ms

    try:
        document = tomllib.loads(text)
    except ValueError as exc:
        raise _bad(label, f"not TOML: {exc}") from exc
    _check_names(document, RuleSet, label)
    rules = [
        _convert_rule(table, f"{label}: {_said_of(table, number)}")
        for number, table in enumerate(_tables(document, TABLE, label), 1)
    ]
    _check_unique(rules, label)
    hooks = [
        _convert(table, Hook, f"{label}: [[hooks]] {number}")
        for number, table in enumerate(_tables(document, "hooks", label), 1)
    ]
    rest = {name: value for name, value in document.items() if name not in (TABLE, "hooks")}
    return msgspec.structs.replace(
        _convert(rest, RuleSet, label),
        alerts=tuple(rule for rule in rules if rule.enabled),
        hooks=tuple(hooks),
    )


def check_rules(rules: Sequence[AlertRule], *, label: str) -> tuple[AlertRule, ...]:
    """
    Rules that a program made, those that count.

    Raises:
        SettingsError: a field of a wrong type, two rules of one name, or hooks, which stand in
            files only: they would come into the spool.
    """
    checked = []
    for number, rule in enumerate(rules, 1):
        where = f"{label}: rule {number}"
        try:
            table = msgspec.to_builtins(rule)
        except TypeError as exc:
            raise _bad(where, str(exc)) from None
        where = f"{label}: {_said_of(table, number)}"
        if rule.hooks:
            raise _bad(where, "hooks: want them in a rules file, which the sidecar reads itself")
        checked.append(_convert(table, AlertRule, where))
    _check_unique(checked, label)
    return tuple(rule for rule in checked if rule.enabled)


def encode_rules(rules: Sequence[AlertRule]) -> str:
    """
    The rules as one text, without their hooks; "" for none.
    """
    bare = [msgspec.structs.replace(rule, hooks=()) for rule in rules]
    return msgspec.json.encode(bare).decode() if bare else ""


def decode_rules(text: str) -> tuple[list[AlertRule], list[str]]:
    """
    The rules in such a text, and in words what this version cannot read of it.
    """
    try:
        tables = msgspec.json.decode(text, type=list[dict[str, Any]]) if text else []
    except msgspec.MsgspecError as exc:
        return [], [f"rules of alerts: {exc}"]
    rules, problems = [], []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(msgspec.convert(table, AlertRule))
        except msgspec.ValidationError as exc:
            problems.append(f"{_said_of(table, number)}: {exc}")
    return rules, problems


def _problem_of(rule: AlertRule) -> str | None:
    """
    What contradicts itself in a rule, None where nothing does.
    """
    if not rule.name.strip() or len(rule.name) > NAME_LENGTH:
        return f"name={rule.name[:60]!r}: want 1 to {NAME_LENGTH} characters"
    if not rule.metric:
        return "metric='': want a key or a glob of keys, e.g. 'loss/*'"
    given = [name for name in LIMITS if getattr(rule, name) is not None]
    if rule.stalled_s is not None:
        others = given + [n for n in ("condition", "aggregate") if getattr(rule, n) is not None]
        others += ["window_s"] if rule.window_s else []
        return f"stalled_s stands alone: leave {', '.join(others)} out" if others else None
    if rule.condition is None:
        return f"want condition (one of {_listed(Condition)}) or stalled_s"
    if rule.condition == "nan":
        others = given + (["aggregate"] if rule.aggregate is not None else [])
        return f"condition='nan' stands alone: leave {', '.join(others)} out" if others else None
    if len(given) != 1:
        got = ", ".join(given) or "none"
        return f"condition={rule.condition!r}: want one of {', '.join(LIMITS)}, got {got}"
    return _problem_of_numbers(rule, given[0])


def _problem_of_numbers(rule: AlertRule, limit: str) -> str | None:
    for name in (limit, "window_s", "cooldown_s"):
        if not math.isfinite(getattr(rule, name)):
            return f"{name}={getattr(rule, name)}: want a finite number"
    if limit != "threshold" and rule.aggregate is not None:
        return f"aggregate={rule.aggregate!r}: {limit} looks at the whole window; leave it out"
    if rule.aggregate not in (None, "last") and not rule.window_s:
        return f"aggregate={rule.aggregate!r}: want a window_s above 0"
    return None


def _tables(document: Mapping[str, Any], name: str, label: str) -> list[dict[str, Any]]:
    tables = document.get(name, [])
    if isinstance(tables, list) and all(isinstance(one, dict) for one in tables):
        return tables
    raise _bad(label, f"{name}: want tables [[{name}]], got {type(tables).__name__}")


def _said_of(table: Mapping[str, Any], number: int) -> str:
    name = table.get("name")
    return f"rule {name!r}" if isinstance(name, str) and name else f"[[{TABLE}]] {number}"


def _convert_rule(table: dict[str, Any], where: str) -> AlertRule:
    hooks = table.get("hooks", [])
    if isinstance(hooks, list):
        for number, hook in enumerate(hooks, 1):
            if isinstance(hook, dict):
                _convert(hook, Hook, f"{where}: hook {number}")
    return _convert(table, AlertRule, where)


def _convert(table: Mapping[str, Any], kind: type[T], where: str) -> T:
    _check_names(table, kind, where)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as exc:
        raise _bad(where, _words_of(str(exc), table)) from None


def _check_names(table: Mapping[str, Any], kind: type[msgspec.Struct], where: str) -> None:
    known = kind.__struct_fields__
    for name in table:
        if name not in known:
            nearest = _nearest(name, known)
            hint = f"did you mean {nearest}?" if nearest else f"want one of {', '.join(known)}"
            raise _bad(where, f"{name}: no such field; {hint}", field=name, nearest=nearest)


def _words_of(text: str, table: Mapping[str, Any]) -> str:
    """
    What msgspec says of a table, with the field first and the choices that there are.
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        return text
    field = match["field"]
    choices = {"condition": Condition, "aggregate": Aggregate, "severity": Severity}.get(field)
    given = table.get(field)
    if choices is None or not isinstance(given, str):
        words = re.sub(r"`([^`]*)`", lambda kind: _kind_of(kind[1]), match["words"])
        return f"{field}: {words.replace('Expected', 'want')}"
    nearest = _nearest(given, get_args(choices))
    hint = f"; did you mean {nearest!r}?" if nearest else ""
    return f"{field}={given!r}: want one of {_listed(choices)}{hint}"


def _kind_of(name: str) -> str:
    plain = name.removesuffix(" | null")
    return _KINDS.get(plain, plain)


def _check_unique(rules: Sequence[AlertRule], label: str) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.name in seen:
            raise _bad(f"{label}: rule {rule.name!r}", "name: another rule has it; want its own")
        seen.add(rule.name)


def _nearest(name: str, known: Sequence[str]) -> str | None:
    import difflib  # only for a mistake: 5 ms

    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return near[0] if near else None


def _listed(choices: Any) -> str:
    return ", ".join(get_args(choices))


def _bad(where: str, problem: str, **facts: Any) -> SettingsError:
    return SettingsError(f"{where}: {problem}", kind=ErrorKind.BAD_SETTING, name=where, **facts)
