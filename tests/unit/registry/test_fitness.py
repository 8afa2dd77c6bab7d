"""
Fitness in a version's tags, and the names of a genome's traits.
"""

from __future__ import annotations

from typing import Any

import pytest

from allele_mlflow.errors import RegistryError
from allele_mlflow.registry.contents import check_schema, schema_of, tags_of
from allele_mlflow.registry.fitness import Fitness, decode_fitness, encode_fitness
from allele_mlflow.registry.genomes import ALLELE_TRAITS, Genome, read_genome


def genome(**traits: float) -> Genome:
    """
    With these traits.
    """
    return read_genome({"genome_id": "g", "traits": traits, "metadata": {"parent_ids": ["a", "b"]}})


def test_fitness_comes_back() -> None:
    """Metrics of any name, with and without an interval; foreign tags are passed over."""
    given = [Fitness("fitness/best.mean", 0.93, 1), Fitness("score", 59.8, 8, 59.1, 60.5)]
    tags = {"allele.fitness.x.mean": "high", "allele.fitness.y.mean": "1.0", "other": "1"}
    for one in given:
        tags |= encode_fitness(one)
    assert decode_fitness(tags) == given
    assert list(map(str, given)) == [
        "fitness/best.mean 0.93, n = 1",
        "score 59.8 [59.1, 60.5], n = 8",
    ]


def test_a_later_fitness_leaves_nothing_of_an_earlier_one() -> None:
    """A single run after eight has no interval left from them."""
    tags = encode_fitness(Fitness("score", 59.8, 8, 59.1, 60.5))
    tags |= encode_fitness(Fitness("score", 60.0, 1))
    assert decode_fitness(tags) == [Fitness("score", 60.0, 1)]


def test_traits_are_a_schema_whatever_their_values() -> None:
    """The same names are the same schema; others are named in the refusal."""
    one = genome(empathy=0.1, humour=0.2)
    check_schema(genome(humour=0.9, empathy=1.0), one, "m/1")
    assert tags_of(one)["allele.schema"] == schema_of(["humour", "empathy"])
    with pytest.raises(RegistryError, match="m/1: without humour; with depth, size; want"):
        check_schema(genome(empathy=0.1, size=1.0, depth=2.0), one, "m/1")


def test_tags_tell_where_it_comes_from() -> None:
    """Id and parents stand in the version's tags."""
    tags = tags_of(genome(empathy=0.1))
    assert (tags["allele.genome_id"], tags["allele.parents"]) == ("g", '["a","b"]')


@pytest.mark.parametrize(
    ("level", "is_taken"), [(0, True), (1.0, True), (1.01, False), (-1, False)]
)
def test_traits_of_allele_are_parts_of_one(level: float, is_taken: bool) -> None:
    """A genome with Allele's eight traits has them from 0 to 1; other genomes have any numbers."""
    traits: dict[str, Any] = {**dict.fromkeys(ALLELE_TRAITS, 0.5), "empathy": level}
    if is_taken:
        genome(**traits)
    else:
        with pytest.raises(RegistryError, match=r"empathy=.*: want a number from 0 to 1"):
            genome(**traits)
    genome(empathy=level)
