"""
The benchmark behind `module:function`: found, checked against its parameters, versioned, called.

A benchmark is a function (or coroutine function) that takes its parameters by name and returns its
metrics by name, or None. It may ask, by name too, for `log` (the run's logger), `seed` (an int
below 2**32, another one each repeat) and `folder` (a `Path` to write files into).
"""

from __future__ import annotations

import ast
import asyncio
import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.suite import nearest
from allele_mlflow.matrix.suite_file import suite_of

#: What the runner passes itself, to benchmarks that ask for it.
OFFERED = ("log", "seed", "folder")
SUITE_ATTRIBUTE = "__allele_suite__"
VERSION_ATTRIBUTE = "__allele_version__"

F = TypeVar("F", bound=Callable[..., Any])


@overload
def benchmark(function: F) -> F: ...


@overload
def benchmark(*, version: str | None = None, **suite: Any) -> Callable[[F], F]: ...


def benchmark(
    function: F | None = None, *, version: str | None = None, **suite: Any
) -> F | Callable[[F], F]:
    """
    Make a function a benchmark that knows its own suite: `allele-mlflow run module:function`.

        @benchmark(matrix={"size": [10, 100]}, repeats=3)
        def sort(size, *, seed):
            ...

    Args:
        function: The benchmark; it stays as it is.
        version: Stands for the function's source in the keys of cells: cells count as the same as
            long as it is, whatever changes in the file.
        **suite: Fields of `Suite`; the name is the function's by default.
    Raises:
        MatrixError: the fields make no suite.
    """

    def mark(marked: F) -> F:
        fields = {"name": marked.__name__, "benchmark": reference_of(marked)} | suite
        setattr(marked, SUITE_ATTRIBUTE, suite_of(fields))
        if version is not None:
            setattr(marked, VERSION_ATTRIBUTE, str(version))
        return marked

    return mark if function is None else mark(function)


def reference_of(function: Callable[..., Any]) -> str:
    """
    The `module:function` that finds a function again in another process; of one in a script that
    is run, `file.py:function`.

    Raises:
        MatrixError: it stands inside another function, or has no file.
    """
    name = getattr(function, "__qualname__", "")
    module = getattr(function, "__module__", None)
    if not name or "<" in name or module is None:
        raise _unusable(
            name or repr(function), "want a function at the top of a module, for other processes"
        )
    if module != "__main__":
        return f"{module}:{name}"
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        raise _unusable(name, "it was typed in: want a function in a file, for other processes")
    return f"{Path(file).resolve()}:{name}"


