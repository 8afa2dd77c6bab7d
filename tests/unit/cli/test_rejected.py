"""
What `rejected` lists without a store, and how it is called wrongly.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from allele_mlflow.cli import rejected
from allele_mlflow.cli.main import commands
from allele_mlflow.queue import spool
from allele_mlflow.records import Reading
from allele_mlflow.sidecar.run_files import RunFiles
from tests.queue_tools import make_run, make_spec, make_writer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A working folder with a state folder of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def shown_by(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """
    What the command writes.
    """
    assert not commands.main(["rejected", *arguments], standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--resubmit",),
        ("--resubmit", "--all", "--run", "run"),
        ("--all",),
        ("--run", "nobody"),
        ("--give-up-after", "nan"),
    ],
)
def test_wrong_use_sends_nothing(arguments: tuple[str, ...]) -> None:
    """
    What to send again has to be said, and once.
    """
    with pytest.raises(click.UsageError, match=r"want|no such run"):
        commands.main(["rejected", *arguments], standalone_mode=False)


def test_nothing_refused_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A spool without dead letters is no error, and neither is sending none.
    """
    make_run(folder / "spool")
    assert shown_by("spool", capsys=capsys) == "nothing was refused in spool\n"
    assert shown_by("spool", "--resubmit", "--all", capsys=capsys) == "nothing was refused\n"
    assert json.loads(shown_by("spool", "--json", capsys=capsys)) == {"letters": []}


def test_letters_that_nobody_has_read_are_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What the logger refused is seen before a sidecar comes, and only of the run that was asked for.
    """
    for name in ("one", "two"):
        run = make_run(folder / "spool", name)
        spool.write_struct(run / spool.RUN_FILE, make_spec())
        writer = make_writer(run)
        writer.reject("bad_value", "metric", f"key of {name}", "x", "want a number")
        writer.close(None)
    text = shown_by("spool", "--run", "two", capsys=capsys)
    assert "bad_value: metric 'key of two' = 'x': want a number" in text
    assert "key of one" not in text
    (letter, _) = json.loads(shown_by("spool", "--json", capsys=capsys))["letters"]
    assert (letter["waiting"], letter["refused_by"]) == (True, "logger")
    assert letter["can_be_sent_again"] is False


def test_long_list_is_cut_and_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of thousands of letters the text shows the first and the number of the rest; names move no
    cursor.
    """
    monkeypatch.setattr(rejected, "LISTED", 2)
    run = make_run(folder / "spool")
    files = RunFiles(run)
    for step in range(5):
        files.note_refused("metric", Reading("m\x1b[2J", 1.0, 1, step), "store", "no\nroom")
    text = shown_by("spool", capsys=capsys)
    assert "  store: metric m\\x1b[2J = 1.0 at step 1: no room\n" in text
    assert "at step 2" not in text
    assert "and 3 more; --json lists all" in text
    assert len(json.loads(shown_by("spool", "--json", capsys=capsys))["letters"]) == 5
