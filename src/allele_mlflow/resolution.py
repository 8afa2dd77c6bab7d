"""
Resolution: of which keys MLflow is to show fewer readings than there are, and which.

A rule looks at windows, of steps or of time, which are a matter of the reading alone: whoever reads
it again puts it into the same one. Nothing is thinned without a rule.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

Choice = Literal["one", "min", "mean", "max"]

_EVERY = re.compile(r"every (\d+)")
_PER = re.compile(rf"({'|'.join(get_args(Choice))}) per ([\d.]+) ?(ms|s|min|h|steps?)")
_UNIT_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
WANTED = (
    "want `glob: every 10`, `glob: one per 5 s` or `glob: min|mean|max per 5 s` (ms, s, min, h or"
    " steps), with `;` between rules"
)


class Rule(msgspec.Struct, frozen=True):
    """
    One rule: the keys that it is for, the size of a window, and what is shown of each.

    Attributes:
        pattern: A glob as of `fnmatch`, by case.
        choice: `one`: the first reading of a window; `min`, `max`: that one; `mean`: a reading of
            the last one's step and time with the mean as value.
        size: Of a window, in steps or milliseconds.
        is_by_step: In which of them.
        text: The rule as the ledger names it.
    """

    pattern: str
    choice: Choice
    size: int
    is_by_step: bool
    text: str

    def window_of(self, step: int, timestamp_ms: int) -> int:
        """
        The number of the window that a reading lies in.
        """
        return (step if self.is_by_step else timestamp_ms) // self.size


def parse_rules(text: str) -> tuple[Rule, ...]:
    """
    The rules of the setting `SAMPLING`, in order: the first that fits a key is the key's.

    Raises:
        ValueError: says which rule cannot be read, and what is wanted.
    """
    parts = [part.strip() for part in re.split(r"[;\n]", text)]
    return tuple(_parse(part) for part in parts if part)


def find_rule(rules: tuple[Rule, ...], key: str) -> Rule | None:
    """
    The rule of a key, None where all its readings are shown.
    """
    return next((rule for rule in rules if fnmatch.fnmatchcase(key, rule.pattern)), None)


def text_of(rules: Mapping[str, str]) -> str:
    """
    Rules given as a mapping from glob to rule, as the setting's text.
    """
    return "; ".join(f"{pattern}: {rule}" for pattern, rule in rules.items())


def _parse(part: str) -> Rule:
    pattern, colon, words = (piece.strip() for piece in part.rpartition(":"))
    words = " ".join(words.split())
    if not colon or not pattern:
        raise ValueError(f"{WANTED}, got {part!r}")
    choice: Choice = "one"
    if every := _EVERY.fullmatch(words):
        size, is_by_step = float(every[1]), True
    elif per := _PER.fullmatch(words):
        choice = next(known for known in get_args(Choice) if known == per[1])
        is_by_step = per[3].startswith("step")
        try:
            size = float(per[2]) * (1 if is_by_step else _UNIT_MS[per[3]])
        except ValueError:
            raise ValueError(f"want a number before {per[3]!r}, got {part!r}") from None
    else:
        raise ValueError(f"{WANTED}, got {part!r}")
    if size < 1 or size != int(size):
        unit = "steps" if is_by_step else "milliseconds"
        raise ValueError(f"want a window of whole {unit}, 1 or more, got {part!r}")
    return Rule(pattern, choice, int(size), is_by_step, f"{pattern}: {words}")
