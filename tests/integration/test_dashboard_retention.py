"""
The dashboard's preview of a clean-up says what `allele-mlflow gc --dry-run` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from allele_mlflow.registry.retention import Rules
from allele_mlflow.registry.retention_plan import plan_retention
from tests.dashboard_tools import dashboard_of, json_of, send
from tests.registry_dashboard import AXES, Place, opened_place, scores_around


@pytest.fixture(scope="module")
def place(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    Runs that evidence reaches, and an execution that nothing reaches, with files.
    """
    with opened_place(tmp_path_factory.mktemp("retention"), empty_store) as found:
        made = found.store.add(AXES, scores_around(1.0), repeats=2, seed=9)
        file = found.folder / "weights.bin"
        file.write_bytes(bytes(1000))
        for run_id in made.cells[:3]:
            found.store.tracking.log_artifact(run_id, file, "model/weights.bin")
        yield found


@pytest.fixture(scope="module")
def app(place: Place) -> ASGIApp:
    """
    The dashboard.
    """
    return place.app()


def test_plan_of_the_command(app: ASGIApp, place: Place) -> None:
    """
    With the files of all runs looked at, each run has the verdict, reason and size of the command's
    plan, and each experiment their sums.
    """
    found = json_of(app, "/api/retention.json?older_than_days=0&files=all&rows=500")
    plan = plan_retention(place.settings, Rules(older_than_days=0))
    rows = {
        row["run_id"]: (row["verdict"], row["files"], row["size_bytes"])
        for row in found["runs"]["rows"]
    }
    assert rows == {
        one.run.run_id: (one.verdict.value, one.files, one.size_bytes) for one in plan.decisions
    }
    (share,) = found["shares"]
    assert (share["going"], share["files"], share["size_bytes"]) == (3, 3, 3000)
    assert (share["runs"], share["stays"]["empty"]) == (len(rows), 1)
    assert found["command"] == "allele-mlflow gc --older-than 0"


def test_only_runs_that_are_shown_are_looked_into(app: ASGIApp) -> None:
    """
    Without that, the files of the page's runs are counted, and no sum is told that nobody knows.
    """
    found = json_of(app, "/api/retention.json?older_than_days=0&verdict=deleted&rows=2")
    assert found["runs"]["row_count"] == 4
    assert len(found["runs"]["rows"]) == 2
    (share,) = found["shares"]
    assert (share["going"], share["files"], share["size_bytes"]) == (4, None, None)


def test_rules_and_reasons(app: ASGIApp) -> None:
    """
    Rules of the address count, and are in the command; a run that stays says why.
    """
    found = json_of(app, "/api/retention.json?older_than_days=0&keep_last=1&experiment=sorting")
    assert found["shares"][0]["going"] == 0
    command = "allele-mlflow gc --older-than 0 --keep-last 1 -- sorting"
    assert found["command"] == command
    text = send(app, "/retention?older_than_days=0&find=sorting").text
    assert "version persona/" in text
    assert json_of(app, "/api/retention.json?verdict=young")["runs"]["rows"] == []


def test_nothing_is_deleted_by_looking(app: ASGIApp, place: Place) -> None:
    """
    The page has no form that changes anything, and all files are there afterwards.
    """
    before = sorted(place.folder.rglob("weights.bin"))
    text = send(app, "/retention?older_than_days=0&files=all").text
    assert 'method="post"' not in text
    assert sorted(place.folder.rglob("weights.bin")) == before


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("older_than_days=old", "want a number"),
        ("older_than_days=-1", "want a number"),
        ("keep_last=1.5", "want a number"),
        ("experiment=nothing", "there is no such experiment"),
        ("verdict=kept", "want one of"),
    ],
)
def test_what_means_nothing_is_told(app: ASGIApp, query: str, words: str) -> None:
    """
    A rule that means nothing is an answer of 400 that says what is wanted.
    """
    answer = send(app, f"/retention?{query}")
    assert (answer.status_code, words in answer.text) == (400, True)


def test_where_nothing_can_be_told_nothing_goes(tmp_path: Path, place: Place) -> None:
    """
    Without a registry the page says that nothing would be deleted and why; with the word that there
    is none, it has a plan.
    """
    app = dashboard_of(place.settings.tracking_uri)
    found = json_of(app, "/api/retention.json?older_than_days=0")
    assert (found["runs"]["rows"], "there is no registry" in found["problem"]) == ([], True)
    assert found["problem"].endswith("Where there never was one: Registry, none")  # no --option
    found = json_of(app, "/api/retention.json?older_than_days=0&registry=none")
    assert found["problem"] is None
    assert found["command"] == "allele-mlflow gc --older-than 0 --no-registry"
    assert send(dashboard_of("offline"), "/retention").status_code == 503
