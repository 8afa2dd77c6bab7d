"""
Clean-ups of artifacts that lie elsewhere: behind a server's proxy, and in S3.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import PermanentTrackingError
from allele_mlflow.records import RunId
from allele_mlflow.registry import open_registry
from allele_mlflow.registry.retention import Rules
from allele_mlflow.registry.retention_deletion import RetentionDeletion
from allele_mlflow.registry.retention_plan import RetentionPlan, plan_retention
from allele_mlflow.registry.retention_roots import open_registries
from allele_mlflow.settings import Settings, load
from allele_mlflow.tracking.client import MlflowTracking
from allele_mlflow.tracking.run_artifacts import RunArtifacts
from tests.integration.conftest import free_port, opened_server
from tests.integration.executions import PREFIX, START_MS
from tests.integration.runs import wait_for

RUNS = 3
FILES = {
    "model/weights.bin": b"w" * 1000,
    "50% of it?.txt": b"p" * 7,
    "al.txt": b"a",
    "allele/environment.json": b"{}",
    "allele/readings.parquet": b"r" * 100,
}
STAY = {"allele/environment.json"}


def add_runs(uri: str, folder: Path, location: str | None) -> list[RunId]:
    """
    Runs that are over, with artifacts.
    """
    tracking = MlflowTracking(uri)
    experiment_id = tracking.ensure_experiment(f"{PREFIX}far", artifact_location=location)
    found = []
    for number in range(RUNS):
        run_id = tracking.create_run(
            experiment_id,
            run_name=f"run {number}",
            start_ms=START_MS,
            tags={tags.RUN_UID: f"uid-{number}"},
        )
        for path, data in FILES.items():
            (folder / "scratch").write_bytes(data)
            tracking.log_artifact(run_id, folder / "scratch", path)
        tracking.end_run(run_id, "FINISHED", START_MS + 1000)
        found.append(run_id)
    tracking.close()
    return found


def clean_up(settings: Settings) -> tuple[RetentionPlan, RetentionDeletion]:
    """
    Plan and delete.
    """
    registries = open_registries(settings)
    plan = plan_retention(settings, Rules(older_than_days=30), registries=registries)
    deletion = RetentionDeletion(settings, registries)
    deletion.delete(plan)
    return plan, deletion


def artifact_uris(uri: str) -> dict[str, str]:
    """
    Of each run.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(f"{PREFIX}far")
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_id: run.info.artifact_uri for run in runs}


def assert_cleaned(uri: str, settings: Settings, run_ids: list[RunId]) -> None:
    """
    One run is registered and stays whole, of all others only our documents stay.
    """
    registry = open_registry(settings, by="ann")
    genome = {"genome_id": "any", "traits": {"empathy": 0.5}}
    registry.register("far", genome, tags={"allele.run": "uid-0"})
    plan, deletion = clean_up(settings)
    sizes_bytes = {path: len(data) for path, data in FILES.items()}
    going = sum(sizes_bytes.values()) - sum(sizes_bytes[path] for path in STAY)
    assert {one.run.run_id for one in plan.deleted} == set(run_ids[1:])
    assert plan.size_bytes == deletion.done.size_bytes == going * (RUNS - 1)
    assert (deletion.done.failed, deletion.done.spared) == ([], [])
    artifacts, uris = RunArtifacts(uri), artifact_uris(uri)
    assert artifacts.sizes(uris[run_ids[0]]) == sizes_bytes
    for run_id in run_ids[1:]:
        assert set(artifacts.sizes(uris[run_id])) == STAY
    assert registry.load("far/1").document == genome
    again, _ = clean_up(settings)
    assert again.deleted == ()


@pytest.mark.server
@pytest.mark.process
@pytest.mark.timeout(150)
def test_through_a_server(tmp_path: Path, empty_store: Path) -> None:
    """Runs, registry and artifacts behind one server: what is not reached goes through its proxy,
    names with signs in them too; a path that leads elsewhere is refused.
    """
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with opened_server(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}") as url:
        run_ids = add_runs(url, tmp_path, None)
        settings = load({"tracking_uri": url})
        assert settings.model_registry_uri == url
        assert_cleaned(url, settings, run_ids)
        left = {path.name for path in (tmp_path / "artifacts").rglob("weights.bin")}
        assert left == {"weights.bin"}
        uri = artifact_uris(url)[run_ids[0]]
        for path in ("../../other", "/etc/passwd", "", "."):
            with pytest.raises(PermanentTrackingError):
                RunArtifacts(url).delete(uri, [path])


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """
    The address of a bucket in a server that speaks S3.
    """
    import boto3
    from botocore.exceptions import EndpointConnectionError

    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environ = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "s3.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        client = boto3.client("s3")

        def make() -> bool:
            assert server.poll() is None, (tmp_path / "s3.log").read_text()
            try:
                client.create_bucket(Bucket="runs")
            except EndpointConnectionError:
                return False
            return True

        wait_for(make, "S3")
        yield "s3://runs/deep"
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(100)
def test_in_s3(sqlite_store: str, bucket: str, empty_store: Path, tmp_path: Path) -> None:
    """Artifacts in a bucket: the same, and no key beside a run's goes whose name begins like it."""
    import boto3

    registry = tmp_path / "registry.db"
    shutil.copyfile(empty_store, registry)
    run_ids = add_runs(sqlite_store, tmp_path, bucket)
    settings = load(
        {
            "tracking_uri": sqlite_store,
            "model_registry_uri": f"sqlite:///{registry}",
            "artifact_location": str(tmp_path / "artifacts"),
        }
    )
    beside = f"deep/{run_ids[1]}/artifacts-of-another/model/weights.bin"
    client = boto3.client("s3")
    client.put_object(Bucket="runs", Key=beside, Body=b"precious")
    assert_cleaned(sqlite_store, settings, run_ids)
    assert client.get_object(Bucket="runs", Key=beside)["Body"].read() == b"precious"
