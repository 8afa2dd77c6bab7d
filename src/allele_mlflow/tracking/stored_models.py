"""
What a model registry holds, as its readers give it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: Of a registered model: what its versions are, one for all of them.
KIND_TAG = "allele.registry.kind"
USUAL_KIND = "genome"


class StoredVersion(NamedTuple):
    """
    A version of a registered model. `created_ms` is when it was made.
    """

    number: int
    tags: Mapping[str, str]
    source: str
    run_id: str
    created_ms: int


class StoredModel(NamedTuple):
    """
    A registered model; `aliases` are MLflow's, by name.
    """

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]

    @property
    def kind(self) -> str:
        """
        What its versions are: `genome`, or the kind of a component.
        """
        return self.tags.get(KIND_TAG, USUAL_KIND)


class StoredEntries(NamedTuple):
    """
    The params of a journal's run by key, and whether MLflow has the run as deleted.
    """

    texts: Mapping[str, str]
    is_deleted: bool = False