def find_benchmark(reference: str, folder: Path) -> Callable[..., Any]:
    """
    Import what `module:function` or `file.py:function` names.

    Args:
        reference: As in a suite.
        folder: The suite's own: put first on `sys.path`, and what relative files are relative to.
    Raises:
        MatrixError: there is none, or it is no function. What the module's own code raises goes
            through as it is.
    """
    found = find_object(reference, folder)
    if not callable(found):
        raise _unusable(reference, f"want a function, got {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def find_object(reference: str, folder: Path) -> Any:
    """
    As `find_benchmark`, whatever stands there.
    """
    place, _, name = reference.rpartition(":")
    found: Any = _import(place, reference, folder)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [one for one in dir(found) if not one.startswith("_")]
            raise _unusable(reference, f"{place} has no {part!r}{nearest(part, known)}")
        found = getattr(found, part)
    return found


def _import(place: str, reference: str, folder: Path) -> types.ModuleType:
    for entry in (str(Path.cwd()), str(folder)):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if place.endswith(".py"):
        return _import_file((folder / place).resolve(), reference)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (place == exc.name or place.startswith(f"{exc.name}.")):
            where = f"{folder} and the installed packages"
            raise _unusable(reference, f"there is no module {exc.name!r} in {where}") from exc
        raise  # the module is there; what it imports is not


def _import_file(path: Path, reference: str) -> types.ModuleType:
    if not path.is_file():
        raise _unusable(reference, f"there is no file {path}")
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    if loaded is None:  # an installed module of that name stays what it is
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check_params(function: Callable[..., Any], names: Iterable[str], reference: str) -> None:
    """
    Whether the function takes these parameters by name, and needs no other.

    Raises:
        MatrixError: it does not, or does.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return  # a builtin: the call will tell
    given = set(names)
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        for name in sorted(given):
            if name not in parameters or parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY:
                hint = nearest(name, [one for one in parameters if one not in OFFERED])
                raise _unusable(reference, f"it takes no parameter {name!r}{hint}")
    needed = [
        name
        for name, one in parameters.items()
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY, one.POSITIONAL_ONLY)
        and name not in given
        and name not in OFFERED
    ]
    if needed:
        raise _unusable(reference, f"it needs {', '.join(map(repr, needed))}, which no cell gives")


def full_params(function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """
    All parameters that a call has: those given, and the function's own defaults.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return dict(params)
    defaults = {
        one.name: one.default
        for one in parameters
        if one.default is not one.empty and one.name not in OFFERED
    }
    return defaults | dict(params)


def source_version(function: Callable[..., Any]) -> str:
    """
    What a function's results depend on, as far as its own file tells: the hash of the file's code
    without comments, layout and docstrings; or the `version=` that it was marked with.
    """
    marked = getattr(function, VERSION_ATTRIBUTE, None)
    if marked is not None:
        return str(marked)
    inner = inspect.unwrap(function)
    inner = inner.func if isinstance(inner, functools.partial) else inner
    try:
        file = inspect.getsourcefile(inner)
        text = Path(file).read_text(encoding="utf-8") if file is not None else None
    except (TypeError, OSError, ValueError):
        text = None
    if text is None:  # a builtin, or compiled
        return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', '')}"
    return hashlib.sha256(_bare_code(text).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _bare_code(text: str) -> str:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del body[0]
    return ast.dump(tree)


def call_benchmark(
    function: Callable[..., Any], params: Mapping[str, Any], offered: Mapping[str, Any]
) -> dict[str, float]:
    """
    Call a benchmark with its parameters and what it asks for; the metrics that it returned.

    Raises:
        TypeError, ValueError: it returned something else than numbers by name.
        Exception: whatever the benchmark raises.
    """
    result = function(**params, **_asked(function, offered))
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    return plain_metrics(result)


async def _awaited(result: Any) -> Any:
    return await result


def _asked(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in offered.items() if name in parameters}


def plain_metrics(result: Any) -> dict[str, float]:
    """
    What a benchmark returned, as plain numbers by name.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if result is None:
        return {}
    if isinstance(result, Mapping):
        return {_metric_name(name): _number(name, value) for name, value in result.items()}
    if _is_number(result):
        return {"result": _number("result", result)}
    raise TypeError(
        f"the benchmark returned {type(result).__name__}: want a mapping of numbers by name, "
        "a number, or None"
    )


def _metric_name(name: object) -> str:
    if isinstance(name, str) and name:
        return str.__str__(name)
    raise TypeError(f"the benchmark returned a metric named {name!r}: want text")


def _is_number(value: object) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, (str, bytes))


def _number(name: object, value: Any) -> float:
    if not _is_number(value):
        raise TypeError(
            f"the benchmark returned {name}={value!r} ({type(value).__name__}): want a number"
        )
    return float(value)


def check_objectives(metrics: Mapping[str, float | None], objectives: Iterable[str]) -> None:
    """
    Whether every objective came out as a number.

    Raises:
        FloatingPointError: one is NaN or infinite.
        LookupError: one is neither returned nor logged.
    """
    for name in objectives:
        value = metrics.get(name)
        if value is None:
            hint = nearest(name, metrics)
            raise LookupError(
                f"objective {name!r} was neither returned nor logged by the benchmark{hint}"
            )
        if not math.isfinite(value):
            raise FloatingPointError(f"objective {name!r} is {value}")


def _unusable(reference: str, what: str) -> MatrixError:
    return MatrixError(
        f"benchmark {reference!r}: {what}", kind=ErrorKind.BAD_BENCHMARK, reference=reference
    )
