"""
The dashboard inside a real `mlflow server`, behind MLflow's own login.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import opened_server

pytestmark = [pytest.mark.server, pytest.mark.process, pytest.mark.slow]

PASSWORD = "a-password-of-some-length"


@pytest.fixture(scope="module")
def address(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    Of the server.
    """
    folder = tmp_path_factory.mktemp("mounted")
    shutil.copyfile(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "a secret of this test")
        patch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        app = "allele-dashboard-basic-auth"
        with opened_server(folder, uri, "--app-name", app) as found:
            yield found


def test_pages_stand_behind_the_login(address: str) -> None:
    """
    Without a password nothing is shown; an administrator sees the pages and their files below
    /allele, and MLflow's own beside them; a form from elsewhere is refused.
    """
    with httpx.Client(base_url=address) as client:
        assert client.get("/allele/").status_code == 401
        assert client.get("/allele/api/suites.json").status_code == 401
        assert client.get("/allele/", auth=("admin", "guessed")).status_code == 401
        client.auth = httpx.BasicAuth("admin", PASSWORD)
        assert client.get("/allele").headers["location"] == "/allele/"
        page = client.get("/allele/")
        assert page.status_code == 200
        assert 'href="/allele/static/dashboard.css"' in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert client.get("/allele/static/dashboard.css").status_code == 200
        rows = client.get("/allele/api/suites.json").json()["suites"]["rows"]
        assert [row["experiment"] for row in rows] == ["Default"]
        found = client.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"})
        assert found.json()["experiment"]["name"] == "Default"
        sent = client.post("/allele/", data={"csrf": ""}, headers={"origin": "http://evil.example"})
        assert sent.status_code == 403


def test_other_hosts_are_refused(address: str) -> None:
    """
    MLflow's own check of hosts stands before the dashboard too.
    """
    with httpx.Client(base_url=address, auth=("admin", PASSWORD)) as client:
        answer = client.get("/allele/", headers={"host": "evil.example"})
    assert answer.status_code == 403
