"""
Reading a file of alert rules.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from allele_mlflow.alerts.rules import RuleSet, parse_rules
from allele_mlflow.errors import ErrorKind, SettingsError

#: Of a rules file: beyond that it is none.
MOST_BYTES = 1 << 20


def read_rules(path: str | os.PathLike[str]) -> RuleSet:
    """
    The rules in a file.

    Raises:
        SettingsError: it cannot be read, or does not hold rules.
    """
    file = Path(path)
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait for its other end
            raise _bad(file, "want a file")
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as exc:
        raise _bad(file, f"cannot be read: {exc.strerror}") from exc
    if len(data) > MOST_BYTES:
        raise _bad(file, f"want at most {MOST_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise _bad(file, f"not TOML: {exc}") from exc
    return parse_rules(text, label=str(file))


def _bad(file: Path, problem: str) -> SettingsError:
    return SettingsError(f"{file}: {problem}", kind=ErrorKind.BAD_SETTING, name=str(file))
