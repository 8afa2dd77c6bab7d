"""
What `import allele_mlflow` brings into the benchmark's process.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "alembic",
    "anyio",
    "asyncio",
    "click",
    "mlflow",
    "numpy",
    "pandas",
    "plotly",
    "psutil",
    "rich",
    "scipy",
    "sqlalchemy",
    "tomllib",
    "unittest",
}


def modules_after(statement: str) -> set[str]:
    """
    Top-level modules that a fresh interpreter holds after one statement.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.process
@pytest.mark.parametrize(
    "module", ["allele_mlflow", "allele_mlflow.settings", "allele_mlflow.records"]
)
def test_import_brings_nothing_heavy(module: str) -> None:
    """
    The benchmark's process never pays for mlflow, pandas, NumPy, anyio and their like.
    """
    assert modules_after(f"import {module}") & HEAVY == set()


@pytest.mark.process
def test_rule_can_fail() -> None:
    """
    The check sees a module that is imported.
    """
    assert modules_after("import unittest.mock") & HEAVY == {"asyncio", "unittest"}
