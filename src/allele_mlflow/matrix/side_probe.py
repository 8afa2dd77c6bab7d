"""
What a side of a confirmation runs, told by the interpreter that will run it.

    python -m allele_mlflow.matrix.side_probe ANSWER-FILE SUITE ROOT CHECKOUT

Started by `confirmation_side` in the side's own working folder. Whatever the benchmark's module
prints while it is imported, the answer goes into a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from allele_mlflow.environment.fingerprint import Environment
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.matrix.find_suite import find_suite
from allele_mlflow.matrix.messages import encode
from allele_mlflow.matrix.prepared import prepare_suite
from allele_mlflow.version import __version__


class SideAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """
    A suite as a side has it.

    Attributes:
        package_version: Of this package, there.
        error: Why the suite cannot be run there; then nothing else is told.
        text, folder, version: See `prepared.Prepared`.
        strangers: Modules that were imported from the checkout instead of the side.
    """

    package_version: str = __version__
    error: str = ""
    text: str = ""
    folder: str = ""
    version: str = ""
    environment: Environment | None = None
    strangers: list[str] = []


def main() -> int:
    """
    Write the answer.
    """
    answer, suite, root, checkout = sys.argv[1:]
    sys.argv = [suite]
    Path(answer).write_bytes(encode(_answer(suite, Path(root), Path(checkout))))
    return 0


def _answer(suite: str, root: Path, checkout: Path) -> SideAnswer:
    try:
        found = find_suite(suite)
        prepared = prepare_suite(found.suite, found.folder, text=found.text)
    except AlleleMlflowError as exc:
        return SideAnswer(error=str(exc))
    return SideAnswer(
        text=prepared.text,
        folder=str(prepared.folder),
        version=prepared.version,
        environment=prepared.environment,
        strangers=sorted(_strangers(root, checkout)),
    )


def _strangers(root: Path, checkout: Path) -> Iterator[str]:
    """
    Installed packages are none, though an environment often lies in the checkout.
    """
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str):
            continue
        path = Path(file).resolve()
        is_installed = "site-packages" in path.parts or path.is_relative_to(sys.prefix)
        if path.is_relative_to(checkout) and not path.is_relative_to(root) and not is_installed:
            yield name


if __name__ == "__main__":
    sys.exit(main())
