"""
Installed distributions, and what a change of one may do to timings.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys

_COMPUTING = (
    "allele catboost cupy cython dask faiss-cpu faiss-gpu jax jaxlib lightgbm llvmlite mkl "
    "mxnet networkx numba numexpr numpy onnxruntime onnxruntime-gpu opencv-python openblas "
    "pandas phylogenic polars pyarrow pytorch-triton ray scikit-learn scipy statsmodels sympy "
    "tensorflow tensorflow-cpu tokenizers torch transformers triton uvloop vllm xgboost"
)
#: Do the computing of most benchmarks: another major version of one is another benchmark.
COMPUTING = frozenset(_COMPUTING.split())
_TOOLS = (
    "bandit black build bump2version cibuildwheel commitizen coverage flake8 grimp hatch "
    "hatchling import-linter ipykernel ipython isort jupyter jupyterlab mkdocs mypy "
    "mypy-extensions nbconvert nbstripout nodeenv notebook nox pdm pip pip-tools pipx pluggy "
    "poetry poetry-core pre-commit pyflakes pylint pyproject-hooks pyright pytest ruff "
    "setuptools setuptools-scm sphinx stubtest towncrier tox twine uv virtualenv wheel"
)
#: Work on code or beside it, and never in a benchmark.
TOOLS = frozenset(_TOOLS.split())
_TOOL_PREFIXES = ("pytest-", "types-", "flake8-", "sphinx-", "sphinxcontrib-", "mkdocs-")
_SEPARATORS = re.compile(r"[-_.]+")


def installed_packages() -> dict[str, str]:
    """
    Installed distributions and their versions, by their normalised names.

    Cost: some milliseconds, from the names of their folders alone: importlib.metadata parses every
    METADATA file, which takes a hundred times as long.
    """
    found = {}
    for entry in reversed(sys.path):  # the first on the path is the one that is imported
        with contextlib.suppress(OSError):
            for name in os.listdir(entry or "."):
                if name.endswith(".dist-info"):
                    distribution, _, version = name.removesuffix(".dist-info").rpartition("-")
                    found[_SEPARATORS.sub("-", distribution).lower()] = version
    return dict(sorted(found.items()))


def is_tool(name: str) -> bool:
    """
    Whether a distribution works on code, and not in it.
    """
    return name in TOOLS or name.startswith(_TOOL_PREFIXES)


def series_of(version: str) -> str:
    """
    The part of a version that changes where behaviour may: "2" of 2.1.3, "0.4" of 0.4.1.
    """
    parts = version.split(".")
    return ".".join(parts[: 2 if parts[0] == "0" else 1])
