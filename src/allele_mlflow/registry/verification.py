"""
Whether a model is what its journal says: entries, files, aliases and tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from allele_mlflow.errors import PermanentTrackingError, RegistryError
from allele_mlflow.registry.journal import Chain, Entry, check_head
from allele_mlflow.registry.journal_audit import find_clock_steps, find_contradictions
from allele_mlflow.registry.kept_journal import KeptJournal
from allele_mlflow.tracking.stored_models import StoredVersion

#: Told how many versions are checked, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Findings:
    """
    What `Registry.verify` found: `problems` that need a person, what it has `repaired`, and `notes`
    on what is no problem.
    """

    head: str
    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify_model(
    journal: KeptJournal,
    versions: Mapping[int, StoredVersion],
    load: Callable[[Entry], object],
    *,
    head: str | None = None,
    progress: Progress | None = None,
) -> Findings:
    """
    Check all of a model, and have MLflow's aliases and tags say what the journal says.

    Args:
        journal: Of the model.
        versions: What MLflow has of it, by number.
        load: Reads the version of such an entry; raises `RegistryError` where it is another.
        head: A hash that was noted down: the chain must contain it.
        progress: Is told how far it is.
    Cost: one version's files in memory at a time.
    """
    chain = journal.look()
    problems = [*_entry_problems(journal, chain, head)]
    problems += _version_problems(chain, versions, load, progress)
    repaired = []
    if chain.problem is None:  # else what it says is not known
        try:
            repaired = [*journal.set_aliases(chain), *journal.set_tags(chain, versions.values())]
        except PermanentTrackingError as exc:  # of a version that is gone
            problems.append(str(exc))
    return Findings(chain.head, tuple(problems), tuple(repaired), tuple(find_clock_steps(chain)))


def _entry_problems(journal: KeptJournal, chain: Chain, head: str | None) -> Iterator[str]:
    if chain.problem is not None:
        yield chain.problem
    if journal.is_deleted:
        yield journal.deleted_text()
    missing = check_head(chain, head) if head is not None else None
    if missing is not None:
        yield missing
    yield from find_contradictions(chain)
    for entry in chain.entries:
        wrong = journal.check_evidence(entry.evidence) if entry.evidence is not None else None
        if wrong is not None:
            yield f"entry {entry.number}: {wrong}"


def _version_problems(
    chain: Chain,
    versions: Mapping[int, StoredVersion],
    load: Callable[[Entry], object],
    progress: Progress | None,
) -> Iterator[str]:
    entries = chain.registrations()
    for done, (number, entry) in enumerate(entries.items(), 1):
        if number not in versions:
            yield f"version {number}: gone from MLflow"
        else:
            try:
                load(entry)
            except RegistryError as exc:
                yield f"version {number}: {exc}"
        if progress is not None:
            progress(done, len(entries))
    for number in sorted(versions.keys() - entries.keys()):
        yield (
            f"version {number} is in no entry: it was made beside the registry, or its making was "
            "cut short (then register the same again)"
        )
