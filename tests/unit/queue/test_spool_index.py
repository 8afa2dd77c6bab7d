"""
The index of spools: found again, private, and never in anybody's way.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from allele_mlflow import start_logger
from allele_mlflow.queue.spool_index import FOLDER, register, registered, state_folder


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_spools_are_found_again(tmp_path: Path) -> None:
    """
    Each spool is listed once, by its real path, whatever it was called and however often it came.
    """
    first, second = (make_folder(tmp_path / name / "spool") for name in ("a", "b \udcff\n"))
    (tmp_path / "link").symlink_to(first)
    for path in (second, first, tmp_path / "link", first):
        register(path)
    assert registered() == [first, second]


def test_index_is_private(tmp_path: Path) -> None:
    """
    Paths tell what somebody works on: folders 0700, files 0600.
    """
    register(make_folder(tmp_path / "spool"))
    folder = state_folder() / FOLDER
    (entry,) = folder.iterdir()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, entry)]
    assert modes == [0o700, 0o700, 0o600]


def test_spool_that_is_gone_leaves_the_index(tmp_path: Path) -> None:
    """
    Whoever lists the spools removes the entries of those whose folder is gone.
    """
    path = make_folder(tmp_path / "spool")
    register(path)
    shutil.rmtree(path)
    assert registered() == []
    assert list((state_folder() / FOLDER).iterdir()) == []


def test_spool_that_cannot_be_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A file server that is away, or a folder that is closed to us, does not cost the entry.
    """
    path = make_folder(tmp_path / "spool")
    register(path)

    def refuse(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert registered() == [path]


def test_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    """
    A pipe, a link, another's file and a relative path among the entries hold nobody up.
    """
    path = make_folder(tmp_path / "spool")
    register(path)
    folder = state_folder() / FOLDER
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    (folder / "note").write_text("relative", encoding="ascii")
    (folder / "other").write_text(str(path), encoding="ascii")
    (folder / "zero").write_bytes(b"/a\0b")
    (folder / "folder").mkdir()
    assert registered() == [path]


@pytest.mark.parametrize("obstacle", ["file", "dangling"])
def test_state_folder_that_cannot_be_written_costs_only_the_index(
    tmp_path: Path, obstacle: str
) -> None:
    """
    Registering never raises, and a run starts all the same.
    """
    state = tmp_path / "state"
    if obstacle == "file":
        state.write_text("", encoding="ascii")
    else:
        state.symlink_to("/proc/nothing/here")
    with start_logger("e", tracking_uri="offline", spool_dir=tmp_path / "spool") as log:
        log.metric("m", 1.0)
    assert log.close().ledger.pending == 1
    assert registered() == []


@pytest.mark.process
def test_only_the_first_run_in_a_place_pays(tmp_path: Path) -> None:
    """
    The logger notes a spool when it makes its folder; later starts do not even import platformdirs.
    """
    code = (
        "import sys; from allele_mlflow import start_logger; "
        f"start_logger('e', tracking_uri='offline', spool_dir={str(tmp_path / 'spool')!r}); "
        "print('platformdirs' in sys.modules)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            # no sidecar's own entry in between
            env=os.environ | {"ALLELE_MLFLOW_IDLE_TIMEOUT_S": "0"},
        ).stdout
        for _ in range(2)
    ]
    assert said == ["True\n", "False\n"]
    assert registered() == [tmp_path / "spool"]
