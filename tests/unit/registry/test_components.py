"""
Components: known by document and files, kept and read back whole, and never written elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.errors import ErrorKind, RegistryError
from allele_mlflow.registry import components, version_files
from allele_mlflow.registry.components import Component, pack_component, read_component
from allele_mlflow.registry.contents import files_of, read_kept
from allele_mlflow.registry.version_files import MANIFEST_FILE, Packed, pack, sha256


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """
    A folder with two files, one below another folder.
    """
    folder = tmp_path / "weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "readout.bin").write_bytes(b"\x00\x01")
    (folder / "deep" / "notes.txt").write_text("seed 7")
    return folder


def reservoir(files: Any = None, **more: Any) -> Component:
    """
    A reservoir.
    """
    return read_component({"size": 100, **more}, kind="reservoir", files=files)


def test_content_is_document_and_files(weights: Path) -> None:
    """The order of keys and where a file lay make no other component; a value and a byte do."""
    first = reservoir(weights, leak=0.3)
    same = read_component({"leak": 0.3, "size": 100}, kind="reservoir", files=weights)
    by_path = {name: weights / name for name in ("deep/notes.txt", "readout.bin")}
    assert first.content == same.content == reservoir(by_path, leak=0.3).content
    (weights / "readout.bin").write_bytes(b"\x00\x02")
    others = [reservoir(weights, leak=0.3), reservoir(leak=0.3), reservoir(None, leak=0.4)]
    assert len({one.content for one in (first, *others)}) == 4


def test_it_comes_back_whole(weights: Path, tmp_path: Path) -> None:
    """Files of a version give the same component; they can be written anywhere."""
    given = reservoir(weights)
    files = files_of(given)
    manifest = sha256(files[MANIFEST_FILE])
    found = read_kept(files.__getitem__, content=given.content, manifest=manifest)
    assert found == given
    assert isinstance(found, Component)
    found.write_files(tmp_path / "restored")
    assert (tmp_path / "restored" / "deep" / "notes.txt").read_text() == "seed 7"
    assert found.files["readout.bin"] == b"\x00\x01"


@pytest.mark.parametrize("name", ["component.json", "files/readout.bin", MANIFEST_FILE, "MLmodel"])
def test_every_changed_file_is_found(weights: Path, name: str) -> None:
    """A byte more in any file of a version is found, and the file named."""
    given = reservoir(weights)
    files = files_of(given)
    manifest = sha256(files[MANIFEST_FILE])
    files[name] += b" "
    with pytest.raises(RegistryError, match=f"{name} of the version was changed"):
        read_kept(files.__getitem__, content=given.content, manifest=manifest)


def test_a_manifest_made_to_fit_is_found(weights: Path) -> None:
    """MLflow's description of the model, changed together with the manifest, is found."""
    given = reservoir(weights)
    files = files_of(given)
    manifest = sha256(files[MANIFEST_FILE])
    packed = pack_component(given)
    changed = {**packed.files, "MLmodel": b"flavors: {}"}
    files = pack(packed._replace(files=changed))
    assert read_kept(files.__getitem__, content=given.content, manifest=None) == given
    with pytest.raises(RegistryError, match=r"manifest.json of the version was changed"):
        read_kept(files.__getitem__, content=given.content, manifest=manifest)


def test_a_whole_other_component_is_found(weights: Path) -> None:
    """Document, files and manifest that fit each other, but not the journal, are found."""
    other = files_of(reservoir(weights, leak=0.9))
    with pytest.raises(RegistryError, match="of the version was changed") as raised:
        read_kept(other.__getitem__, content=reservoir(weights).content, manifest=None)
    assert raised.value.kind is ErrorKind.TAMPERED


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", "..x", ""])
def test_a_manifest_names_no_other_folder(path: str) -> None:
    """A manifest that somebody made names no file outside the version: none is asked for."""
    asked = []

    def fetch(name: str) -> bytes:
        asked.append(name)
        return pack(Packed("component", "c", {path: b""}, {"component": "prompt"}))[MANIFEST_FILE]

    with pytest.raises(RegistryError, match="it names"):
        read_kept(fetch, content="c", manifest=None)
    assert asked == [MANIFEST_FILE]


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        ([1], "prompt", "is list: want a mapping"),
        ({"a": {1, 2}}, "prompt", r"has a set at \$.a: want a list"),
        ({"a": object()}, "prompt", "cannot be read .*JSON"),
        ({"a": {"b": [0.5, float("nan")]}}, "prompt", r"has \$.a.b\[1\]=nan: want a finite number"),
        ({}, "genome", "has the kind 'genome'"),
        ({}, "Not A Kind", "want a word of small letters, such as optimizer"),
        ({}, "", "want a word of small letters"),
    ],
)
def test_what_is_no_component(document: Any, kind: str, words: str) -> None:
    """It is refused with what is wrong and what is wanted."""
    with pytest.raises(RegistryError, match=words):
        read_component(document, kind=kind)


def test_bad_files_are_refused(weights: Path, tmp_path: Path) -> None:
    """Files that are not there, are none, leave the version, or have names that a store alters."""
    os.mkfifo(tmp_path / "pipe")
    (weights / "a#b").write_text("x")
    cases: list[tuple[Any, str]] = [
        (tmp_path / "nothing", "want a file or folder that exists"),
        ({"a": tmp_path / "nothing"}, "No such file"),
        ({"a": tmp_path / "pipe"}, "want a file"),
        ({"../a": weights / "readout.bin"}, "want a relative path"),
        ({"a": weights / "readout.bin", "a/b": weights / "readout.bin"}, "is a file of this"),
        (weights, "want a path without #"),
    ]
    for files, words in cases:
        with pytest.raises(RegistryError, match=words):
            reservoir(files)


def test_too_much_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes and too many files are refused with both, before they are read."""
    monkeypatch.setattr(components, "MOST_BYTES", 7)
    with pytest.raises(RegistryError, match=r"8 bytes in 2 files: want at most"):
        read_component({}, kind="prompt", files=weights)
    with pytest.raises(RegistryError, match="12 bytes in 1 file:"):
        reservoir()
    monkeypatch.setattr(components, "MOST_BYTES", 12)
    reservoir(weights)
    monkeypatch.setattr(components, "MOST_FILES", 4)
    with pytest.raises(RegistryError, match="8 bytes in 2 files"):
        reservoir(weights)
    monkeypatch.setattr(version_files, "MOST_BYTES", 10)
    with pytest.raises(RegistryError, match="larger things are artifacts of a run"):
        files_of(reservoir())


def test_no_link_leads_out(weights: Path, tmp_path: Path) -> None:
    """Where the target folder has a link to elsewhere in it, nothing is written through it."""
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (target / "deep").symlink_to(elsewhere)
    with pytest.raises(RegistryError, match="would leave"):
        reservoir(weights).write_files(target)
    assert list(elsewhere.iterdir()) == []
