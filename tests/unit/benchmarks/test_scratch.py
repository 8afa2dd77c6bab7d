"""
Scratch folders come and go, and nothing else goes with them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scratch import find_sidecar, scopes_below, scratch_folder


@pytest.mark.parametrize("is_there_before", [True, False])
def test_parent_is_left_as_it_was(is_there_before: bool, tmp_path: Path) -> None:
    """
    The scratch goes; a parent that was there before stays, even when it is empty.
    """
    parent = tmp_path / "parent"
    if is_there_before:
        parent.mkdir()
    with scratch_folder(parent) as folder:
        (folder / "file").write_text("")
        assert folder.parent == parent.resolve()
    assert not folder.exists()
    assert parent.exists() == is_there_before


def test_scratch_goes_when_the_work_fails(tmp_path: Path) -> None:
    """
    An interrupted benchmark leaves no folder behind.
    """
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path) as folder:
        raise KeyboardInterrupt
    assert not folder.exists()


def test_dead_sidecar_is_not_waited_for(tmp_path: Path) -> None:
    """
    A scope whose sidecar has ended, or never was, has none to find, at once.
    """
    scope = tmp_path / "spool" / "host-1"
    for name in ("runs", "done"):
        (scope / name).mkdir(parents=True)
    assert scopes_below(tmp_path) == [scope]
    assert find_sidecar(scope) is None
    (scope / "sidecar-a.log").touch()
    (scope / "sidecar-a.json").write_text('{"pid": 4194304}')
    assert find_sidecar(scope) is None


def test_process_of_somebody_else_is_no_sidecar(tmp_path: Path) -> None:
    """
    A process id that the kernel has given to another program since is left alone.
    """
    (tmp_path / "sidecar-a.json").write_text('{"pid": 1}')
    assert find_sidecar(tmp_path) is None
