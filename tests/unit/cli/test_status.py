"""
What `status` shows of spools: those that are none, those that hide, runs that hide in them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from allele_mlflow.cli.main import commands
from allele_mlflow.clock import now_ns
from allele_mlflow.errors import SettingsError
from allele_mlflow.queue import spool, spool_index
from allele_mlflow.queue.locks import try_lock
from allele_mlflow.records import RunState
from allele_mlflow.sidecar.profile import lock_path
from allele_mlflow.sidecar.worker import SidecarStatus
from allele_mlflow.watching.spools import spooled_runs
from tests.queue_tools import make_run, make_spec, make_writer

RECORDS = 1234
ERROR = "open http://server: MlflowException: " + "no route to host, " * 12 + "and no end\nof it"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A working folder with a state folder and a terminal's width of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def leave_run(spool_dir: Path, name: str = "run", **more: Any) -> Path:
    """
    A run with some records that nobody serves.
    """
    run = make_run(spool_dir, name)
    writer = make_writer(run)
    for step in range(RECORDS):
        writer.metric("m", 1.0, step)
    writer.close(None)
    values = {"run_uid": name, "tracking_uri_masked": "http://server"} | more
    spool.write_struct(run / spool.RUN_FILE, msgspec.structs.replace(make_spec(), **values))
    return run


def shown_by(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """
    What the command writes.
    """
    assert not commands.main(arguments, standalone_mode=False)
    return capsys.readouterr().out


def test_start_that_was_interrupted_leaves_nothing_to_see(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A stream without a description and without a record is no run that waits.
    """
    make_writer(make_run(folder / "spool", "run")).close(None)
    for command in ("status", "sync"):
        assert shown_by(command, str(folder / "spool"), capsys=capsys).startswith("nothing")


@pytest.mark.parametrize("command", ["status", "sync"])
@pytest.mark.parametrize(
    ("path", "got"),
    [
        ("nowhere", "not there"),
        ("file", "no folder"),
        ("empty", "no spool"),
        ("parent", "no spool"),
    ],
)
def test_path_that_is_no_spool(folder: Path, command: str, path: str, got: str) -> None:
    """
    A path on the command line that is no spool is an error that says what one is.
    """
    (folder / "file").write_text("", encoding="ascii")
    (folder / "empty").mkdir()
    make_run(folder / "parent" / "spool")
    with pytest.raises(SettingsError, match=f"SPOOL_DIR='{path}' is {got}: want a spool") as caught:
        commands.main([command, path], standalone_mode=False)
    assert "runs/ and done/" in str(caught.value)


@pytest.mark.parametrize("near", [".", "parent", "parent/spool/nothing", "parent/spool/SCOPE"])
def test_path_near_a_spool(folder: Path, near: str) -> None:
    """
    The error names the spool that was meant, above or below the path.
    """
    wanted = folder / (".allele_mlflow/spool" if near == "." else "parent/spool")
    make_run(wanted)
    path = str(folder / near.replace("SCOPE", spool.scope_name()))
    with pytest.raises(SettingsError, match=rf"did you mean {wanted}\?$"):
        commands.main(["status", path], standalone_mode=False)


