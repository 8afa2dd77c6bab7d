"""
A file of a run, to be kept and never shown: what it holds may be anybody's HTML.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.errors import PermanentTrackingError
from allele_mlflow.tracking.artifact_names import check_artifact_path
from allele_mlflow.tracking.reader import artifact_bytes

PATH = "/runs/{run_id}/artifacts/{path:path}"


async def send_artifact(source: Source, request: Request) -> Response:
    """
    One file, as an attachment. Its path is looked for among those that the store lists, and never
    joined to a folder's.

    Raises:
        RefusalError: 404: the run has no such file.
        TrackingError: the store does not answer, or the file is too large.
    """
    run_id, path = request.path_params["run_id"], request.path_params["path"]
    try:
        check_artifact_path(path)
    except PermanentTrackingError as exc:
        raise RefusalError(404, str(exc)) from exc
    data = await source.ask(partial(_read, source, run_id, path))
    if data is None:
        raise RefusalError(404, f"run {run_id} has no file {path}")
    name = quote(path.rpartition("/")[2], safe="")
    return Response(
        data,
        media_type="application/octet-stream",
        headers={
            "content-disposition": f"attachment; filename*=UTF-8''{name}",
            "content-security-policy": "default-src 'none'; sandbox",
        },
    )


def _read(source: Source, run_id: str, path: str) -> bytes | None:
    with source.reader() as reader:  # first: MLflow's client would make a store that is not there
        runs = reader.runs(run_ids=[run_id], tag_keys=[], param_keys=[], metric_keys=[]).runs
    if not len(runs):
        raise RefusalError(404, f"there is no run {run_id}")
    return artifact_bytes(source.tracking_uri, run_id, path)
