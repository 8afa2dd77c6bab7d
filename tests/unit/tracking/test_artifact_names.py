"""
Artifact paths: kept exactly, or refused.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.tracking.artifact_names import (
    check_artifact_path,
    named,
    needs_quoting,
    quoted_for_url,
)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "ü x/ß.json", ".hidden", "a..b", "50%", "a#b"])
def test_plain_paths_pass(path: str) -> None:
    """
    Any relative path of a file may be asked for.
    """
    check_artifact_path(path)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../a", "..a", "/a", "a/", "a//b", "a/../b", "./a", "a\0b"]
)
def test_other_paths_are_refused(path: str) -> None:
    """
    Nothing leaves the run's folder, and no two paths name one file.
    """
    with pytest.raises(PermanentTrackingError) as caught:
        check_artifact_path(path)
    assert caught.value.kind is ErrorKind.BAD_ARTIFACT


@pytest.mark.parametrize(
    ("path", "url_path"),
    [
        ("q?.txt", "q%3F.txt"),
        ("d?/a", "d%3F/a"),
        ("50%.txt", "50%25.txt"),
        ("50% é", "50%25%20%C3%A9"),
    ],
)
def test_paths_are_quoted_for_a_url(path: str, url_path: str) -> None:
    """
    A question mark ends no path, a percent sign starts no escape.
    """
    assert needs_quoting(path)
    assert quoted_for_url(path) == url_path


@pytest.mark.parametrize("path", ["a#b", "100%25", "%2e%2e/a", "tab\t", "line\n"])
def test_what_a_server_would_alter_is_refused(path: str) -> None:
    """
    A name that MLflow's server would store as another one is refused before it gets there.
    """
    assert needs_quoting(path)
    with pytest.raises(PermanentTrackingError) as caught:
        quoted_for_url(path)
    assert caught.value.kind is ErrorKind.BAD_ARTIFACT


def test_a_file_gets_its_wanted_name_for_a_while(tmp_path: Path) -> None:
    """
    The spool's file is offered under the user's name and is itself not touched.
    """
    file = tmp_path / "000017.bin"
    file.write_bytes(b"genome")
    before = file.stat()
    with named(file, "best genome.json") as offered:
        assert offered.name == "best genome.json"
        assert offered.read_bytes() == b"genome"
    assert not offered.exists()
    assert file.stat() == before

    with named(file, "000017.bin") as offered:
        assert offered == file
