"""
Alerts and advice of runs that are over, read back from their artifacts in the store. Imports
mlflow, and not pandas.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.errors import ErrorKind, TransientTrackingError
from allele_mlflow.records import OWN_ARTIFACTS, RunId
from allele_mlflow.settings import mask_secrets
from allele_mlflow.tracking.error_mapping import mapped_errors
from allele_mlflow.tracking.local_artifacts import find_local_artifacts
from allele_mlflow.tracking.schema import sqlite_path

ALERTS = "alerts.json"
RECOMMENDATIONS = "recommendations.json"
PREDICTIONS = "predictions.json"
#: Of a run that has alerts, or had rules for them.
ALERTS_TAG = "allele.alerts.active"
RUN_UID_TAG = "allele.run_uid"
_PAGE_SIZE = 1000


def artifact_alerts(tracking_uri: str, run_id: str) -> list[dict[str, Any]]:
    """
    The documents `allele/alerts.json` of a run: one of each part of it that had alerts or rules.

    Raises:
        TrackingError: the store does not answer.
    """
    return artifact_documents(tracking_uri, run_id, ALERTS)


def artifact_documents(tracking_uri: str, run_id: str, name: str) -> list[dict[str, Any]]:
    """
    The documents `allele/<name>` of a run: one of each part of it that has one.

    Args:
        tracking_uri: As MLflow takes it.
        run_id: MLflow's id.
        name: Of the file: `ALERTS`, `RECOMMENDATIONS`, `PREDICTIONS`.
    Raises:
        TrackingError: the store does not answer, or one is no document of ours.
    """
    root = find_local_artifacts(tracking_uri, run_id)
    if root is not None:
        with mapped_errors(f"artifacts of run {run_id}"):
            files = {path: (root / path).read_bytes() for path in _find_local(root, name)}
    else:
        files = _fetch_documents(_client(tracking_uri), run_id, name)
    found = []
    for path, data in files.items():
        try:
            found.append(msgspec.json.decode(data, type=dict[str, Any]))
        except msgspec.MsgspecError as exc:
            raise TransientTrackingError(
                f"artifact {path} of run {run_id} is no document of ours: {exc}",
                kind=ErrorKind.REFUSED,
            ) from exc
    return found


def find_alerted_runs(tracking_uri: str, name: str, *, prefix: str = "") -> list[RunId] | None:
    """
    The runs that a text means, as far as they have alerts or had rules, newest first.

    Args:
        tracking_uri: As MLflow takes it.
        name: The id, `run_uid` or name of a run, or the name of an experiment.
        prefix: What may be left out before an experiment's name.
    Returns:
        None where there is neither such a run nor such an experiment.
    Raises:
        TrackingError: the store does not answer.
    """
    client = _client(tracking_uri)
    with mapped_errors(f"runs of {mask_secrets(tracking_uri)}"):
        for wanted in dict.fromkeys((name, f"{prefix}{name}")):
            experiment = client.get_experiment_by_name(wanted)
            if experiment is not None:
                wish = f"tags.`{ALERTS_TAG}` LIKE '%'"
                return list(_search(client, [experiment.experiment_id], wish))
        quoted = _quoted(name)
        if quoted is None:
            return None
        ids = [one.experiment_id for one in _all_experiments(client)]
        for key in ("attributes.run_id", f"tags.`{RUN_UID_TAG}`", "attributes.run_name"):
            found = list(_search(client, ids, f"{key} = {quoted}"))
            if found:
                return found
    return None


def _find_local(root: Path, name: str) -> list[str]:
    """
    As `_find_documents`, in a folder of this machine.
    """
    own = root / OWN_ARTIFACTS
    found = [own / name, *own.glob(f"parts*/**/{name}")]
    return sorted(file.relative_to(root).as_posix() for file in found if file.is_file())


def _fetch_documents(client: Any, run_id: str, name: str) -> dict[str, bytes]:
    with mapped_errors(f"artifacts of run {run_id}"):
        paths = _find_documents(client, run_id, name)
    files = {}
    for path in paths:
        with (
            tempfile.TemporaryDirectory() as folder,
            mapped_errors(f"artifact {path} of run {run_id}"),
        ):
            files[path] = Path(client.download_artifacts(run_id, path, folder)).read_bytes()
    return files


def _find_documents(client: Any, run_id: str, name: str) -> list[str]:
    found, folders = [], [OWN_ARTIFACTS]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop()):
            if entry.is_dir and entry.path.removeprefix(OWN_ARTIFACTS).startswith("/parts"):
                folders.append(entry.path)
            elif entry.path.rpartition("/")[2] == name:
                found.append(entry.path)
    return sorted(found)


def _client(tracking_uri: str) -> Any:
    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():  # MLflow would make it, with all its tables
        raise TransientTrackingError(
            f"{path}: there is no such database", kind=ErrorKind.STORE_UNREACHABLE
        )
    with mapped_errors(f"open {mask_secrets(tracking_uri)}", can_refuse=False):
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=tracking_uri)


def _quoted(text: str) -> str | None:
    # MLflow's grammar knows no escape; a text with both kinds of quotes is nobody's name
    if "'" in text:
        return None if '"' in text else f'"{text}"'
    return f"'{text}'"


def _search(client: Any, experiment_ids: list[str], wanted: str) -> Iterator[RunId]:
    token = None
    while experiment_ids:
        page = client.search_runs(
            experiment_ids,
            wanted,
            max_results=_PAGE_SIZE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        yield from (RunId(run.info.run_id) for run in page)
        token = page.token
        if not token:
            return


def _all_experiments(client: Any) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_experiments(max_results=_PAGE_SIZE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
