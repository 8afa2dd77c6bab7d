"""
A model's journal where it is kept: read, written one entry at a time, and mirrored by aliases.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.errors import (
    ErrorKind,
    NotFoundError,
    RegistryError,
    TrackingError,
    TransientTrackingError,
)
from allele_mlflow.registry.journal import (
    Action,
    Chain,
    Entry,
    Stage,
    encode_entry,
    entry_hash,
    entry_key,
    read_chain,
)
from allele_mlflow.tracking.registry_client import RegistryClient
from allele_mlflow.tracking.stored_models import StoredVersion

STAGE_TAG = "allele.stage"
#: How often a lost race for the next entry is run again, where nobody else's stage is at stake.
ATTEMPTS = 100
#: How often aliases that could not be set are tried.
_MIRROR_ATTEMPTS = 3
#: Where documents of evidence lie among the artifacts of the journal's run, each under its hash.
EVIDENCE_FOLDER = "evidence"
_logger = logging.getLogger(__name__)


class KeptJournal:
    """
    The journal of one model. What was read is kept, and only what is new is asked for again.

    Args:
        client: The registry's store.
        name: Of the model.
        run_id: The run whose params are the entries.
    Raises (all methods):
        TrackingError: the store does not answer.
        NotFoundError: the run is gone.
    """

    def __init__(self, client: RegistryClient, name: str, run_id: str) -> None:
        self.run_id = run_id
        self.name = name
        self._client = client
        self._chain = Chain()
        #: Whether MLflow has the run as deleted: `mlflow gc` would remove it for good.
        self.is_deleted = False

    def look(self) -> Chain:
        """
        The chain as far as it holds together, all of it read anew.
        """
        self._chain = Chain()
        return self._read_on()

    def read(self) -> Chain:
        """
        The whole chain.

        Raises:
            RegistryError: it is damaged.
        """
        chain = self._read_on()
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

        What was read before will do for the first try: had anybody written since, the number is
        taken, and the store refuses ours.

        Raises:
            RegistryError: the journal is damaged or deleted, or `build` refuses.
        """
        for attempt in range(ATTEMPTS):
            is_known = attempt == 0 and bool(self._chain.entries)
            chain = self._chain if is_known else self.read()
            if self.is_deleted:
                raise RegistryError(self.deleted_text(), kind=ErrorKind.BAD_REGISTRY)
            entry = build(chain)
            if entry is None:
                return None
            key, text = entry_key(entry.number), encode_entry(entry)
            if self._client.write_entry(self.run_id, key, text):
                self._chain = read_chain({key: text}, model=self.name, known=chain)
                return entry
        raise TransientTrackingError(
            f"{ATTEMPTS} others wrote the journal first, one after the other",
            kind=ErrorKind.STORE_BUSY,
        )

    def deleted_text(self) -> str:
        """
        That the run is deleted, and what to do about it.
        """
        return (
            f"the journal's run {self.run_id} is deleted in MLflow: "
            f"want it restored (mlflow runs restore --run-id {self.run_id})"
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

    def check_evidence(self, digest: str) -> str | None:
        """
        What is wrong with a document that was kept; None where it is as it was.
        """
        try:
            self.read_evidence(digest)
        except NotFoundError:
            return "its evidence is gone"
        except RegistryError:
            return "its evidence was changed"
        return None

    def read_evidence(self, digest: str) -> bytes:
        """
        A document that was kept.

        Raises:
            NotFoundError: it is gone.
            RegistryError: it was changed.
        """
        data = self._client.fetch_file(self.run_id, f"{EVIDENCE_FOLDER}/{digest}.json")
        if hashlib.sha256(data).hexdigest() != digest:
            raise RegistryError(
                f"the evidence {digest} of {self.name} was changed", kind=ErrorKind.TAMPERED
            )
        return data

    def mirror(self) -> Chain:
        """
        Have aliases and tags follow what was written, until nobody has written meanwhile.

        What was written is done, whether or not they follow: where they cannot, a warning says so,
        and the next transition or `verify` sets them.
        """
        failures = 0
        chain = self._chain
        while True:
            try:
                self.set_aliases(chain)
                if self.read().head == chain.head:
                    return chain
                chain = self._chain
            except TrackingError as exc:
                failures += 1
                if failures == _MIRROR_ATTEMPTS:
                    _logger.warning(
                        "%s: done, but MLflow's aliases do not follow yet (registry verify): %s",
                        self.name,
                        exc,
                    )
                    return chain

    def set_aliases(self, chain: Chain) -> list[str]:
        """
        Have aliases say what a chain says, and the tags of the versions that moved last; what that
        changed, in words.
        """
        standing = chain.standing()
        aliases = self._client.model(self.name).aliases
        done = []
        for stage in Stage:
            wanted, there = standing.holders.get(stage), aliases.get(stage.value)
            if wanted is None and there is not None:
                self._client.delete_alias(self.name, stage.value)
                done.append(f"alias {stage}: version {there} does not hold it")
            elif wanted is not None and wanted != there:
                self._client.set_alias(self.name, stage.value, wanted)
                done.append(f"alias {stage}: version {wanted} holds it")
        last = chain.entries[-1] if chain.entries else None
        moved = {last.version, last.holder} if last is not None else set()
        for version in sorted(one for one in moved if one is not None):
            where = standing.stages.get(version)
            if where is not None:
                self._client.tag_version(self.name, version, STAGE_TAG, where.value)
        return done

    def set_tags(self, chain: Chain, versions: Iterable[StoredVersion]) -> list[str]:
        """
        Have the tags of versions say where a chain has them stand; what that changed, in words.
        """
        stages = chain.standing().stages
        done = []
        for one in versions:
            wanted = stages.get(one.number)
            if wanted is not None and one.tags.get(STAGE_TAG) != wanted.value:
                self._client.tag_version(self.name, one.number, STAGE_TAG, wanted.value)
                done.append(f"tag of version {one.number}: it stands in {wanted}")
        return done

    def _read_on(self) -> Chain:
        """
        What is known and whatever follows it; all of it anew where its last entry is another now.
        """
        known = self._chain
        since = entry_key(len(known.entries)) if known.entries else ""
        found = self._client.read_entries(self.run_id, since=since)
        if known.entries and entry_hash(found.texts.get(since, "")) != known.head:
            known = Chain()
            found = self._client.read_entries(self.run_id)
        chain = read_chain(found.texts, model=self.name, known=known)
        self.is_deleted = found.is_deleted
        # as far as it holds together, whatever is wrong with what follows
        self._chain = Chain(chain.entries, chain.hashes)
        return chain


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
