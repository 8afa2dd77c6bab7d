"""
A model's journal where it is kept: read, written one entry at a time, and mirrored by aliases.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.errors import ErrorKind, RegistryError, TransientTrackingError
from allele_mlflow.registry.journal import (
    Action,
    Chain,
    Entry,
    Stage,
    encode_entry,
    entry_key,
    read_chain,
)
from allele_mlflow.tracking.registry_client import RegistryClient

STAGE_TAG = "allele.stage"
#: How often a lost race for the next entry is run again, where nobody else's stage is at stake.
ATTEMPTS = 100
#: Where documents of evidence lie among the artifacts of the journal's run, each under its hash.
EVIDENCE_FOLDER = "evidence"


class KeptJournal:
    """
    The journal of one model.

    Args:
        client: The registry's store.
        name: Of the model.
        run_id: The run whose params are the entries.
    Raises (all methods):
        TrackingError: the store does not answer.
    """

    def __init__(self, client: RegistryClient, name: str, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._name = name

    def look(self) -> Chain:
        """
        The chain as far as it holds together.
        """
        return read_chain(self._client.read_entries(self.run_id))

    def read(self) -> Chain:
        """
        The whole chain.

        Raises:
            RegistryError: it is damaged.
        """
        chain = self.look()
        if chain.problem is not None:
            raise RegistryError(
                f"the journal {self.run_id} is damaged: {chain.problem}",
                kind=ErrorKind.BAD_REGISTRY,
            )
        return chain

    def append(self, build: Callable[[Chain], Entry | None]) -> Entry | None:
        """
        Write the next entry, which is made anew whenever another one was faster; None where there
        is none to write any more.

        Raises:
            RegistryError: the journal is damaged, or `build` refuses.
        """
        for _ in range(ATTEMPTS):
            entry = build(self.read())
            if entry is None:
                return None
            key, text = entry_key(entry.number), encode_entry(entry)
            if self._client.write_entry(self.run_id, key, text):
                return entry
        raise TransientTrackingError(
            f"{ATTEMPTS} others wrote the journal first, one after the other",
            kind=ErrorKind.STORE_BUSY,
        )

    def keep_evidence(self, data: bytes) -> tuple[str, str]:
        """
        Keep a document beside the entries; its SHA-256 and its address.
        """
        digest = hashlib.sha256(data).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{digest}.json").write_bytes(data)
            place = self._client.keep_files(self.run_id, Path(folder), EVIDENCE_FOLDER)
        return digest, f"{place}/{digest}.json"

    def mirror(self) -> Chain:
        """
        Have aliases and tags follow the journal, until nobody has written it meanwhile.
        """
        while True:
            chain = self.read()
            self.set_aliases(chain)
            if self.read().head == chain.head:
                return chain

    def set_aliases(self, chain: Chain) -> list[str]:
        """
        Have aliases say what a chain says, and the tags of the versions that moved last; what that
        changed, in words.
        """
        standing = chain.standing()
        aliases = self._client.model(self._name).aliases
        done = []
        for stage in Stage:
            wanted, there = standing.holders.get(stage), aliases.get(stage.value)
            if wanted is None and there is not None:
                self._client.delete_alias(self._name, stage.value)
                done.append(f"alias {stage}: version {there} does not hold it")
            elif wanted is not None and wanted != there:
                self._client.set_alias(self._name, stage.value, wanted)
                done.append(f"alias {stage}: version {wanted} holds it")
        last = chain.entries[-1] if chain.entries else None
        moved = {last.version, last.holder} if last is not None else set()
        for version in sorted(one for one in moved if one is not None):
            where = standing.stages.get(version)
            if where is not None:
                self._client.tag_version(self._name, version, STAGE_TAG, where.value)
        return done


def next_entry(
    chain: Chain,
    action: Action,
    name: str,
    version: int,
    stage: Stage,
    *,
    by: str,
    reason: str,
    content: str,
    manifest: str | None = None,
    holder: int | None = None,
) -> Entry:
    """
    The entry that comes after a chain, made now.
    """
    return Entry(
        number=chain.next_number,
        previous=chain.head,
        action=action,
        model=name,
        version=version,
        stage=stage,
        holder=holder,
        by=by,
        time=utc_iso(now_ns()),
        reason=reason,
        content=content,
        manifest=manifest,
        token=uuid.uuid4().hex,
    )
