"""
What `allele-mlflow run SUITE` means: a file, or something in a module.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.benchmark import SUITE_ATTRIBUTE, find_object
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_file import read_suite


class FoundSuite(NamedTuple):
    """
    A suite, its folder, and its text where it has one.
    """

    suite: Suite
    folder: Path
    text: str | None = None


def find_suite(name: str) -> FoundSuite:
    """
    The suite that a command line names.

    Args:
        name: A TOML file, or `module:name` (`file.py:name`) of a `Suite` or of a function that is
            marked with `@benchmark`.
    Raises:
        MatrixError: there is none.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise _none(name, "there is no such file")
        return FoundSuite(read_suite(path), path.resolve().parent, path.read_text("utf-8"))
    if ":" not in name:
        raise _none(name, "want a TOML file, or module:name of a Suite or of a @benchmark function")
    folder = Path.cwd()
    try:
        found = find_object(name, folder)
    except MatrixError:
        raise
    except Exception as exc:
        raise _none(name, f"it cannot be imported: {type(exc).__name__}: {exc}") from exc
    suite = getattr(found, SUITE_ATTRIBUTE, found)
    if not isinstance(suite, Suite):
        raise _none(
            name, f"want a Suite or a function marked @benchmark, got {type(found).__name__}"
        )
    return FoundSuite(suite, folder)


def _none(name: str, what: str) -> MatrixError:
    return MatrixError(f"suite {name!r}: {what}", kind=ErrorKind.BAD_SUITE, name=name)
