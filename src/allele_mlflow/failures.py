"""
Why a run failed, in nine words, and whether it failed the same way before.

`categorise` looks for the name of the exception's class, then of its base classes, in one table, so
that a library's own errors are known without importing the library:

    interrupted     KeyboardInterrupt, SystemExit, GeneratorExit, any CancelledError
    out_of_memory   MemoryError, any OutOfMemoryError (torch, cupy), ResourceExhaustedError, ENOMEM;
                    messages "CUDA out of memory", "can't allocate memory", "RESOURCE_EXHAUSTED"
    timeout         TimeoutError (asyncio's, concurrent.futures' and the socket's are the same),
                    TimeoutExpired (subprocess), Timeout (requests), TimeoutException (httpx)
    numeric         ArithmeticError (division by zero, overflow, floating point), any LinAlgError;
                    ValueError and warnings that speak of NaN, infinity or overflow
    dependency      ImportError, a missing attribute *of a module*, a shared library that does not
                    load
    configuration   SettingsError, TypeError, ValueError, NotImplementedError, FileExistsError;
                    errors of argparse, click, configparser, TOML and YAML
    data            LookupError (KeyError, IndexError), UnicodeError, EOFError, FileNotFoundError
                    and wrong kinds of file; errors of json, csv, pickle, zip and msgspec;
                    RecordError; ValueError that speaks of shapes or of text that is no number
    infrastructure  every other OSError (disk full, permission, connection, too many files), errors
                    of SQL drivers, a broken worker pool; QueueError, SidecarError, TrackingError
    unknown         the rest: RuntimeError, AssertionError, AttributeError, NameError ...

TypeError and ValueError are configuration, because in a benchmark what varies from run to run is
its parameters; KeyError is data, because a missing field of a record is its usual cause. Where the
class says nothing, the exceptions that led to it are asked (`__cause__`, else `__context__`); an
exception group is what all its members are, if they agree.

Standard library only, and little of it at import: the benchmark's process loads this.
"""

from __future__ import annotations

import builtins
import errno
import re
from collections.abc import Iterator
from enum import StrEnum
from types import CodeType, ModuleType
from typing import NamedTuple

#: Longest message and traceback that is kept. Units: bytes of UTF-8.
TEXT_LIMIT_BYTES = 64 * 1024
_CHAIN_LIMIT = 50
_GROUP_LIMIT = 1000


class Category(StrEnum):
    """
    What kind of thing went wrong. Append only.
    """

    CONFIGURATION = "configuration"
    DATA = "data"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NUMERIC = "numeric"
    DEPENDENCY = "dependency"
    INFRASTRUCTURE = "infrastructure"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


class Failure(NamedTuple):
    """
    One exception, described.

    `fingerprint` is equal for exceptions of one type from one path through the code, whatever the
    message, the line numbers, the machine or the folder of the checkout.
    """

    category: Category
    error_type: str
    message: str
    traceback: str
    fingerprint: str


#: Class names, ours and foreign. The most derived class of an exception that stands here decides.
CATEGORY_BY_CLASS: dict[str, Category] = {
    name: category
    for category, names in {
        Category.INTERRUPTED: "KeyboardInterrupt SystemExit GeneratorExit CancelledError",
        Category.OUT_OF_MEMORY: "MemoryError OutOfMemoryError ResourceExhaustedError",
        Category.TIMEOUT: "TimeoutError TimeoutExpired Timeout TimeoutException",
        Category.NUMERIC: "ArithmeticError LinAlgError",
        Category.DEPENDENCY: "ImportError PackageNotFoundError DistributionNotFound",
        Category.CONFIGURATION: (
            "SettingsError TypeError ValueError NotImplementedError FileExistsError ArgumentError "
            "ArgumentTypeError UsageError TOMLDecodeError YAMLError"
        ),
        Category.DATA: (
            "RecordError LookupError UnicodeError EOFError FileNotFoundError NotADirectoryError "
            "IsADirectoryError JSONDecodeError UnpicklingError BadZipFile MsgspecError ParserError "
            "EmptyDataError"
        ),
        Category.INFRASTRUCTURE: (
            "OSError OperationalError InterfaceError BrokenExecutor QueueError SidecarError "
            "TrackingError DeliveryError"
        ),
    }.items()
    for name in names.split()
}

