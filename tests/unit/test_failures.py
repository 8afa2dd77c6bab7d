"""
What the description of a failure promises.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import configparser
import csv
import decimal
import errno
import json
import math
import pickle
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

import msgspec
import numpy as np
import pytest

from allele_mlflow import failures
from allele_mlflow.errors import (
    ErrorKind,
    QueueError,
    RecordError,
    SettingsError,
    TransientTrackingError,
)
from allele_mlflow.failures import (
    TEXT_LIMIT_BYTES,
    Category,
    categorise,
    describe_failure,
    fingerprint,
)


def foreign(name: str, *bases: type[BaseException]) -> type[BaseException]:
    """
    An exception class of a library that is not installed here.
    """
    return type(name, bases or (Exception,), {"__module__": "somewhere"})


class UnsayableError(Exception):
    """
    An exception that cannot be printed.
    """

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def raised(action: Callable[[], object]) -> BaseException:
    """
    What an action raises.
    """
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - the test looks at whatever came
        return error
    raise AssertionError("nothing was raised")


def caused_by(outer: BaseException, cause: BaseException) -> BaseException:
    """
    The outer exception, raised `from` the cause.
    """
    outer.__cause__ = cause
    return outer


TABLE: list[tuple[BaseException, Category]] = [
    (KeyboardInterrupt(), Category.INTERRUPTED),
    (SystemExit(3), Category.INTERRUPTED),
    (asyncio.CancelledError(), Category.INTERRUPTED),
    (concurrent.futures.CancelledError(), Category.INTERRUPTED),
    (MemoryError(), Category.OUT_OF_MEMORY),
    (foreign("OutOfMemoryError", RuntimeError)("CUDA"), Category.OUT_OF_MEMORY),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), Category.OUT_OF_MEMORY),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Category.OUT_OF_MEMORY),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), Category.OUT_OF_MEMORY),
    (TimeoutError(), Category.TIMEOUT),
    (OSError(errno.ETIMEDOUT, "timed out"), Category.TIMEOUT),
    (subprocess.TimeoutExpired("cmd", 3), Category.TIMEOUT),
    (foreign("ReadTimeout", foreign("Timeout", OSError))(), Category.TIMEOUT),
    (RuntimeError("the request timed out"), Category.TIMEOUT),
    (ZeroDivisionError(), Category.NUMERIC),
    (OverflowError(), Category.NUMERIC),
    (FloatingPointError(), Category.NUMERIC),
    (decimal.InvalidOperation(), Category.NUMERIC),
    (np.linalg.LinAlgError("Singular matrix"), Category.NUMERIC),
    (RuntimeWarning("invalid value encountered in divide"), Category.NUMERIC),
    (ValueError("Input X contains NaN."), Category.NUMERIC),
    (ModuleNotFoundError("No module named 'x'"), Category.DEPENDENCY),
    (ImportError(), Category.DEPENDENCY),
    (OSError("libfoo.so: cannot open shared object file"), Category.DEPENDENCY),
    (SettingsError("bad", kind=ErrorKind.BAD_SETTING), Category.CONFIGURATION),
    (TypeError("unexpected keyword argument"), Category.CONFIGURATION),
    (ValueError("population must be positive"), Category.CONFIGURATION),
    (NotImplementedError(), Category.CONFIGURATION),
    (configparser.NoSectionError("s"), Category.CONFIGURATION),
    (FileExistsError(errno.EEXIST, "exists"), Category.CONFIGURATION),
    (KeyError("fitness"), Category.DATA),
    (IndexError(), Category.DATA),
    (FileNotFoundError(errno.ENOENT, "gone"), Category.DATA),
    (EOFError(), Category.DATA),
    (csv.Error("line contains NUL"), Category.DATA),
    (json.JSONDecodeError("Expecting value", "", 0), Category.DATA),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Category.DATA),
    (msgspec.ValidationError("Expected int"), Category.DATA),
    (pickle.UnpicklingError(), Category.DATA),
    (zipfile.BadZipFile(), Category.DATA),
    (ValueError("could not convert string to float: 'abc'"), Category.DATA),
    (RecordError("bad", kind=ErrorKind.BAD_VALUE), Category.DATA),
    (PermissionError(errno.EACCES, "denied"), Category.INFRASTRUCTURE),
    (OSError(errno.ENOSPC, "No space left on device"), Category.INFRASTRUCTURE),
    (ConnectionResetError(), Category.INFRASTRUCTURE),
    (BrokenPipeError(), Category.INFRASTRUCTURE),
    (sqlite3.OperationalError("database is locked"), Category.INFRASTRUCTURE),
    (BrokenProcessPool("a worker died"), Category.INFRASTRUCTURE),
    (QueueError("no room", kind=ErrorKind.QUEUE_UNAVAILABLE), Category.INFRASTRUCTURE),
    (TransientTrackingError("503", kind=ErrorKind.STORE_BUSY), Category.INFRASTRUCTURE),
    (RuntimeError("what now"), Category.UNKNOWN),
    (AssertionError(), Category.UNKNOWN),
    (UnsayableError(), Category.UNKNOWN),
]


@pytest.mark.parametrize(
    ("error", "category"),
    TABLE,
    ids=[f"{type(error).__name__}-{i}" for i, (error, _) in enumerate(TABLE)],
)
def test_type_decides_category(error: BaseException, category: Category) -> None:
    """
    The table in the module's docstring holds, for foreign classes by name alone.
    """
    assert categorise(error) is category


def test_missing_name_of_a_module_is_a_dependency() -> None:
    """
    `module.gone` is a wrong version of a library; an object's missing attribute is anybody's bug.
    """
    assert categorise(raised(lambda: math.no_such_function)) is Category.DEPENDENCY  # type: ignore[attr-defined]
    assert categorise(raised(lambda: object().gone)) is Category.UNKNOWN  # type: ignore[attr-defined]


def test_speechless_exception_takes_its_causes_category() -> None:
    """
    A RuntimeError around a real error is that error, over any number of wrappers, by `from` or not.
    """
    wrapped = caused_by(RuntimeError("a"), caused_by(Exception("b"), MemoryError()))
    assert categorise(wrapped) is Category.OUT_OF_MEMORY

    def fail() -> None:
        try:
            raise KeyError("fitness")
        except KeyError:
            raise RuntimeError("while evaluating")  # noqa: B904 - the context is what is tested

    assert categorise(raised(fail)) is Category.DATA


def test_hidden_context_is_not_asked() -> None:
    """
    `raise ... from None` says that the context is beside the point.
    """

    def fail() -> None:
        try:
            raise KeyError("fitness")
        except KeyError:
            raise RuntimeError("something else") from None

    assert categorise(raised(fail)) is Category.UNKNOWN


def test_speaking_exception_keeps_its_own_category() -> None:
    """
    What the outer exception says is not overruled by its cause.
    """
    assert categorise(caused_by(TimeoutError(), KeyError())) is Category.TIMEOUT


def test_circle_of_causes_ends() -> None:
    """
    Exceptions that cause each other, also through a group, are walked once.
    """
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert categorise(first) is Category.UNKNOWN
    group = ExceptionGroup("g", [first])
    first.__cause__ = group
    assert categorise(group) is Category.UNKNOWN


@pytest.mark.parametrize(
    ("members", "category"),
    [
        ([TimeoutError(), ExceptionGroup("in", [TimeoutError()])], Category.TIMEOUT),
        ([TimeoutError(), KeyError()], Category.UNKNOWN),
        ([caused_by(RuntimeError(), KeyError()), IndexError()], Category.DATA),
    ],
)
def test_group_is_what_its_members_agree_on(members: list[Exception], category: Category) -> None:
    """
    A group has its members' category when they are of one mind, at any depth, else none.
    """
    assert categorise(ExceptionGroup("g", members)) is category


def load_row(flavour: str) -> None:
    """
    One way to fail.
    """
    raise ValueError(f"bad row at {id(flavour):#x} {flavour}")


def recurse(depth: int) -> None:
    """
    Fails at the given depth.
    """
    if depth == 0:
        load_row("deep")
    recurse(depth - 1)


def test_fingerprint_knows_the_same_failure_again() -> None:
    """
    Same type and same path: same fingerprint, whatever the message or the depth of a recursion.
    """
    one, two = (fingerprint(raised(lambda text=text: load_row(text))) for text in ("a", "b"))  # type: ignore[misc]
    assert one == two
    assert len(one) == 16
    assert fingerprint(raised(lambda: recurse(1))) == fingerprint(raised(lambda: recurse(40)))
    assert fingerprint(raised(lambda: recurse(1))) != one
    assert fingerprint(ValueError()) != fingerprint(KeyError())


def test_fingerprint_ignores_lines_and_folders() -> None:
    """
    The same program in another folder, its lines moved, fails with the same fingerprint.
    """

    def fail_in(path: str, shift: int) -> BaseException:
        code = compile("\n" * shift + "def go():\n    raise KeyError('x')\n", path, "exec")
        names: dict[str, object] = {"__name__": "__main__"}
        exec(code, names)
        go = names["go"]
        assert callable(go)
        return raised(go)

    one = fingerprint(fail_in("/home/ada/bench/run.py", 0))
    assert one == fingerprint(fail_in("/srv/ci/9f3/run.py", 30))
    assert one == fingerprint(fail_in("C:\\bench\\run.py", 0))
    assert one != fingerprint(fail_in("/home/ada/bench/other.py", 0))
    cells = {fingerprint(fail_in(f"/tmp/ipykernel_{pid}/77{pid}.py", 0)) for pid in (1, 2)}
    assert len(cells) == 1


def test_fingerprint_survives_another_process() -> None:
    """
    The fingerprint does not depend on hash seeds or addresses.
    """
    program = (
        "from allele_mlflow.failures import fingerprint\n"
        "def go(): raise KeyError(object())\n"
        "try: go()\n"
        "except KeyError as error: print(fingerprint(error))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_description_holds_everything() -> None:
    """
    A described failure has its category, its full type, its message and the traceback with causes.
    """
    failure = describe_failure(raised(lambda: load_row("x")))
    assert failure.category is Category.CONFIGURATION
    assert failure.error_type == "ValueError"
    assert failure.message.startswith("bad row at 0x")
    assert "in load_row" in failure.traceback
    assert failure.fingerprint
    assert describe_failure(sqlite3.OperationalError("x")).error_type == "sqlite3.OperationalError"


def test_unsayable_exception_is_still_described() -> None:
    """
    An exception whose `__str__` raises is described all the same.
    """
    failure = describe_failure(raised(lambda: (_ for _ in ()).throw(UnsayableError())))
    assert failure.message == "<message unavailable: __str__ raised RuntimeError>"
    assert "UnsayableError" in failure.traceback


@pytest.mark.parametrize(
    "letter", ["x", "\N{GREEK SMALL LETTER ALPHA}", "\N{SNOWMAN}", "\U0001f9ec"]
)
def test_long_text_is_cut_in_the_middle(letter: str) -> None:
    """
    Texts stay under 64 KiB of UTF-8, keep both ends whole and say what is missing.
    """
    message = describe_failure(ValueError("begin" + letter * 100_000 + "end")).message
    assert len(message.encode()) <= TEXT_LIMIT_BYTES
    assert message.startswith("begin" + letter)
    assert message.endswith(letter + "end")
    assert "cut here" in message


def test_text_can_always_be_encoded() -> None:
    """
    Lone surrogates, as file names can bring them, are spelled out, so that no codec stops on them.
    """
    failure = describe_failure(ValueError("file \udcff"))
    assert failure.message == "file \\udcff"
    assert msgspec.msgpack.encode(failure)


def test_deep_recursion_is_described() -> None:
    """
    A stack that overflowed gives a bounded description.
    """

    def forever() -> None:
        forever()

    failure = describe_failure(raised(forever))
    assert failure.error_type == "RecursionError"
    assert len(failure.traceback.encode()) <= TEXT_LIMIT_BYTES


def test_import_is_light() -> None:
    """
    The benchmark's process pays for an enum and a tuple: no costly module is loaded.
    """
    program = (
        "import sys, enum, typing, importlib.util\n"
        "spec = importlib.util.spec_from_file_location('failures', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "before = set(sys.modules)\n"
        "spec.loader.exec_module(module)\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    # Loaded by its path, because the package itself may load more, and hide what this module does.
    output = subprocess.run(
        [sys.executable, "-c", program, failures.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(output.split()) <= {"__future__", "errno"}
