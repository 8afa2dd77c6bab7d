"""
The pages as files of a folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.catalogue import PAGES
from allele_mlflow.dashboard.export import export_pages
from allele_mlflow.dashboard.source import Source
from allele_mlflow.errors import SettingsError
from tests.hostile_store import Elements, make_hostile_store


def source_of(path: Path) -> Source:
    """
    A source over a store and no spool.
    """
    settings = settings_module.load({"tracking_uri": f"sqlite:///{path}"}, environ={})
    return Source(settings, spools=[])


def test_every_link_of_a_copy_leads_somewhere(empty_store: Path, tmp_path: Path) -> None:
    """
    All addresses in the files are files of the folder, figures are in the pages themselves, and
    hostile texts stay texts.
    """
    hostile = make_hostile_store(empty_store, tmp_path, texts=120)
    folder = tmp_path / "site"
    count = export_pages(source_of(hostile.path), PAGES, folder)
    files = sorted(folder.glob("*.html"))
    assert len(files) == count > 10
    for file in files:
        text = file.read_text(encoding="utf-8")
        addresses = re.findall(r' (?:href|src)="([^"#]*)', text)
        wanted = [one for one in addresses if one not in ("data:,", "")]
        assert [one for one in wanted if not (folder / one).is_file()] == []
        problems = [one for one in Elements(text).problems if not one.startswith(("href", "src"))]
        assert problems == []
        assert "fetch" not in text

    text = (folder / f"executions-{hostile.parent_id}.html").read_text(encoding="utf-8")
    for scheme in ("light", "dark"):
        assert f'<script type="application/json" data-scheme="{scheme}">{{"title":' in text


def test_other_folders_are_left_alone(empty_store: Path, tmp_path: Path) -> None:
    """
    A folder that holds anything else is refused; one of an earlier copy is written again.
    """
    source = source_of(empty_store)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="something else"):
        export_pages(source, PAGES, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]
    first = export_pages(source, PAGES, tmp_path / "site")
    assert export_pages(source, PAGES, tmp_path / "site") == first
