"""
Remedies for what a store or an mlflow said when it did not work; pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from allele_mlflow.errors import ErrorKind
from allele_mlflow.tracking.probe import ProbeStep

_UPGRADE = "pip install --upgrade mlflow-skinny (or mlflow, where you have the whole of it)"
_BUSY_STATUS = 429
#: What a message says, and what helps; the first one that is found counts.
_BY_TEXT: tuple[tuple[str, Callable[[str], str]], ...] = (
    (
        r"too old",
        lambda store: _UPGRADE,
    ),
    (
        r"newer MLflow than",
        lambda store: f"{_UPGRADE}; not `mlflow db upgrade`: the database is the newer one",
    ),
    (
        r"read-?only",
        lambda store: "give this user write access to the database and its folder (chmod u+w)",
    ),
    (
        r"Connection refused",
        lambda store: (
            f"nobody listens at {store}: start `mlflow server`, or correct "
            "ALLELE_MLFLOW_TRACKING_URI"
        ),
    ),
    (
        r"Name or service not known|Temporary failure in name resolution|nodename nor servname"
        r"|No address associated|Failed to resolve|could not translate host name",
        lambda store: (
            f"the host of {store} has no address: correct ALLELE_MLFLOW_TRACKING_URI, or "
            "look at the network"
        ),
    ),
    (
        r"timed out|Timeout",
        lambda store: f"{store} answers too late: look at it, and at a proxy in between",
    ),
    (
        r"not in a valid JSON format",
        lambda store: (
            f"it is not MLflow that answers at {store}, perhaps a login page: correct "
            "ALLELE_MLFLOW_TRACKING_URI, or log in"
        ),
    ),
    (
        r"maintenance mode",
        lambda store: (
            "this MLflow has given up stores of files: set "
            "ALLELE_MLFLOW_TRACKING_URI=sqlite:///mlflow.db (`mlflow migrate-filestore` moves runs)"
        ),
    ),
    (
        r"certificate|SSLError",
        lambda store: (
            "set REQUESTS_CA_BUNDLE to the authority's certificate, or "
            "MLFLOW_TRACKING_SERVER_CERT_PATH"
        ),
    ),
    (
        r"No module named '(?!mlflow)",
        lambda store: (
            "pip install the module that is missing, into the Python that runs the "
            "benchmark (a database other than SQLite needs its driver)"
        ),
    ),
)


def explain_failure(step: ProbeStep, *, store: str) -> tuple[str, str]:
    """
    What failed, and a remedy that can be followed.

    Args:
        step: One with an error.
        store: The store's address, secrets masked; empty for the import.
    """
    error = step.error or ""
    if step.schema == "newer":
        text = f"{store}: its tables were made by a newer MLflow than the one here: {error}"
        return text, f"{_UPGRADE}; not `mlflow db upgrade`: the database is the newer one"
    if step.schema == "older":
        text = f"{store}: its tables are of an older MLflow than the one here: {error}"
        return text, f"make a backup, then run `mlflow db upgrade '{store}'`"
    by_status = _remedy_for_status(step.http_status, store)
    if by_status is not None:
        return error, by_status
    for pattern, remedy in _BY_TEXT:
        if re.search(pattern, error, re.IGNORECASE):
            return error, remedy(store)
    if step.step == "import":
        remedy_text = (
            "pip install 'mlflow-skinny' into the Python that runs the benchmark, and see that no "
            "other mlflow stands before it in PYTHONPATH"
        )
        return error, remedy_text
    return error, _remedy_for_kind(step, store)


def explain_silence(store: str, timeout_s: float) -> tuple[str, str]:
    """
    A store that takes the connection and never answers.
    """
    text = f"{store} does not answer within {timeout_s:g} s"
    remedy = (
        "look whether it is MLflow that listens there, and at its log; a slow one wants "
        "--timeout SECONDS. Records wait in the spool"
    )
    return text, remedy


def _remedy_for_status(status: int | None, store: str) -> str | None:
    if status == 401:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if status == 403:
        return "ask the server's owner for the right to create experiments and runs"
    if status == 404:
        return f"nothing of MLflow's is at {store}: correct ALLELE_MLFLOW_TRACKING_URI"
    if status == _BUSY_STATUS:
        return "the server limits requests: try again later; records wait in the spool"
    if status is not None and status >= 500:
        return "the server failed: look at its log; records wait in the spool"
    return None


def _remedy_for_kind(step: ProbeStep, store: str) -> str:
    if step.kind == ErrorKind.UNAUTHORISED:
        return f"give this user write access to {store}, or set its credentials"
    if step.kind == ErrorKind.STORE_BUSY:
        return "another program keeps the store busy: try again when it has ended"
    if step.step == "artifact":
        return (
            "give this user write access to the artifact location, or its credentials; a new "
            "experiment takes ALLELE_MLFLOW_ARTIFACT_LOCATION"
        )
    return f"mend what the message says, or correct ALLELE_MLFLOW_TRACKING_URI ({store})"
