"""
The page of a run while it goes on, and when it is over: phases of its spool, streams, addresses.
"""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from allele_mlflow import RunLogger
from tests.dashboard_tools import dashboard_of, json_of, send
from tests.integration.runs import Station, wait_for

pytestmark = pytest.mark.process


def app_of(station: Station) -> ASGIApp:
    """
    A dashboard that looks into the station's store and spool.
    """
    return dashboard_of(station.tracking_uri, [station.folder / "spool"])


def stored_id(station: Station, log: RunLogger) -> str:
    """
    The store's id of a run, once the store has it.
    """

    def is_stored() -> bool:
        state = station.state(log.run_uid)
        return state is not None and state.run_id is not None

    wait_for(is_stored, "the run in the store")
    state = station.state(log.run_uid)
    assert state is not None
    return str(state.run_id)


def test_phases_of_a_run_that_goes_on(station: Station) -> None:
    """
    Timeline and table have the phases of the spool, those that are over and those that are not; a
    phase is counted once.
    """
    app = app_of(station)
    with station.start("live") as log:
        for step in range(30):  # more than a view remembers
            with log.phase("short", step=step):
                pass
        with log.phase("long"):
            path = f"/api/runs/{stored_id(station, log)}"
            wait_for(
                lambda: (
                    {one["name"] for one in json_of(app, f"{path}.json")["phases"]}
                    == {"short", "long"}
                ),
                "both phases in the table",
            )
            counts = {one["name"]: one["count"] for one in json_of(app, f"{path}.json")["phases"]}
            figure = json_of(app, f"{path}/figures/timeline.json")
    assert counts == {"short": 30, "long": 1}
    assert figure["note"].startswith("31 phases")
    assert set(figure["layout"]["yaxis"]["ticktext"]) == {"short", "long"}


def test_no_stream_of_a_run_that_is_nowhere(station: Station) -> None:
    """
    A run that neither the store nor a spool knows has no stream; one that is over ends at once.
    """
    app = app_of(station)
    assert send(app, "/runs/nosuch/live").status_code == 404
    with station.start("live") as log:
        run_id = stored_id(station, log)
    station.finished(log.run_uid)
    assert "event: end" in send(app, f"/runs/{run_id}/live").text


def test_a_runs_own_id_is_an_address_for_good(station: Station) -> None:
    """
    A page that was opened by the id of the spool can be loaded again when the run is delivered, and
    then it is kept up to date no more.
    """
    app = app_of(station)
    with station.start("live") as log:
        run_id = stored_id(station, log)
        assert "data-live" in send(app, f"/runs/{log.run_uid}").text
    station.finished(log.run_uid)
    found = json_of(app, f"/api/runs/{log.run_uid}.json")
    assert found["ended_by"] == "close"
    assert (found["run_id"], found["status"], found["live"]) == (run_id, "FINISHED", None)
    assert "data-live" not in send(app, f"/runs/{log.run_uid}").text
    assert "event: end" in send(app, f"/runs/{log.run_uid}/live").text


def test_the_timeline_reaches_the_end_of_the_run(station: Station) -> None:
    """
    Its axis takes in the run's begin and end, whatever was logged last.
    """
    app = app_of(station)
    with station.start("live") as log, log.phase("only"):
        run_id = stored_id(station, log)
    station.finished(log.run_uid)
    seconds = json_of(app, f"/api/runs/{run_id}.json")["seconds"]
    figure = json_of(app, f"/api/runs/{run_id}/figures/timeline.json")
    assert figure["layout"]["xaxis"]["autorangeoptions"]["include"] == [0, seconds]
