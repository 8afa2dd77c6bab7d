"""
The dashboard's page of trends says what it shows, and what it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from tests.dashboard_tools import dashboard_of, json_of, send
from tests.integration.executions import Store
from tests.integration.test_trend_command import history

#: The execution with a spike, which is an outlier.
SPIKE_AT = 12
NOTHING = "Nothing changed"


@pytest.fixture(scope="module")
def app(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIApp]:
    """
    The dashboard of a suite in which one execution was slow, and nothing changed for good.
    """
    folder = tmp_path_factory.mktemp("trends")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = Store(folder)
    history(store, spike_at=SPIKE_AT)
    yield dashboard_of(folder / "mlflow.db")
    store.close()


@pytest.fixture(scope="module")
def path(app: ASGIApp) -> str:
    """
    Of its page.
    """
    (suite,) = (
        one
        for one in json_of(app, "/api/suites.json")["suites"]["rows"]
        if one["experiment"].endswith("sorting")
    )
    return f"/experiments/{suite['experiment_id']}/trend"


def test_findings_that_are_not_shown_are_counted(app: ASGIApp, path: str) -> None:
    """
    With an outlier, which is shown only where all is, nobody is told that nothing changed.
    """
    assert json_of(app, f"/api{path}.json")["not_shown"] == 1
    text = send(app, path).text
    assert NOTHING not in text
    assert f'<a href="{path}?preset=strict&amp;show=all">1 outlier' in text
    whole = json_of(app, f"/api{path}.json?show=all")
    assert (whole["not_shown"], whole["findings"]["row_count"]) == (0, 1)


def test_nothing_changed_where_nothing_was_found(app: ASGIApp, path: str) -> None:
    """
    Histories without any finding are said to have none.
    """
    assert NOTHING in send(app, f"{path}?metric=score").text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("metric=nosuch", "have no metric like &#39;nosuch&#39;"),
        ("cell=nosuch", "no cell is called &#39;nosuch&#39;"),
    ],
)
def test_an_unknown_name_is_told(app: ASGIApp, path: str, query: str, words: str) -> None:
    """
    A metric or cell that there is not is said to be none, and nothing is claimed of it.
    """
    text = send(app, f"{path}?{query}").text
    assert words in text
    assert NOTHING not in text
    assert "No execution is over" not in text
