"""
The genomes that a run kept, gathered for its report: what they are worth, and who came from whom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow.tracking.reader import artifact_folder

FOLDER = "genomes"
MOST_GENOMES = 500
GENOMES = ("genome_id", "generation", "fitness", "parents")
TRAITS = ("generation", "trait", "value")


def genomes_of(tracking_uri: str, run_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    A row a genome, columns of `GENOMES`, and a row a genome and trait, columns of `TRAITS`. What is
    no genome of Allele's form has no row.

    Raises:
        TrackingError: the store does not answer.
    """
    files = artifact_folder(tracking_uri, run_id, FOLDER, most_files=MOST_GENOMES)
    documents = [found for data in files.values() if (found := _decoded(data)) is not None]
    genomes = pd.DataFrame(list(map(_genome, documents)), columns=list(GENOMES))
    traits = [row for one in documents for row in _traits(one)]
    return genomes, pd.DataFrame(traits, columns=list(TRAITS))


def _decoded(data: bytes) -> Mapping[str, Any] | None:
    try:
        document = msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return None
    is_genome = isinstance(document, dict) and "genome_id" in document
    return document if is_genome else None


def _genome(document: Mapping[str, Any]) -> tuple[str, float, float, list[str]]:
    told = document.get("metadata")
    parents = told.get("parent_ids") if isinstance(told, dict) else None
    return (
        str(document["genome_id"]),
        _number(document.get("generation")),
        _number(document.get("fitness_score")),
        [str(one) for one in parents] if isinstance(parents, list) else [],
    )


def _traits(document: Mapping[str, Any]) -> Iterator[tuple[float, str, float]]:
    traits = document.get("traits")
    for name, value in traits.items() if isinstance(traits, dict) else ():
        yield _number(document.get("generation")), str(name), _number(value)


def _number(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan  # type: ignore[arg-type]
