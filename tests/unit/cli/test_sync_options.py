"""
What `sync` is told, and how long it waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import click
import pytest

from allele_mlflow.cli import sync
from allele_mlflow.cli.main import commands
from allele_mlflow.cli.output import Progress, shown
from allele_mlflow.errors import SettingsError


@pytest.mark.parametrize("seconds", ["nan", "-1"])
def test_patience_is_a_number_of_seconds(seconds: str) -> None:
    """
    What would never give up, or at once, is refused before anything is done.
    """
    with pytest.raises(click.BadParameter, match="want seconds, 0 or more"):
        commands.main(["sync", "--give-up-after", seconds], standalone_mode=False)


def test_empty_address_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An unset shell variable does not mean the default store.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="not empty"):
        commands.main(["sync", "--tracking-uri", ""], standalone_mode=False)


def test_names_move_no_cursor() -> None:
    """
    Escape sequences in a run's name are shown as text.
    """
    assert shown("a\x1b[2Jb\n c") == "a\\x1b[2Jb c"


@dataclass
class Silent:
    """
    A worker that makes no progress.
    """

    bytes_in_flight: int
    progress: int = 0
    is_stopped: bool = False

    def stop(self) -> None:
        """
        As a worker's.
        """
        self.is_stopped = True


@pytest.mark.parametrize(("size", "is_left"), [(0, True), (10**12, False)])
async def test_large_file_on_its_way_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, size: int, is_left: bool
) -> None:
    """
    An upload shows no progress: the patience grows with its size.
    """
    monkeypatch.setattr(sync, "LOOK_S", 0.001)
    worker: Any = Silent(size)
    with anyio.move_on_after(0.2):
        await sync._watch(worker, 0.02, Progress())
    assert worker.is_stopped is is_left
