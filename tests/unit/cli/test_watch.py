"""
Which run `watch` takes, and what it says where there is none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from allele_mlflow.cli.main import commands
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import SettingsError
from allele_mlflow.queue import spool, spool_index
from allele_mlflow.records import RunEnded, RunState
from allele_mlflow.watching.run_look import known_runs
from tests.queue_tools import make_run, make_spec, make_writer

END = RunEnded(timestamp_ns=5, status="FINISHED", slots={})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A working folder with a state folder and a terminal's width of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def leave_run(
    spool_dir: Path, uid: str, *, state: dict[str, Any] | None = None, **more: Any
) -> Path:
    """
    A run with one reading that nobody serves; with what its sidecar said last, where it did.
    """
    run = make_run(spool_dir, uid)
    writer = make_writer(run)
    writer.metric("m", 0.5, 7)
    writer.close(None)
    values = {"run_uid": uid, "owner_stream": writer.stream_id} | more
    spool.write_struct(run / spool.RUN_FILE, msgspec.structs.replace(make_spec(), **values))
    if state is not None:
        told = RunState(run_uid=uid, updated_ns=now_ns(), **state)
        spool.write_struct(run / spool.STATE_FILE, told)
    return run


def archive(run: Path) -> None:
    """
    Move a run to where delivered ones are.
    """
    run.rename(run.parent.parent / spool.DONE / run.name)


@pytest.fixture
def runs(folder: Path) -> Path:
    """
    A spool of four runs: two of one name, of which the newer is over.
    """
    spool_dir = folder / "spool"
    leave_run(spool_dir, "aa11", run_name="same", created_ns=10)
    archive(leave_run(spool_dir, "aa22", run_name="same", created_ns=30))
    leave_run(spool_dir, "bb33", state={"run_id": "cafe1", "end": END}, created_ns=20)
    archive(leave_run(spool_dir, "cc44", state={"run_id": "cafe2"}, created_ns=40))
    return spool_dir


def watched(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """
    The document that the command writes.
    """
    assert not commands.main(["watch", "--json", *arguments], standalone_mode=False)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("wanted", "uid"),
    [
        (None, "aa11"),  # bb33 is newer, and has an end
        ("bb33", "bb33"),
        ("b", "bb33"),
        ("same", "aa11"),  # the one that goes on
        ("aa22", "aa22"),
        ("cafe2", "cc44"),
        ("cc", "cc44"),
    ],
)
def test_run_goes_by_several_names(
    runs: Path, wanted: str | None, uid: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run is found by uid, name, MLflow's id and the beginning of an id, waiting or done."""
    arguments = [] if wanted is None else [wanted]
    found = watched("--spool", str(runs), *arguments, capsys=capsys)
    assert found["run"]["run_uid"] == uid


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("cafe", "'cafe' begins 2 ids: bb33, cc44|'cafe' begins 2 ids: cc44, bb33"),
        ("aa", "'aa' begins 2 ids"),
        ("sam", "'sam': no such run in .*want a run_uid, a run's name or MLflow's id"),
    ],
)
def test_run_that_is_not_clear_is_an_error(runs: Path, wanted: str, text: str) -> None:
    """What fits no run, or several, is an error that says which."""
    with pytest.raises(click.BadParameter, match=text):
        commands.main(["watch", wanted, "--spool", str(runs)], standalone_mode=False)


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "0.05"])
def test_interval_has_a_least(interval: str) -> None:
    """An interval that would take the whole CPU, or none, is refused."""
    with pytest.raises(click.BadParameter, match=r"want seconds, 0.1 or more"):
        commands.main(["watch", "--interval", interval], standalone_mode=False)


def test_no_run_at_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no run that is one line, and null in JSON; the last one is named."""
    assert watched(capsys=capsys) == {"run": None}
    assert not commands.main(["watch"], standalone_mode=False)
    text = capsys.readouterr().out
    assert text == f"no run to watch in {folder}/.allele_mlflow/spool: no spool there yet\n"
    archive(leave_run(folder / "spool", "aa11", run_name="a\x1bb"))
    assert not commands.main(["watch", "--spool", "spool"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "no run to watch in spool\n" in text
    assert "the last one a\\x1bb is over; to look at it: allele-mlflow watch aa11\n" in text
    assert watched("--spool", "spool", capsys=capsys) == {"run": None}
    with pytest.raises(SettingsError, match="is not there"):
        commands.main(["watch", "--spool", "nowhere"], standalone_mode=False)


def test_run_is_found_in_any_spool(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a path the run is looked for where `status` looks."""
    leave_run(folder / "far/spool", "distant")
    spool_index.register(folder / "far/spool")
    assert watched("dist", capsys=capsys)["run"]["spool"] == str(folder / "far/spool")


def test_snapshot_of_a_run_that_nobody_serves(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a sidecar the streams tell the values, and the command that delivers is named."""
    run = leave_run(folder / "spool", "aa11", run_name="alone")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert not commands.main(["watch", "--spool", "spool"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "WAITING" in text
    assert "pending 1" in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("m ")] == [
        ["m", "0.5", "7"]
    ]
    assert "left alone; delivered by: allele-mlflow sync spool" in text
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_spool_that_is_closed_to_us_keeps_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An indexed spool that cannot be looked into is one line on stderr, the others are seen."""
    for name in ("closed", "open"):
        leave_run(folder / name, name)
        spool_index.register(folder / name)

    def refuse(where: Path) -> Any:
        if where.name == "closed":
            raise PermissionError(13, "Permission denied")
        return known_runs(where)

    monkeypatch.setattr("allele_mlflow.cli.watch.known_runs", refuse)
    assert not commands.main(["watch", "--json"], standalone_mode=False)
    said = capsys.readouterr()
    assert json.loads(said.out)["run"]["run_uid"] == "open"
    assert f"cannot look into {folder / 'closed'}: Permission denied" in said.err


def test_resumed_run_is_not_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a sidecar said of an earlier part of a run does not end the part that goes on."""
    told = {"end": END, "done": True, "part_ns": 1, "status": "FAILED"}
    leave_run(folder / "spool", "aa11", state=told, created_ns=2)
    found = watched("--spool", "spool", capsys=capsys)
    assert (found["run"]["run_uid"], found["run"]["over"]) == ("aa11", False)


def test_run_without_readings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that has only just begun is shown as such."""
    run = make_run(folder / "spool", "new")
    spec = msgspec.structs.replace(make_spec(), run_uid="new")
    spool.write_struct(run / spool.RUN_FILE, spec)
    assert not commands.main(["watch", "--spool", "spool"], standalone_mode=False)
    assert "no readings yet" in capsys.readouterr().out
