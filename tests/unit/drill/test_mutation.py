"""
Damage to bytes: what is said to be touched is what was touched, and a seed says all.
"""

from __future__ import annotations

import random
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from allele_mlflow.drill.mutation import KINDS, Span, mutate


@given(data=st.binary(max_size=9000), seed=st.integers(0, 1 << 32), kind=st.sampled_from(KINDS))
def test_touched_bytes_are_exactly_the_changed_ones(data: bytes, seed: int, kind: str) -> None:
    """Every byte that is another or gone is in one of the spans, and no other byte is."""
    mutated = mutate(data, random.Random(seed), kind)
    touched = {at for span in mutated.touched for at in range(*span)}
    after = mutated.data
    assert touched == {at for at, byte in enumerate(data) if at >= len(after) or after[at] != byte}
    assert all(one.end < two.start for one, two in pairwise(mutated.touched))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_does_the_same(kind: str) -> None:
    """A mutation can be made again from its seed, and most seeds do something."""
    data = random.Random(1).randbytes(9000)
    results = [mutate(data, random.Random(seed), kind) for seed in range(20)]
    assert results == [mutate(data, random.Random(seed), kind) for seed in range(20)]
    assert sum(result.data != data for result in results) > 10


def test_damage_is_done_where_something_is() -> None:
    """Of a file that is mostly empty, the part that says something is hit most of the time."""
    data = bytes(200_000) + b"content" * 10 + bytes(60_000)
    hits = sum(
        any(span.start in range(199_900, 200_200) for span in found.touched)
        for found in (mutate(data, random.Random(seed), "flip") for seed in range(100))
    )
    assert hits > 70


def test_spans_meet_where_they_share_a_byte() -> None:
    """Neighbours do not touch each other."""
    assert Span(0, 4).meets(Span(3, 9))
    assert not Span(0, 4).meets(Span(4, 9))