#: Classes whose name alone would say too little, with their module.
_CATEGORY_BY_FULL_NAME = {"_csv.Error": Category.DATA, "configparser.Error": Category.CONFIGURATION}

#: Lower-case pieces of messages of `unknown` and `configuration` errors, first match decides.
_CATEGORY_BY_MESSAGE: tuple[tuple[str, Category], ...] = (
    ("out of memory", Category.OUT_OF_MEMORY),
    ("can't allocate memory", Category.OUT_OF_MEMORY),
    ("cannot allocate memory", Category.OUT_OF_MEMORY),
    ("not enough memory", Category.OUT_OF_MEMORY),
    ("resource_exhausted", Category.OUT_OF_MEMORY),
    ("cublas_status_alloc_failed", Category.OUT_OF_MEMORY),
    ("timed out", Category.TIMEOUT),
    ("contains nan", Category.NUMERIC),
    ("contains inf", Category.NUMERIC),
    ("cannot convert float nan", Category.NUMERIC),
    ("invalid value encountered", Category.NUMERIC),
    ("divide by zero", Category.NUMERIC),
    ("overflow encountered", Category.NUMERIC),
    ("math domain error", Category.NUMERIC),
    ("singular matrix", Category.NUMERIC),
    ("could not convert string to float", Category.DATA),
    ("invalid literal for int()", Category.DATA),
    ("could not be broadcast", Category.DATA),
    ("inconsistent numbers of samples", Category.DATA),
    ("no cuda gpus are available", Category.INFRASTRUCTURE),
    ("found no nvidia driver", Category.INFRASTRUCTURE),
    ("nccl error", Category.INFRASTRUCTURE),
)
_OPEN_TO_MESSAGE = (Category.UNKNOWN, Category.CONFIGURATION)
_LIBRARY_MESSAGES = ("cannot open shared object", "image not found", "undefined symbol")
#: "package.SomeError: ..."; no compiled pattern, for few programs ever need it.
_BEGINS_WITH_CLASS = (
    r"\s*((?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit)|Timeout|TimeoutExpired))"
    r"(?=[:(]|\s*\Z)"
)


def categorise(exc: BaseException) -> Category:
    """
    The category of an exception, or of what led to it where it says nothing itself. Never raises.
    """
    for one in _chain(exc):
        if isinstance(one, BaseExceptionGroup):
            category = _category_of_group(one)
        else:
            category = _category_of(one)
        if category is not Category.UNKNOWN:
            return category
    return Category.UNKNOWN


def categorise_text(text: str) -> tuple[Category, str]:
    """
    The category and type of an error of which only its text is left, such as
    "requests.exceptions.Timeout: no answer": by the class that it begins with, else by what it
    speaks of. The type is empty where it names none.
    """
    found = re.match(_BEGINS_WITH_CLASS, text)
    name = found[1] if found is not None else ""
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        category: Category | None = _category_by_class(builtin)
    else:
        category = CATEGORY_BY_CLASS.get(name.rpartition(".")[2])
    if category is None or category in _OPEN_TO_MESSAGE:
        message = text[:TEXT_LIMIT_BYTES].lower()
        known = next((hit for piece, hit in _CATEGORY_BY_MESSAGE if piece in message), None)
        category = known or category or Category.UNKNOWN
    return category, name


def fingerprint(exc: BaseException) -> str:
    """
    Sixteen hex digits of the exception's type and of the functions it came through. Never raises.

    Each function counts once, so that the depth of a recursion does not matter. Functions of
    `__main__` go by the file's name, notebook cells by none.
    """
    import hashlib  # costs 5 ms, and only failures need it

    frames: dict[str, None] = {}
    step = exc.__traceback__
    while step is not None:
        frames[_frame_name(step.tb_frame.f_globals.get("__name__"), step.tb_frame.f_code)] = None
        step = step.tb_next
    text = "\n".join((_type_name(exc), *frames))
    return hashlib.sha256(_encode(text)).hexdigest()[:16]


