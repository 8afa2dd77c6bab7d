"""
What the MLflow client knows without MLflow.
"""

from __future__ import annotations

import threading

import pytest

from allele_mlflow.records import RunId
from allele_mlflow.tracking.client import MlflowTracking, prepare_environment


@pytest.mark.parametrize(
    ("uri", "is_idempotent"),
    [
        ("sqlite:////tmp/mlflow.db", True),
        ("postgresql://db/mlflow", True),
        ("postgresql+psycopg2://db/mlflow", True),
        ("mysql+pymysql://db/mlflow", True),
        ("mssql+pyodbc://db/mlflow", True),
        ("http://host:5000", True),
        ("https://host", True),
        ("file:///tmp/mlruns", False),
        ("/tmp/mlruns", False),
        ("databricks", False),
        ("databricks://profile", False),
        ("wherever://host", False),
    ],
)
def test_resending_is_called_harmless_only_where_it_is(uri: str, is_idempotent: bool) -> None:
    """
    SQL stores, direct or behind a server, keep one row of a resent reading; others are not trusted.
    """
    assert MlflowTracking(uri).is_idempotent is is_idempotent


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("http://host:5000", "http://host:5000/#/experiments/3/runs/r"),
        ("https://host/mlflow/", "https://host/mlflow/#/experiments/3/runs/r"),
        ("https://me:secret@host", "https://host/#/experiments/3/runs/r"),
        (
            "sqlite:////tmp/mlflow.db",
            "#/experiments/3/runs/r of `mlflow ui --backend-store-uri sqlite:////tmp/mlflow.db`",
        ),
        (
            "postgresql://me:secret@db/mlflow",
            "#/experiments/3/runs/r of `mlflow ui --backend-store-uri 'postgresql://me:***@db/mlflow'`",
        ),
        ("databricks://work", "#/experiments/3/runs/r of databricks://work"),
    ],
)
def test_a_person_finds_the_run(uri: str, url: str) -> None:
    """
    The address can be opened or acted upon, and shows no password.
    """
    assert MlflowTracking(uri).run_url("3", RunId("r")) == url


def test_the_environment_keeps_mlflow_out_of_our_way() -> None:
    """
    No second queue, no hidden repeats, no foreign run or model; telemetry and time-outs as the user
    chose.
    """
    changes = prepare_environment({"MLFLOW_RUN_ID": "1", "MLFLOW_DISABLE_TELEMETRY": "true"})
    assert changes["MLFLOW_ENABLE_ASYNC_LOGGING"] == "false"
    assert changes["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert changes["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
    assert changes["MLFLOW_RUN_ID"] is None
    assert changes["MLFLOW_ACTIVE_MODEL_ID"] is None
    assert not {"MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_TRACKING_URI"} & set(changes)

    changes = prepare_environment({"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}, tracking_uri="http://h")
    assert changes["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
    assert changes["MLFLOW_TRACKING_URI"] == "http://h"


def test_close_does_not_wait_for_a_store_that_is_being_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A database that never answers its first call does not keep the sidecar from leaving.
    """
    is_opening, may_end = threading.Event(), threading.Event()

    def hang(self: MlflowTracking, *, may_create: bool) -> None:
        is_opening.set()
        may_end.wait()

    monkeypatch.setattr(MlflowTracking, "_open", hang)
    tracking = MlflowTracking("postgresql://nobody/mlflow")
    opener = threading.Thread(target=tracking._opened)
    opener.start()
    try:
        assert is_opening.wait(30)
        tracking.close()
    finally:
        may_end.set()
        opener.join()
