"""
The guide to a team server: its command, started on a PostgreSQL of the test's own.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import mlflow
import pytest

from tests.docs.pages import ROOT
from tests.integration.conftest import free_port, postgres, started_server
from tests.integration.postgres import Postgres
from tests.integration.runs import Station

__all__ = ["postgres"]  # a fixture

GUIDE = ROOT / "docs" / "guides" / "server.md"


def command_of_the_guide() -> list[str]:
    """
    The words of the one command that starts the server.
    """
    text = GUIDE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^mlflow server .*$", text, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.server
@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_guide_to_the_server(postgres: Postgres, tmp_path: Path) -> None:
    """
    The command serves a stock client and our logger, readings and artifacts.
    """
    postgres.create("guide")
    port = free_port()
    own = {
        "5000": str(port),
        "bulk+postgresql+psycopg://mlflow@localhost/mlflow": "bulk+"
        + postgres.uri("guide", "psycopg"),
        "/srv/mlflow/artifacts": str(tmp_path / "artifacts"),
    }
    command = command_of_the_guide()
    assert set(own) <= set(command)
    url = f"http://127.0.0.1:{port}"
    with started_server([own.get(word, word) for word in command], tmp_path, port):
        station = Station(tmp_path, url)
        try:
            with station.start("team", artifact_location=None) as log:
                log.series("loss", [0.5] * 3000)
                log.text("hello", "notes.txt")
            kept = station.finished(log.run_uid)
            assert len(kept.rows("loss")) == 3000
            assert kept.artifact("notes.txt", tmp_path) == b"hello"
        finally:
            station.stop()
        client = mlflow.MlflowClient(url)
        run = client.create_run(client.create_experiment("stock"))
        client.log_metric(run.info.run_id, "loss", 0.25)
        assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.25}
    assert list((tmp_path / "artifacts").rglob("notes.txt"))
