"""
Our copy of MLflow's limits against the installed MLflow.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allele_mlflow.tracking import limits

_installed = tuple(map(int, importlib.metadata.version("mlflow-skinny").split(".")[:2]))
# Older releases: no `:` in keys, and smaller numbers. What they refuse is set aside one by one.
for_current_mlflow = pytest.mark.skipif(
    _installed < (3, 17), reason="the limits are those of MLflow 3.17"
)

keys = st.text(max_size=270) | st.text("/.ab: -_\nß%", max_size=12)


def is_taken_by_mlflow(key: str) -> bool:
    """
    What MLflow's own checks of the keys of metrics, params and tags say.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    try:
        validation._validate_metric(key, 1.0, 1, 1)
        validation._validate_param(key, "1")
        validation._validate_tag(key, "1")
    except MlflowException:
        return False
    return True


@for_current_mlflow
@settings(max_examples=300, deadline=None)
@given(keys)
def test_every_key_we_accept_is_accepted_by_mlflow(key: str) -> None:
    """
    A key that passes in the benchmark's process is not refused hours later by the store.
    """
    if limits.check_key(key) is None:
        assert is_taken_by_mlflow(key)


@settings(max_examples=300, deadline=None)
@given(keys)
def test_we_refuse_little_that_mlflow_takes(key: str) -> None:
    """
    Our check is stricter in one thing only: a newline at the end.
    """
    if limits.check_key(key) is not None and not key.endswith("\n"):
        assert not is_taken_by_mlflow(key)


@for_current_mlflow
def test_our_numbers_are_mlflows() -> None:
    """
    A release of MLflow that changes a limit is noticed.
    """
    from mlflow.utils import validation

    ours_by_theirs = {
        "MAX_METRICS_PER_BATCH": limits.METRICS_PER_CALL,
        "MAX_PARAMS_TAGS_PER_BATCH": limits.PARAMS_PER_CALL,
        "MAX_ENTITIES_PER_BATCH": limits.ITEMS_PER_CALL,
        "MAX_BATCH_LOG_REQUEST_SIZE": limits.REQUEST_BYTES,
        "MAX_ENTITY_KEY_LENGTH": limits.KEY_LENGTH,
        "MAX_PARAM_VAL_LENGTH": limits.PARAM_VALUE_LENGTH,
        "MAX_TAG_VAL_LENGTH": limits.TAG_VALUE_LENGTH,
        "MAX_EXPERIMENT_NAME_LENGTH": limits.EXPERIMENT_NAME_LENGTH,
        "MAX_EXPERIMENT_TAG_KEY_LENGTH": limits.EXPERIMENT_TAG_KEY_LENGTH,
        "MAX_EXPERIMENT_TAG_VAL_LENGTH": limits.EXPERIMENT_TAG_VALUE_LENGTH,
        "MAX_MODEL_REGISTRY_TAG_KEY_LENGTH": limits.REGISTRY_TAG_KEY_LENGTH,
        "MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH": limits.REGISTRY_TAG_VALUE_LENGTH,
        "MAX_REGISTERED_MODEL_ALIAS_LENGTH": limits.REGISTRY_ALIAS_LENGTH,
    }
    theirs = {name: getattr(validation, name) for name in ours_by_theirs}
    assert theirs == ours_by_theirs


@pytest.mark.process
@pytest.mark.parametrize("module", ["limits", "client", "error_mapping", "schema"])
def test_the_room_imports_mlflow_late(module: str) -> None:
    """
    Importing our modules imports neither mlflow nor anything else that is heavy: the benchmark
    checks keys with them, and the sidecar sets MLflow's environment first.
    """
    heavy = {"mlflow", "sqlalchemy", "alembic", "pandas", "numpy", "anyio", "psutil"}
    code = f"import sys, allele_mlflow.tracking.{module}; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == []
