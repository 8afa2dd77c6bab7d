"""
The journal of a model: every transition, who did it and why, newest first.
"""

from __future__ import annotations

import msgspec

from allele_mlflow.dashboard.pages.models import model_instances
from allele_mlflow.dashboard.pages.page import Ask, Page
from allele_mlflow.dashboard.pages.registry_rows import ENTRY_COLUMNS, EntryRow, entry_rows
from allele_mlflow.dashboard.views import Knobs, Paged, page_of


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """
    The entries of a model's journal; `head` is the hash of the last one.
    """

    name: str
    head: str
    entries: Paged[EntryRow]


def query(ask: Ask) -> Journal:
    """
    The entries of which version, stage, person or reason have the text of the view.

    Raises:
        NotFoundError: there is no such model.
        RegistryError: its journal is damaged.
        RefusalError: 404: there is no registry.
        TrackingError: the registry does not answer.
    """
    name, wanted = ask.params["name"], ask.view.find.casefold()
    chain = ask.source.registries.open().history(name)
    rows = [row for row in entry_rows(chain.entries, chain.hashes) if wanted in _text(row)]
    return Journal(name=name, head=chain.head, entries=page_of(rows, ask.view))


def _text(row: EntryRow) -> str:
    return f"{row.action} {row.version} {row.stage} {row.by} {row.reason} {row.hash}".casefold()


PAGE = Page(
    name="journal",
    path="/registry/{name}/journal",
    summary="The journal of a model: every transition, who did it and why, newest first.",
    query=query,
    content=Journal,
    template="journal.html",
    columns={"entries": ENTRY_COLUMNS},
    knobs=Knobs(has_find=True, has_pages=True),
    instances=model_instances,
)
