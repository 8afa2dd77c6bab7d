"""
The last lines that a cell wrote.
"""

from __future__ import annotations

import os
from pathlib import Path

TAIL_BYTES = 32 << 10
TAIL_LINES = 200


def read_tail(path: Path) -> str:
    """
    The last lines of a file as text, whatever its bytes are; empty where there is none.

    Shape: at most `TAIL_LINES` lines and `TAIL_BYTES` bytes.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return ""
    lines = data.decode("utf-8", "backslashreplace").splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]  # the first is cut
    return "\n".join(lines[-TAIL_LINES:])
