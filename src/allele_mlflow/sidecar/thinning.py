"""
Which readings of a stream MLflow is shown where `SAMPLING` has a rule for their key. Pure.

The first reading of a key is shown, the last one too, and in between what the rule says of each
window. What is shown as it came is the user's record, delivered; the others are archived, and what
stands for them (a mean, the last one at the end) is nobody's record.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from allele_mlflow.records import Reading
from allele_mlflow.resolution import Rule, find_rule


class KeyState(msgspec.Struct, array_like=True):
    """
    How far one key of a stream is: what the next reading meets.

    Attributes:
        window: The number of the present window.
        last: The newest reading.
        best: Of the window, for `min` and `max`.
        total: Sum of the window's values.
        count: Its readings.
        is_waiting: Something was read that is not shown yet, nor stood for.
    """

    window: int
    last: Reading
    best: Reading
    total: float
    count: int = 1
    is_waiting: bool = False


@dataclass
class Thinned:
    """
    What became of some readings.

    Attributes:
        shown: To be delivered as they came: without a rule, or chosen by it.
        standing_in: To be sent too, for others.
        archived: How many are not shown, by rule.
        ruled: All readings whose key has a rule, in order.
        states: How far their keys are after them.
    """

    shown: list[Reading] = field(default_factory=list)
    standing_in: list[Reading] = field(default_factory=list)
    archived: Counter[str] = field(default_factory=Counter)
    ruled: list[Reading] = field(default_factory=list)
    states: dict[str, KeyState] = field(default_factory=dict)


class Thinner:
    """
    Applies rules to one stream, reading by reading: chunks may be cut anywhere. Not thread-safe.
    """

    def __init__(self, rules: tuple[Rule, ...], states: Mapping[str, KeyState]) -> None:
        """
        Args:
            rules: See `resolution`.
            states: Where another process left off.
        """
        self._rules = rules
        self._states = dict(states)
        self._rule_by_key: dict[str, Rule | None] = {}

    def rule_of(self, key: str) -> Rule | None:
        """
        The rule of a key, None where it has none.
        """
        if key not in self._rule_by_key:
            self._rule_by_key[key] = find_rule(self._rules, key)
        return self._rule_by_key[key]

    def take(self, readings: Iterable[Reading]) -> Thinned:
        """
        Take in what was read next.
        """
        found = Thinned()
        for reading in readings:
            rule = self.rule_of(reading.key)
            if rule is None:
                found.shown.append(reading)
                continue
            found.ruled.append(reading)
            state = self._states.get(reading.key)
            window = rule.window_of(reading.step, reading.timestamp_ms)
            if state is None or window != state.window:
                is_shown = state is None or rule.choice == "one"
                if state is not None and not is_shown and state.is_waiting:
                    found.standing_in.append(_stand_in(rule, state))
                state = KeyState(window, reading, reading, reading.value)
                state.is_waiting = not is_shown
                self._states[reading.key] = state
            else:
                is_shown = False
                state.last = reading
                state.total += reading.value
                state.count += 1
                state.is_waiting = True
                if _is_better(rule, reading.value, state.best.value):
                    state.best = reading
            if is_shown:
                found.shown.append(reading)
            else:
                found.archived[rule.text] += 1
        for reading in found.ruled:
            if reading.key not in found.states:
                state = self._states[reading.key]
                found.states[reading.key] = msgspec.structs.replace(state)
        return found

    def finish(self) -> list[Reading]:
        """
        What is to be sent at the end: of each key its last window, and its last reading.

        It may go on afterwards; a second call gives what has come since.
        """
        found = []
        for key, state in self._states.items():
            rule = self.rule_of(key)
            if rule is None or not state.is_waiting:
                continue
            state.is_waiting = False
            if rule.choice != "one":
                found.append(_stand_in(rule, state))
            if state.last not in found[-1:]:
                found.append(state.last)
        return found


def _is_better(rule: Rule, value: float, best: float) -> bool:
    """
    As of `numpy.min` and `max`: NaN is seen.
    """
    if math.isnan(best):
        return False
    if math.isnan(value):
        return True
    return value < best if rule.choice == "min" else value > best


def _stand_in(rule: Rule, state: KeyState) -> Reading:
    if rule.choice != "mean":
        return state.best
    return state.last._replace(value=state.total / state.count)
