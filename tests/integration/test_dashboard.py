"""
The dashboard over a real store: every page, every API, whatever names are in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from markupsafe import escape
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from starlette.types import ASGIApp

from allele_mlflow import suite_tags as tags
from tests.dashboard_tools import dashboard_of, json_of, send

REPEATS = 8
RATES = ("0.1", "0.3")
SUITE = """
name = "evolution"
benchmark = "bench:run"
repeats = 8

[matrix]
rate = [0.1, 0.3]

[metrics.score]
direction = "higher"
unit = "points"
objective = true
"""


class Stored(NamedTuple):
    """
    A store with one execution of a suite, of which one trial failed, and a run beside it.
    """

    path: Path
    experiment_id: str
    run_id: str
    cell_ids: list[str]
    app: ASGIApp


def start_run(client: MlflowClient, experiment_id: str, name: str, own: dict[str, str]) -> str:
    """
    The id of a new run.
    """
    run = client.create_run(experiment_id, run_name=name, tags=own, start_time=1_700_000_000_000)
    return str(run.info.run_id)


@pytest.fixture(scope="module")
def stored(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """
    Made by MLflow's own client.
    """
    folder = tmp_path_factory.mktemp("dashboard")
    path = folder / "mlflow.db"
    shutil.copyfile(empty_store, path)
    client = MlflowClient(f"sqlite:///{path}")
    experiment_id = client.create_experiment(
        "allele_benchmark_evolution", artifact_location=(folder / "artifacts").as_uri()
    )
    own = {tags.KIND: "suite", tags.SUITE: "evolution", tags.RUN_UID: "exe"}
    counts = {tags.FINISHED_COUNT: "15", tags.FAILED_COUNT: "1", tags.NOT_RUN_COUNT: "0"}
    parent = start_run(client, experiment_id, "evolution 1", own | counts)
    client.log_text(parent, SUITE, "suite.toml")
    client.log_text(parent, "<script>alert(1)</script>", "report.html")
    cells = []
    for number, rate in enumerate(RATES):
        for repeat in range(REPEATS):
            cell = {
                tags.KIND: "cell",
                tags.EXECUTION: "exe",
                tags.CELL: f"rate={rate}",
                tags.CELL_KEY: f"key{number}",
                tags.REPEAT: str(repeat),
                tags.ATTEMPT: "0",
                "mlflow.parentRunId": parent,
            }
            run_id = start_run(client, experiment_id, f"cell {rate} {repeat}", cell)
            client.log_batch(
                run_id,
                [
                    *(
                        Metric(
                            "score", number * 10 + repeat - 1 / (1 + step), 1_700_000_000_000, step
                        )
                        for step in range(5)
                    ),
                    Metric("phase/select/seconds", 1.5, 1_700_000_000_000, 0),
                    *([Metric("trial/seconds", 0.25, 1_700_000_000_000, 0)] if number else []),
                ],
                [Param("rate", rate)],
            )
            if (number, repeat) == (1, 7):
                client.set_tag(run_id, "allele.error.category", "numeric")
                client.set_tag(run_id, "allele.error.type", "ZeroDivisionError")
                client.set_tag(run_id, "allele.error.message", "division by <i>zero</i>")
                client.set_tag(run_id, "allele.error.count", "3")
                client.set_tag(run_id, "allele.ended_by", "exception")
            if repeat == 0:
                client.set_tag(run_id, "allele.alerts.active", str(number + 1))
            is_failed = (number, repeat) == (1, 7)
            client.set_terminated(
                run_id, "FAILED" if is_failed else "FINISHED", end_time=1_700_000_002_000
            )
            cells.append(run_id)
    client.set_terminated(parent, end_time=1_700_000_060_000)
    return Stored(path, experiment_id, parent, cells, dashboard_of(path))


def paths_of(stored: Stored) -> Iterator[str]:
    """
    A path of each page.
    """
    yield "/"
    yield f"/experiments/{stored.experiment_id}"
    yield f"/experiments/{stored.experiment_id}/runs"
    yield f"/experiments/{stored.experiment_id}/runs?group=rate&metric=score"
    yield f"/executions/{stored.run_id}"
    yield f"/executions/{stored.run_id}?group=rate"
    yield f"/executions/{stored.run_id}/anytime"
    yield f"/experiments/{stored.experiment_id}/trend"
    yield f"/experiments/{stored.experiment_id}/recommendations"
    yield f"/experiments/{stored.experiment_id}/recommendations?part=ledger"
    yield f"/experiments/{stored.experiment_id}/recommendations?part=predictions"
    yield f"/runs/{stored.run_id}"
    yield f"/runs/{stored.cell_ids[0]}"
    yield "/alerts"
    yield "/delivery"


def test_every_page_is_there(stored: Stored) -> None:
    """
    Each page is HTML with one heading of the first order, and names no address but ours.
    """
    for path in paths_of(stored):
        answer = send(stored.app, path)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.text.count("<h1>") == 1
        assert "http://" not in answer.text


def test_newest_execution_of_each_experiment(stored: Stored) -> None:
    """
    The first page has each experiment with the health of its newest execution.
    """
    rows = json_of(stored.app, "/api/suites.json")["suites"]["rows"]
    named = {row["experiment"]: row for row in rows}
    row = named["allele_benchmark_evolution"]
    assert (row["health"], row["finished"], row["failed"]) == ("failures", 15, 1)
    assert (row["executions"], row["seconds"]) == (1, 60.0)
    assert named["Default"]["health"] is None


def test_cells_of_an_execution(stored: Stored) -> None:
    """
    The best cell comes first by the suite's own objective, with median, interval and failures; the
    failure is told.
    """
    found = json_of(stored.app, f"/api/executions/{stored.run_id}.json")
    assert (found["metric"], found["unit"], found["direction"]) == ("score", "points", "higher")
    best, other = found["cells"]["rows"]
    assert (best["cell"], best["repeats"], best["failed"], best["values"]) == ("rate=0.3", 8, 1, 7)
    assert best["median"] == pytest.approx(12.8)  # of 9.8 to 15.8, without the failed 16.8
    assert (best["low"], best["high"]) == pytest.approx((9.8, 15.8))
    assert other["median"] == pytest.approx(3.3)
    assert found["failures"] == [
        {
            "category": "numeric",
            "error": "ZeroDivisionError",
            "message": "division by <i>zero</i>",
            "runs": 1,
            "run_id": stored.cell_ids[-1],
        }
    ]


def test_cells_can_be_filtered_sorted_and_grouped(stored: Stored) -> None:
    """
    An expression over params chooses, a column sorts, a param groups.
    """
    path = f"/api/executions/{stored.run_id}.json"
    rows = json_of(stored.app, f"{path}?filter=rate+<+0.2")["cells"]["rows"]
    assert [row["cell"] for row in rows] == ["rate=0.1"]
    rows = json_of(stored.app, f"{path}?sort=median")["cells"]["rows"]
    assert [row["cell"] for row in rows] == ["rate=0.1", "rate=0.3"]
    rows = json_of(stored.app, f"{path}?group=rate&sort=-cell")["cells"]["rows"]
    assert [(row["cell"], row["cells"], row["repeats"]) for row in rows] == [
        ("0.3", 1, 8),
        ("0.1", 1, 8),
    ]
    assert send(stored.app, f"{path}?filter=size+>+1").status_code == 400


@pytest.mark.parametrize("page", ["executions", "experiments"])
def test_a_wrong_filter_can_be_put_right(stored: Stored, page: str) -> None:
    """
    What means nothing in a page's form is refused together with the form as it was filled in.
    """
    path = {
        "executions": f"/executions/{stored.run_id}",
        "experiments": f"/experiments/{stored.experiment_id}/runs",
    }[page]
    for wrong in ("size = 10", '"><b', "colour == 1"):
        answer = send(stored.app, f"{path}?{urlencode({'filter': wrong, 'group': 'rate'})}")
        assert answer.status_code == 400
        assert f'name="filter" value="{escape(wrong)}"' in answer.text
        assert 'name="group" value="rate"' in answer.text
        assert f'action="{path}"' in answer.text
        assert f'<a href="{path}">This page without it</a>' in answer.text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("group=nosuch", "no run has a param or tag 'nosuch'"),
        ("metric=nosuch", "no run has a metric 'nosuch'"),
        ("sort=-metric.nosuch", "no run has a metric 'nosuch'"),
        ("sort=param.nosuch", "no run has a param 'nosuch'"),
    ],
)
def test_names_that_no_run_has(stored: Stored, query: str, words: str) -> None:
    """
    To sort or group runs by what none of them has is refused.
    """
    answer = send(stored.app, f"/api/experiments/{stored.experiment_id}/runs.json?{query}")
    assert (answer.status_code, answer.json()["detail"]) == (400, words)


def test_runs_in_pages(stored: Stored) -> None:
    """
    The runs of an experiment come in pages, sorted by a metric, found by name and status.
    """
    path = f"/api/experiments/{stored.experiment_id}/runs.json"
    found = json_of(stored.app, f"{path}?sort=-metric.score&rows=3&page=2")
    assert (found["runs"]["row_count"], found["runs"]["page"]) == (17, 2)
    assert [row["metrics"]["score"] for row in found["runs"]["rows"]] == pytest.approx(
        [13.8, 12.8, 11.8]
    )
    found = json_of(stored.app, f"{path}?find=CELL+0.3&status=FAILED")
    assert [row["run_id"] for row in found["runs"]["rows"]] == [stored.cell_ids[-1]]
    groups = json_of(stored.app, f"{path}?group=rate&metric=score&sort=-median")["groups"]["rows"]
    assert [(one["group"], one["runs"], one["failed"]) for one in groups] == [
        ("0.3", 8, 1),
        ("0.1", 8, 0),
        ("without rate", 1, 0),
    ]


def test_a_run_tells_what_it_knows(stored: Stored) -> None:
    """
    Params, metrics, phases and files of a run.
    """
    found = json_of(stored.app, f"/api/runs/{stored.cell_ids[0]}.json?find=score")
    assert found["params"] == [{"key": "rate", "value": "0.1"}]
    assert [(row["key"], row["step"]) for row in found["metrics"]["rows"]] == [("score", 4)]
    assert found["phases"][0]["name"] == "select"
    found = json_of(stored.app, f"/api/runs/{stored.run_id}.json")
    assert [one["path"] for one in found["artifacts"]["files"]] == ["report.html", "suite.toml"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_plotlys(stored: Stored, scheme: str) -> None:
    """
    Each figure of a page is a plotly figure with traces; one with nothing to draw is no content.
    """
    base = f"/api/executions/{stored.run_id}/figures"
    for name in ("cells", "convergence"):
        found = json_of(stored.app, f"{base}/{name}.json?scheme={scheme}")
        assert found["data"]
        assert found["height_px"] > 100
    answer = send(stored.app, f"/api/runs/{stored.run_id}/figures/metric.json")
    assert answer.status_code == 204
    assert send(stored.app, f"{base}/pie.json").status_code == 404


def test_files_are_sent_to_be_kept(stored: Stored) -> None:
    """
    A file is an attachment without a type that a browser would show, in a sandbox.
    """
    answer = send(stored.app, f"/runs/{stored.run_id}/artifacts/report.html")
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "../../mlflow.db",
        "..%2F..%2Fmlflow.db",
        "%2e%2e%2f%2e%2e%2fmlflow.db",
        "/etc/passwd",
        "%2Fetc%2Fpasswd",
        "file:%2F%2F%2Fetc%2Fpasswd",
        "report.html%00",
        "..%5C..%5Cmlflow.db",
        "suite.toml%2F..%2Freport.html",
    ],
)
def test_no_path_leaves_a_runs_files(stored: Stored, path: str) -> None:
    """
    Whatever a path says, only files that the store lists of that run are sent.
    """
    answer = send(stored.app, f"/runs/{stored.run_id}/artifacts/{path}")
    assert answer.status_code in (400, 404)
    assert b"SQLite" not in answer.content
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/experiments/999",
        "/experiments/0x1",
        "/experiments/1'%20OR%20'1'='1/runs",
        "/experiments/%D9%A3",
        "/executions/none",
        "/runs/none",
        "/runs/..%2F..",
        "/nowhere",
    ],
)
def test_what_is_not_there(stored: Stored, path: str) -> None:
    """
    What is not there is told so, to people and to programs.
    """
    assert send(stored.app, path).status_code == 404
    if path != "/nowhere":
        answer = send(stored.app, f"/api{path}.json")
        assert (answer.status_code, set(answer.json())) == (404, {"error", "detail"})


def test_a_store_that_is_away(tmp_path: Path) -> None:
    """
    Without a store, or with an offline one, pages say so, and the page of delivery is there.
    """
    for uri in (f"sqlite:///{tmp_path / 'none.db'}", "offline"):
        app = dashboard_of(uri)
        answer = send(app, "/")
        assert answer.status_code == 503
        assert "store" in answer.text
        assert send(app, "/delivery").status_code == 200
        assert send(app, "/runs/x/artifacts/y").status_code == 503
    assert list(tmp_path.iterdir()) == []  # and nothing was made


def test_before_the_first_run(tmp_path: Path) -> None:
    """
    Where nothing was logged yet, pages say how to begin, and lead to none that says no more.
    """
    app = dashboard_of(tmp_path / "none.db")
    for path in ("/", "/compare", "/alerts", "/retention", "/api/suites.json"):
        answer = send(app, path)
        assert answer.status_code == 503, path
        assert "allele-mlflow run SUITE makes it" in answer.text, path
        assert "To the first page" not in answer.text, path
    assert list(tmp_path.iterdir()) == []


def test_description_fits_the_answers(stored: Stored) -> None:
    """
    Every page is described, with the schema of what it says.
    """
    described = json_of(stored.app, "/api/openapi.json")
    for path in paths_of(stored):
        plain = path.partition("?")[0]
        api = "/api/suites.json" if plain == "/" else f"/api{plain}.json"
        known = api.replace(stored.run_id, "{run_id}").replace(stored.cell_ids[0], "{run_id}")
        known = known.replace(f"experiments/{stored.experiment_id}", "experiments/{experiment_id}")
        schema = described["paths"][known]["get"]["responses"]["200"]["content"]
        name = schema["application/json"]["schema"]["$ref"].rpartition("/")[2]
        wanted = set(described["components"]["schemas"][name]["properties"])
        assert set(msgspec.json.decode(send(stored.app, api).content)) == wanted


def test_histories_of_an_experiment(stored: Stored) -> None:
    """
    The page of trends lists what it looked at, and says of what it could not judge why.
    """
    found = json_of(stored.app, f"/api/experiments/{stored.experiment_id}/trend.json")
    told = {(one["cell"], one["metric"]): one for one in found["histories"]}
    assert told["rate=0.3", "score"]["executions"] == 1
    assert told["rate=0.3", "score"]["newest"] == pytest.approx(12.8)
    assert ("rate=0.1", "run/success_ratio") in told
    assert found["executions"] == 1
    assert {one["cell"] for one in found["skipped"]} == {"rate=0.1", "rate=0.3"}


def test_searches_of_an_execution(stored: Stored) -> None:
    """
    Each cell has its best and its area by the suite's own objective.
    """
    found = json_of(stored.app, f"/api/executions/{stored.run_id}/anytime.json?sort=-best")
    assert [row["cell"] for row in found["cells"]["rows"]] == ["rate=0.3", "rate=0.1"]
    assert found["cells"]["rows"][1]["best"] == pytest.approx(3.3)
    assert len(found["targets"]) == 4
    path = f"/api/executions/{stored.run_id}/anytime.json"
    assert send(stored.app, f"{path}?metric=none").status_code == 400
    assert send(stored.app, f"{path}?per_step=size").status_code == 400


def test_advice_on_an_experiment(stored: Stored) -> None:
    """
    The newest execution says what its parameters do; without told advice the ledger is empty.
    """
    path = f"/api/experiments/{stored.experiment_id}/recommendations.json"
    effects = json_of(stored.app, path)["effects"]
    assert [(one["metric"], one["parameter"]) for one in effects] == [("score", "rate")]
    assert effects[0]["effect"] == pytest.approx(9.5, abs=1.0)
    assert json_of(stored.app, f"{path}?part=ledger")["advice"]["rows"] == []
    assert json_of(stored.app, f"{path}?part=predictions")["scores"] == []


def test_a_history_is_chosen_by_its_link(stored: Stored) -> None:
    """
    Each history leads to itself: cell and metric stand in the address, and the figure is of both.
    """
    path = f"/experiments/{stored.experiment_id}/trend"
    page = send(stored.app, path).text
    assert f'href="{path}?metric=score&amp;cell=rate%3D0.3' in page
    chosen = json_of(stored.app, f"/api{path}.json?metric=score&cell=rate%3D0.3")
    assert (chosen["metric"], chosen["cell"]) == ("score", "rate=0.3")


def test_a_failed_run_says_why(stored: Stored) -> None:
    """
    What ended a run and its last error are told, as plain text; a run without errors has none.
    """
    path = f"/runs/{stored.cell_ids[-1]}"
    found = json_of(stored.app, f"/api{path}.json")
    assert found["ended_by"] == "exception"
    assert found["errors"] == [
        {
            "category": "numeric",
            "error": "ZeroDivisionError",
            "message": "division by <i>zero</i>",
            "count": 3,
        }
    ]
    page = send(stored.app, path).text
    assert page.index("division by &lt;i&gt;zero&lt;/i&gt;") < page.index("<h2>Metrics</h2>")
    good = json_of(stored.app, f"/api/runs/{stored.cell_ids[0]}.json")
    assert (good["ended_by"], good["errors"]) == (None, [])
    assert "<h2>Errors</h2>" not in send(stored.app, f"/runs/{stored.cell_ids[0]}").text


def test_alerts_of_an_execution_are_its_cells(stored: Stored) -> None:
    """
    An execution has as many active alerts as its cells have together.
    """
    found = json_of(stored.app, f"/api/executions/{stored.run_id}.json")
    assert found["execution"]["active_alerts"] == 3


def test_seconds_of_a_cell_are_its_trials(stored: Stored) -> None:
    """
    Cells took what their trials say; the time between a run's start and end where they say nothing.
    """
    rows = json_of(stored.app, f"/api/executions/{stored.run_id}.json")["cells"]["rows"]
    assert {row["cell"]: row["seconds"] for row in rows} == {"rate=0.1": 2.0, "rate=0.3": 0.25}
    assert "<code>trial/seconds</code>" in send(stored.app, f"/executions/{stored.run_id}").text
