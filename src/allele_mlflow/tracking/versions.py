"""
Which mlflow there is, and whether it is one that we work with; found without importing it.

An mlflow that was imported once stays in a process. So one that is too old is refused before it is
imported: when somebody upgrades it, the next try of the same sidecar finds the new one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from allele_mlflow.errors import ErrorKind, TransientTrackingError

_DISTRIBUTION = "allele-mlflow"
#: As pyproject.toml writes what we depend on: "mlflow-skinny>=3.9".
_FLOOR = re.compile(r"mlflow-skinny\s*\(?[^;]*?>=\s*(?P<floor>\d+(?:\.\d+)*)")
#: mlflow/version.py
_VERSION = re.compile(r"^(?:VERSION|__version__)\s*=\s*['\"](?P<version>[^'\"]+)", re.MULTILINE)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


def lowest_mlflow() -> str | None:
    """
    The lowest version that our own package's metadata allows; None where it is not installed.
    """
    try:
        wanted = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (_FLOOR.match(one) for one in wanted if "extra ==" not in one)
    return next((one["floor"] for one in found if one), None)


def is_older(version: str, floor: str) -> bool:
    """
    Whether a version is below another; False where one of them is no number.
    """
    numbers, least = _NUMBERS.match(version), _NUMBERS.match(floor)
    if numbers is None or least is None:
        return False
    both = [[int(part) for part in one.group().split(".")] for one in (numbers, least)]
    length = max(map(len, both))
    given, wanted = ([*one, *[0] * (length - len(one))] for one in both)
    return given < wanted


def mlflow_version() -> str | None:
    """
    The version of the mlflow that `import mlflow` finds; None where there is none, or it does not
    say.
    """
    loaded = sys.modules.get("mlflow")
    if loaded is not None:
        said = getattr(loaded, "__version__", None)
        return said if isinstance(said, str) else None
    try:
        spec = importlib.util.find_spec("mlflow")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin)
    for path in (package.with_name("version.py"), package):
        try:
            found = _VERSION.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found["version"]
    return None


def import_mlflow() -> Any:
    """
    The module mlflow, once it is found to be new enough.

    Raises:
        TransientTrackingError: as `check_mlflow`.
        Exception: whatever the import raises; the caller maps it. Nothing of it stays behind, so
            that the next try finds what was mended.
    """
    check_mlflow()
    had_some = any(map(_is_mlflows, sys.modules))
    try:
        return importlib.import_module("mlflow")
    except BaseException:
        if not had_some:  # else it is the host's, which may use what it has
            for name in filter(_is_mlflows, list(sys.modules)):
                del sys.modules[name]
        raise


def _is_mlflows(name: str) -> bool:
    return name == "mlflow" or name.startswith("mlflow.")


def check_mlflow() -> None:
    """
    See to it that mlflow is not too old.

    Raises:
        TransientTrackingError: it is below what we need (STORE_UNREACHABLE): records wait.

    One that does not say its version is let through, and judged by what it can do.
    """
    found, floor = mlflow_version(), lowest_mlflow()
    if found is not None and floor is not None and is_older(found, floor):
        raise TransientTrackingError(
            f"mlflow {found} is too old: want {floor} or newer "
            "(pip install --upgrade mlflow-skinny); records wait in the spool",
            kind=ErrorKind.STORE_UNREACHABLE,
            mlflow=found,
            floor=floor,
        )
