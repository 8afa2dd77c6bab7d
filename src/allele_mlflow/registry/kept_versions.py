"""
Versions where they are kept: files as artifacts of the journal's run, told to MLflow's registry.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from allele_mlflow.registry.contents import Kept, files_of, read_kept, tags_of
from allele_mlflow.registry.journal import Entry, Stage
from allele_mlflow.registry.kept_journal import STAGE_TAG
from allele_mlflow.registry.version_files import MANIFEST_FILE, sha256
from allele_mlflow.tracking.registry_client import RegistryClient, StoredVersion

#: Of versions: SHA-256 of the manifest; its folder's name. Two who keep the same content with other
#: words about it, at the same time, do not write into each other's files.
MANIFEST_TAG = "allele.manifest"
_PLACE = "versions"


def keep_version(
    client: RegistryClient, name: str, run_id: str, kept: Kept, tags: Mapping[str, str]
) -> tuple[int, str]:
    """
    A new version, and the SHA-256 of its manifest; no entry of the journal tells of it yet.

    Args:
        client: The registry's store.
        name: Of the model.
        run_id: The run of its journal.
        kept: What it is.
        tags: Beside those that follow from it.
    Raises:
        RegistryError: the files are too many or too large.
        TrackingError: the store does not answer.
    """
    files = files_of(kept)
    manifest = sha256(files[MANIFEST_FILE])
    with tempfile.TemporaryDirectory() as folder:
        for path, data in files.items():
            target = Path(folder) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        source = client.keep_files(run_id, Path(folder), f"{_PLACE}/{manifest}")
    told = {STAGE_TAG: Stage.DEVELOPMENT.value, MANIFEST_TAG: manifest, **tags_of(kept), **tags}
    number = client.create_version(name, source=source, run_id=run_id, tags=told, description="")
    return number, manifest


def load_version(client: RegistryClient, entry: Entry, stored: StoredVersion | None = None) -> Kept:
    """
    What a version holds, every hash checked.

    Args:
        client: The registry's store.
        entry: By which it was registered.
        stored: What MLflow has of it, where that is known.
    Raises:
        RegistryError: a file was changed or is gone; says which.
        TrackingError: the store does not answer.
    """
    run_id = (stored or client.version(entry.model, entry.version)).run_id
    place = f"{_PLACE}/{entry.manifest or entry.content}"
    kept = read_kept(
        lambda path: client.fetch_file(run_id, f"{place}/{path}"),
        content=entry.content,
        manifest=entry.manifest,
    )
    return replace(kept, name=entry.model, version=entry.version)