def describe_failure(exc: BaseException) -> Failure:
    """
    Everything worth keeping of an exception, as bounded text that any codec takes. Never raises.

    Cost: some milliseconds; reads the source files that the traceback quotes.
    """
    try:
        return Failure(
            category=categorise(exc),
            error_type=_bounded(_type_name(exc)),
            message=_bounded(_message_of(exc)),
            traceback=_bounded(_traceback_of(exc)),
            fingerprint=fingerprint(exc),
        )
    except Exception as error:  # noqa: BLE001 - no stack or memory left; the type is still worth telling
        note = f"<not described: {type(error).__name__}>"
        return Failure(Category.UNKNOWN, type(exc).__name__, note, note, "")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = exc
    while one is not None and id(one) not in seen and len(seen) < _CHAIN_LIMIT:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _category_of_group(group: BaseExceptionGroup[BaseException]) -> Category:
    """
    What all members of a group are; `unknown` where they differ.
    """
    members: list[BaseException] = [group]
    found: set[Category] = set()
    # Members may grow under the loop: groups hold groups.
    for member in members:
        if isinstance(member, BaseExceptionGroup):
            members += member.exceptions[: max(0, _GROUP_LIMIT - len(members))]
        else:
            found.add(_category_of_member(member))
    return found.pop() if len(found) == 1 else Category.UNKNOWN


def _category_of_member(member: BaseException) -> Category:
    # Groups among the causes are not opened: one of them may be the group that we come from.
    for one in _chain(member):
        category = _category_of(one)
        if category is not Category.UNKNOWN:
            return category
    return Category.UNKNOWN


def _category_of(exc: BaseException) -> Category:
    category = _category_by_class(type(exc))
    if isinstance(exc, OSError):
        return _category_of_os_error(exc, category)
    # `obj` is what the attribute was missing of; a module without one is of the wrong version.
    if isinstance(exc, AttributeError) and isinstance(exc.obj, ModuleType):
        return Category.DEPENDENCY
    if category in _OPEN_TO_MESSAGE:
        message = _message_of(exc)[:TEXT_LIMIT_BYTES].lower()
        return next((hit for piece, hit in _CATEGORY_BY_MESSAGE if piece in message), category)
    return category


def _category_by_class(error_class: type[BaseException]) -> Category:
    for base in error_class.__mro__:
        full_name = f"{base.__module__}.{base.__name__}"
        category = _CATEGORY_BY_FULL_NAME.get(full_name) or CATEGORY_BY_CLASS.get(base.__name__)
        if category is not None:
            return category
    return Category.UNKNOWN


def _category_of_os_error(exc: OSError, category: Category) -> Category:
    if exc.errno == errno.ENOMEM:
        return Category.OUT_OF_MEMORY
    if exc.errno is None:
        message = _message_of(exc)
        if any(piece in message for piece in _LIBRARY_MESSAGES):
            return Category.DEPENDENCY
    return category


def _type_name(exc: BaseException) -> str:
    error_class = type(exc)
    module = error_class.__module__
    name = error_class.__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _frame_name(module: object, code: CodeType) -> str:
    if isinstance(module, str) and module != "__main__":
        return f"{module}:{code.co_qualname}"
    file_name = code.co_filename
    if file_name.startswith("<ipython") or "ipykernel" in file_name:
        return f"<cell>:{code.co_qualname}"
    return f"{file_name.replace(chr(92), '/').rpartition('/')[2]}:{code.co_qualname}"


def _message_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as error:  # noqa: BLE001 - somebody else's __str__ must not hide the failure
        return f"<message unavailable: __str__ raised {type(error).__name__}>"


def _traceback_of(exc: BaseException) -> str:
    import traceback  # costs 3 ms, and only failures need it

    try:
        return "".join(traceback.format_exception(exc))
    except Exception as error:  # noqa: BLE001 - formatting runs code of the exception's class
        return f"<traceback unavailable: {type(error).__name__}>"


def _encode(text: str) -> bytes:
    # Lone surrogates (file names that are no UTF-8) would stop every codec further on.
    return text.encode("utf-8", "backslashreplace")


def _bounded(text: str) -> str:
    """
    The text, cut in the middle where too long: a traceback says most at its two ends.
    """
    encoded = _encode(text)
    if len(encoded) <= TEXT_LIMIT_BYTES:
        return encoded.decode()
    mark = f"\n... [{len(encoded) - TEXT_LIMIT_BYTES} bytes or a little more cut here] ...\n"
    half = (TEXT_LIMIT_BYTES - len(mark)) // 2
    head = encoded[:half].decode("utf-8", "ignore")
    tail = encoded[-half:].decode("utf-8", "ignore")
    return f"{head}{mark}{tail}"
