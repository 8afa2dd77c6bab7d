"""
The dashboard's page of comparisons says what `allele-mlflow compare` says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from starlette.types import ASGIApp

from allele_mlflow.analysis.selection import select
from allele_mlflow.analysis.suite_comparison import compare_selections
from allele_mlflow.tracking.reader import open_reader
from tests.dashboard_tools import dashboard_of, json_of, send
from tests.integration.executions import PREFIX, Measure, Metrics, Store

HOSTILE = "<script>alert(1)</script>"
AXES: dict[str, list[Any]] = {"size": [10, 20], "kind": [HOSTILE]}


def scores_around(level: float) -> Measure:
    """
    Scores of trials around a level, alike for the same seed.
    """

    def measured(params: Mapping[str, Any], seed: int) -> Metrics:
        noise = float(np.random.default_rng([seed, params["size"]]).normal(0, 1))
        return {"score": level + noise}

    return measured


@pytest.fixture(scope="module")
def store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """
    Three executions of a suite: one, a better one, and one like it.
    """
    folder = tmp_path_factory.mktemp("compared")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    found = Store(folder)
    for number, level in enumerate((100.0, 110.0, 110.0)):
        found.add(AXES, scores_around(level), repeats=8, seed=number)
    found.add_run("plain", {"score": 1.0})
    yield found
    found.close()


@pytest.fixture(scope="module")
def app(store: Store) -> ASGIApp:
    """
    The dashboard of it.
    """
    return dashboard_of(store.folder / "mlflow.db")


def query_of(*given: str, **more: str) -> str:
    """
    Of a comparison of the first selection with the others.
    """
    return urlencode([("base", given[0]), *(("with", one) for one in given[1:]), *more.items()])


def test_nothing_is_compared_unasked(app: ASGIApp) -> None:
    """
    The page without a selection is a form that offers experiments and executions.
    """
    found = json_of(app, "/api/compare.json")
    assert found["sides"] == []
    assert found["choices"] == ["Default", "sorting", "sorting~1", "sorting~2", "plain"]
    answer = send(app, "/compare")
    assert (answer.status_code, answer.text.count("<h1>")) == (200, 1)
    assert '<option value="sorting~1">' in answer.text


def test_page_and_command_say_the_same(app: ASGIApp, store: Store) -> None:
    """
    Each row has the verdict, the figures and the words of the comparison behind the command.
    """
    found = json_of(app, "/api/compare.json?" + query_of("sorting~2", "sorting", metric="score"))
    with contextlib.closing(open_reader(store.uri)) as reader:
        sides = [select(reader, store.uri, one, prefix=PREFIX) for one in ("sorting~2", "sorting")]
    compared = compare_selections(*sides, metrics=["score"])
    assert compared.found is not None
    rows = {row["cell"]: row for row in found["rows"]["rows"]}
    assert len(rows) == len(compared.found.rows) == 2
    for one in compared.found.rows:
        row = rows[one.cell]
        assert (row["verdict"], row["reason"]) == (one.verdict.value, one.reason)
        assert one.difference is not None
        assert (row["difference"], row["difference_low"]) == one.difference[:2]
        assert row["p_holm"] == one.p_holm
    assert found["verdicts"]["better"] == 2
    assert [one["role"] for one in found["sides"]] == ["baseline", "candidate"]
    assert [one["runs"] for one in found["sides"]] == [16, 16]


def test_three_are_ranked(app: ASGIApp) -> None:
    """
    With more than two selections the page has ranks with Friedman's test, the best first, and says
    of each row whose it is.
    """
    path = "/api/compare.json?" + query_of("sorting~2", "sorting~1", "sorting", metric="score")
    found = json_of(app, path)
    (ranked,) = found["rankings"]
    assert ranked["rows"][-1]["configuration"] == "sorting~2"
    assert ranked["friedman_p"] is not None
    assert ranked["rows"][0]["improvement"] > 0.9
    names = {row["candidate_name"] for row in found["rows"]["rows"]}
    assert names == {"sorting~1", "sorting"}
    text = send(app, "/compare?" + query_of("sorting~2", "sorting~1", "sorting")).text
    assert "Ranks by score" in text
    assert "Friedman: p =" in text
    sides = text.partition("What is compared</caption>")[2].partition("</table>")[0]
    for one in ("sorting~2", "sorting~1", "sorting"):  # as it was written
        assert f'<td class="name">{one}</td>' in sides


def test_rows_are_chosen_and_sorted(app: ASGIApp) -> None:
    """
    By verdict, by a part of the cell's name, by a column.
    """
    pair = ("sorting~2", "sorting")
    found = json_of(app, "/api/compare.json?" + query_of(*pair, metric="score", find="SIZE=2"))
    assert [row["cell"] for row in found["rows"]["rows"]] == [f"size=20 kind={HOSTILE}"]
    found = json_of(app, "/api/compare.json?" + query_of(*pair, metric="score", verdict="worse"))
    assert found["rows"]["rows"] == []
    found = json_of(app, "/api/compare.json?" + query_of(*pair, metric="score", sort="-difference"))
    values = [row["difference"] for row in found["rows"]["rows"]]
    assert values == sorted(values, reverse=True)


def test_an_experiment_leads_to_its_newest_executions(app: ASGIApp) -> None:
    """
    The page of an experiment has a link that compares its newest execution with the one before it.
    """
    (row,) = json_of(app, "/api/suites.json?find=sorting")["suites"]["rows"]
    text = send(app, f"/experiments/{row['experiment_id']}").text
    (link,) = re.findall(r'href="(/compare\?[^"]*)"', text)
    found = json_of(app, link.replace("&amp;", "&").replace("/compare?", "/api/compare.json?"))
    assert [one["runs"] for one in found["sides"]] == [16, 16]
    assert found["verdicts"]["better"] == 0


def test_why_stands_below_the_verdict(app: ASGIApp) -> None:
    """
    Each verdict has its reason in its own cell, so that the table fits on a usual screen.
    """
    query = query_of("sorting~2", "sorting", metric="score")
    reason = json_of(app, f"/api/compare.json?{query}")["rows"]["rows"][0]["reason"]
    text = send(app, f"/compare?{query}").text
    assert f'<span class="below">{reason}</span>' in text
    assert '<main id="main" class="wide"' in text


def test_differences_are_drawn(app: ASGIApp) -> None:
    """
    The figure has a row for each cell, in the metric's unit where there is one metric alone.
    """
    query = query_of("sorting~2", "sorting", metric="score")
    found = json_of(app, f"/api/compare/figures/differences.json?{query}&scheme=dark")
    assert "2 better" in found["note"]
    assert "score" in found["layout"]["xaxis"]["title"]["text"]
    assert send(app, "/api/compare/figures/differences.json").status_code == 204


def test_hostile_cells_stay_text(app: ASGIApp) -> None:
    """
    A cell whose name is HTML is written as text.
    """
    text = send(app, "/compare?" + query_of("sorting~1", "sorting")).text
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (("sorting", "nothing"), {}, "there is no such experiment"),
        (("sorting", "sorting~9"), {}, "the suite has 3 executions"),
        (("sorting", "sorting[colour == 1]"), {}, "no run has a param or tag"),
        (("sorting", "sorting[size ==]"), {}, "invalid syntax"),
        (("sorting", "[]"), {}, "want NAME"),
        (("sorting",), {}, "at least one with=SELECTION"),
        (("", "sorting"), {}, "want base=SELECTION"),
        (("sorting", *["sorting~1"] * 12), {}, "want at most 12"),
        (("sorting", "plain"), {}, "no cell on both sides"),
        (("sorting", "sorting~1"), {"metric": "colour"}, "no metric like colour"),
        (("sorting", "sorting~1"), {"verdict": "best"}, "want one of"),
        (("sorting", "sorting~1"), {"sort": "colour"}, "want one of"),
    ],
)
def test_what_means_nothing_is_told(
    app: ASGIApp, given: tuple[str, ...], more: dict[str, str], words: str
) -> None:
    """
    A selection that means nothing is an answer of 400 that says why, for people and programs.
    """
    answer = send(app, f"/compare?{query_of(*given, **more)}")
    assert answer.status_code == 400
    assert words in answer.text
    told = send(app, f"/api/compare.json?{query_of(*given, **more)}")
    assert (told.status_code, set(told.json())) == (400, {"error", "detail"})


def test_a_wrong_selection_can_be_put_right(app: ASGIApp) -> None:
    """
    With the refusal comes the form, with every selection as it was written.
    """
    for given in (("sorting", "sorting~9", "sorting~1"), ("sorting", "nosuch"), ("sorting",)):
        answer = send(app, f"/compare?{query_of(*given)}")
        assert answer.status_code in (400, 404)
        assert f'name="base" value="{given[0]}"' in answer.text
        for one in (*given[1:], ""):
            assert f'name="with" value="{one}"' in answer.text