@pytest.mark.parametrize(
    ("command", "text"), [("status", "nothing waits"), ("sync", "nothing to deliver")]
)
def test_default_spool_need_not_be_there(
    folder: Path, command: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Before the first run there is no spool, and that is no error.
    """
    spool_dir = folder / ".allele_mlflow" / "spool"
    expected = f"{text} in {spool_dir}"
    assert shown_by(command, capsys=capsys) == f"{expected}: no spool there yet\n"
    make_run(spool_dir)
    assert shown_by(command, capsys=capsys) == f"{expected}\n"


def test_fallback_spool_is_looked_into(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without a path, runs that had to go to the user's state folder are shown too; with one, not.
    """
    first, fallback = folder / ".allele_mlflow/spool", folder / "state/allele-mlflow/spool"
    leave_run(fallback, "far")
    text = shown_by("status", capsys=capsys)
    assert f"nothing waits in {first}: no spool there yet" in text
    assert "far" in text
    leave_run(first, "near")
    document = json.loads(shown_by("status", "--json", capsys=capsys))
    assert document["spool"] == str(first)
    assert [(run["run_uid"], run["spool"]) for run in document["runs"]] == [
        ("near", str(first)),
        ("far", str(fallback)),
    ]
    text = shown_by("status", capsys=capsys)
    assert "near" in text
    assert "far" in text
    assert "far" not in shown_by("status", str(first), capsys=capsys)


def test_errors_stand_below_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    On 80 columns the numbers are whole, and each run's last error is one line of its own.
    """
    run = leave_run(folder / "spool", run_name="pop-100, [bold]seed 17[/bold]", experiment="e" * 30)
    state = RunState(run_uid="run", updated_ns=1, last_error=ERROR)
    spool.write_struct(run / spool.STATE_FILE, state)
    leave_run(folder / "spool", "other")
    lines = shown_by("status", "spool", capsys=capsys).splitlines()
    errors = [line for line in lines if line.startswith("last error")]
    assert errors == [f"last error of pop-100, [bold]seed 17[/bold]: {' '.join(ERROR.split())}"]
    assert max(len(line) for line in lines[: -len(errors)]) <= 80
    assert sum(f"{RECORDS:,}" in line for line in lines) == 2
    assert any("1,234 │   1,234 │    0" in line for line in lines)


@pytest.mark.parametrize("damage", [None, b"", b"\x93\x01\x02\x03"])
def test_run_without_a_description_is_shown(
    folder: Path, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A run whose `run.msgpack` is missing or damaged is shown with what its streams hold.
    """
    run = leave_run(folder / "spool")
    (run / spool.RUN_FILE).unlink()
    if damage is not None:
        (run / spool.RUN_FILE).write_bytes(damage)
    text = shown_by("status", "spool", capsys=capsys)
    assert "no description" in text
    assert f"{RECORDS:,}" in text
    (found,) = json.loads(shown_by("status", "spool", "--json", capsys=capsys))["runs"]
    assert (found["run_uid"], found["status"]) == ("run", "no description")
    assert (found["accepted"], found["ledger"]["pending"]) == (RECORDS, RECORDS)


def test_what_is_no_run_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    An empty folder and a stray file among the runs are none.
    """
    runs = make_run(folder / "spool").parent
    (runs / "notes.txt").write_text("", encoding="ascii")
    assert shown_by("status", "spool", capsys=capsys) == "nothing waits in spool\n"


def test_spool_without_done_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A spool that was copied in part is shown as far as it goes.
    """
    run = leave_run(folder / "spool")
    (run.parent.parent / spool.DONE).rmdir()
    assert "run" in shown_by("status", "spool", "--all", capsys=capsys)


def test_every_indexed_spool_is_looked_into(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Without a path, runs in any spool of this user are shown; spools where nothing waits are one
    line, and with a path the others are left alone.
    """
    for name in ("far", "empty", "void"):
        make_run(folder / name / "spool")
        spool_index.register(folder / name / "spool")
    leave_run(folder / "far/spool", "distant")
    first = folder / ".allele_mlflow/spool"
    text = shown_by("status", capsys=capsys)
    assert f"nothing waits in {first}: no spool there yet\n" in text
    assert "distant" in text
    assert "nothing waits in 2 other spools of yours\n" in text
    document = json.loads(shown_by("status", "--json", capsys=capsys))
    assert [one["waiting_runs"] for one in document["spools"]] == [0, 0, 1, 0]
    assert [one["pending"] for one in document["spools"]] == [0, 0, RECORDS, 0]
    leave_run(first, "near")
    text = shown_by("status", str(first), capsys=capsys)
    assert "near" in text
    assert "distant" not in text


def test_spool_that_is_closed_to_us_keeps_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    An indexed spool that cannot be looked into is one line on stderr, and the others are shown.
    """
    for name in ("closed", "open"):
        leave_run(folder / name, name)
        spool_index.register(folder / name)

    def refuse(where: Path, **more: Any) -> Any:
        if where.name == "closed":
            raise PermissionError(13, "Permission denied")
        return spooled_runs(where, **more)

    monkeypatch.setattr("allele_mlflow.watching.spool_look.spooled_runs", refuse)
    assert not commands.main(["status"], standalone_mode=False)
    said = capsys.readouterr()
    assert "open" in said.out
    assert f"cannot look into {folder / 'closed'}: Permission denied" in said.err


def publish_sidecar(run: Path, profile: str, *, age_s: float, pid: int = 1) -> Path:
    """
    What a sidecar said of itself so long ago; its lock's path.
    """
    scope = run.parent.parent
    status = SidecarStatus(
        pid=pid,
        profile=profile,
        updated_ns=now_ns() - int(age_s * 1e9),
        started_ns=1,
        runs=["run"],
        cpu_s=1.5,
        store="sqlite:///s.db",
        last_error="bad\x1b[2Jword",
    )
    spool.write_whole(scope / f"sidecar-{profile}.json", msgspec.json.encode(status))
    return lock_path(scope, profile)


@pytest.mark.parametrize(
    ("age_s", "is_held", "pid", "health"),
    [
        (0.0, True, None, "alive"),
        (60.0, True, None, "silent"),
        # the file is an earlier sidecar's
        (60.0, True, 2**22 + 1, "alive"),
        (0.0, False, None, "gone"),
    ],
)
def test_sidecar_is_alive_silent_or_gone(
    folder: Path,
    age_s: float,
    is_held: bool,
    pid: int | None,
    health: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Who holds no lock is gone, who holds it and says nothing is silent; a name moves no cursor.
    """
    pid = pid or os.getpid()  # not as a parameter: it would be another in each process of tests
    run = leave_run(folder / "spool")
    lock = publish_sidecar(run, "p", age_s=age_s, pid=pid)
    held = try_lock(lock) if is_held else None
    try:
        text = shown_by("status", "spool", capsys=capsys)
        (found,) = json.loads(shown_by("status", "spool", "--json", capsys=capsys))["sidecars"]
    finally:
        if held is not None:
            held.release()
    assert (found["health"], found["alive"], found["pid"]) == (health, is_held, pid)
    assert age_s <= found["heartbeat_age_s"] < age_s + 60
    assert (found["runs"], found["cpu_s"], found["store"]) == (["run"], 1.5, "sqlite:///s.db")
    assert f"sidecar {pid}: {health}" in text
    assert "its last error: bad\\x1b[2Jword" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff"])
def test_damaged_sidecar_file_is_no_error(
    folder: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What a sidecar said and cannot be read is not known.
    """
    run = leave_run(folder / "spool")
    publish_sidecar(run, "p", age_s=0).with_suffix(".json").write_bytes(damage)
    (found,) = json.loads(shown_by("status", "spool", "--json", capsys=capsys))["sidecars"]
    assert (found["health"], found["pid"], found["heartbeat_age_s"]) == ("gone", None, None)
    assert "sidecar ?: gone" in shown_by("status", "spool", capsys=capsys)
