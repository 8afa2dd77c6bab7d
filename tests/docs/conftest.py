"""
A store for each page that is run: made once with MLflow's tables, which takes seconds, and copied.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.tracking.schema import prepare_schema


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A SQLite file with MLflow's tables and nothing in them.
    """
    path = tmp_path_factory.mktemp("empty_store") / "mlflow.db"
    prepare_schema(path)
    return path
