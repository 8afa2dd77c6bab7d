"""
Making what callers hand over plain: floats, 64-bit steps, contiguous doubles, short text.

Everything that may run the caller's own code (`__float__`, `__index__`, `__repr__`, iteration)
happens here, before a slot is taken. A function gives the plain value, or a text that says what was
wanted.
"""

from __future__ import annotations

import operator
import os
import struct
from array import array
from typing import Any

from allele_mlflow.queue import layout
from allele_mlflow.queue.stream_files import WrittenSegment

_WORD = struct.Struct("<Q")
SHOWN_CHARACTERS = 200


def key(value: Any) -> Any:
    """
    A text of a class of its own (an enum's, NumPy's) as plain text; anything else as it is.
    """
    return str.__str__(value) if isinstance(value, str) and type(value) is not str else value


def number(value: Any) -> float | str:
    """
    The value as a plain float, or what was wanted instead.
    """
    if isinstance(value, (str, bytes, bytearray, bool)) or type(value).__name__ in (
        "bool_",
        "bool",
    ):
        return f"want a number, got {type(value).__name__}"
    try:
        if getattr(value, "ndim", 0):
            return f"want one number, got shape {value.shape}; use series() for arrays"
        return float(value)
    except Exception as exc:  # noqa: BLE001 - the log call's border: __float__ is the caller's code
        return f"want a number, got {type(value).__name__} ({said(exc)})"


def step(value: Any) -> int | str:
    """
    The step as a plain 64-bit integer, or what was wanted instead.
    """
    plain: int
    try:
        if isinstance(value, float) and value.is_integer():
            plain = int(value)
        else:
            plain = int(operator.index(value))
    except Exception:  # noqa: BLE001 - the log call's border: __index__ is the caller's code
        return f"want an integer step, got {type(value).__name__}"
    if not layout.STEP_MIN <= plain <= layout.STEP_MAX:
        return "want a step of 64 bits"
    return plain


def doubles(values: Any) -> memoryview | str:
    """
    The values as contiguous doubles, shape (n,), or what was wanted instead; copies only where it
    must.
    """
    try:
        if hasattr(values, "detach"):  # torch
            values = values.detach().cpu().numpy()
        if hasattr(values, "to_numpy"):  # pandas
            values = values.to_numpy()
        if hasattr(values, "dtype"):
            if values.dtype.kind not in "fiu":
                return f"want numbers, got an array of {values.dtype}"
            if values.ndim != 1:
                return f"want shape (n,), got {values.shape}"
            if values.dtype.str != "<f8" or not values.flags.c_contiguous:
                values = values.astype("<f8", order="C")
            return memoryview(values)
        if isinstance(values, (str, bytes, bytearray, dict, set, frozenset)):
            return f"want numbers in an order, got {type(values).__name__}"
        if not (isinstance(values, array) and values.typecode == "d"):
            values = list(values)
            if bool in set(map(type, values)):
                return "want numbers, got bool among them"
            values = array("d", values)
        return memoryview(values)
    except Exception as exc:  # noqa: BLE001 - the log call's border: the array is the caller's code
        return f"want numbers, shape (n,): {said(exc)}"


def size_of(values: Any) -> int:
    """
    How many values there are, 1 where they do not tell; never raises.
    """
    try:
        is_list = (
            not isinstance(values, (str, bytes, bytearray)) and getattr(values, "ndim", 1) == 1
        )
        return len(values) if is_list else 1
    except Exception:  # noqa: BLE001 - the log call's border: __len__ is the caller's code
        return 1


def shown(value: object) -> str:
    """
    A value as short text for a message; never raises.
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the log call's border: __repr__ is the caller's code
        text = f"<{type(value).__name__} whose repr failed>"
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def said(exc: BaseException) -> str:
    """
    What an exception says, or its class; never raises, though its `__str__` is the caller's code.
    """
    try:
        return str(exc) or type(exc).__name__
    except Exception:  # noqa: BLE001 - the log call's border: __str__ is the caller's code
        return type(exc).__name__


def store_page(
    target: Any, offset: int, timestamp_ns: int, first_step: int, part: memoryview, word: int
) -> None:
    """
    Store one series page: head without its word, values, and the word last.

    Raises:
        OSError: write mode, and the bytes were not taken.
    """
    size = len(part)
    start = offset + layout.SERIES_VALUES_OFFSET
    if isinstance(target, WrittenSegment):
        body = layout.SERIES_HEAD.pack(timestamp_ns, first_step, size, 0) + part.cast("B")
        if os.pwrite(target.file.descriptor, body, offset) != len(body):
            raise OSError(28, "a series page was written in part")
        os.pwrite(target.file.descriptor, _WORD.pack(word), offset + layout.WORD_OFFSET)
        return
    layout.SERIES_HEAD.pack_into(target, offset, timestamp_ns, first_step, size, 0)
    target[start : start + size * 8] = part.cast("B")
    _WORD.pack_into(target, offset + layout.WORD_OFFSET, word)
