"""
Damage to the bytes of a file, decided by a seeded chance. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

#: Where a file's content is looked at for whether there is any: most of a cursor is empty.
GRAIN_BYTES = 64
PAGE_BYTES = 4096
#: Longest block that is zeroed, overwritten or swapped.
BLOCK_BYTES = 512
MAX_FLIPS = 32


class Span(NamedTuple):
    """
    Bytes from `start` up to `end` of a file.
    """

    start: int
    end: int

    def meets(self, other: Span) -> bool:
        """
        Whether they have a byte in common.
        """
        return self.start < other.end and other.start < self.end


class Mutated(NamedTuple):
    """
    A file's bytes after damage. `touched` are those of before that are others now, or gone.
    """

    kind: str
    data: bytes
    touched: tuple[Span, ...]


def mutate(data: bytes, chance: random.Random, kind: str | None = None) -> Mutated:
    """
    The bytes with one kind of damage, of `KINDS` by chance where none is named.
    """
    kind = kind or chance.choice(KINDS)
    mutated = bytearray(data)
    if data:
        _MUTATIONS[kind](mutated, chance)
    elif kind == "extend":
        _extend(mutated, chance)
    return Mutated(kind, bytes(mutated), _touched(data, bytes(mutated)))


def _flip(data: bytearray, chance: random.Random) -> None:
    data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _flip_some(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(2, MAX_FLIPS)):
        _flip(data, chance)


def _zero_block(data: bytearray, chance: random.Random) -> None:
    start, size = _block(data, chance)
    data[start : start + size] = bytes(size)


def _zero_page(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance) // PAGE_BYTES * PAGE_BYTES
    size = min(PAGE_BYTES, len(data) - start)
    data[start : start + size] = bytes(size)


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _noise(data: bytearray, chance: random.Random) -> None:
    start, size = _block(data, chance)
    data[start : start + size] = chance.randbytes(size)


def _extend(data: bytearray, chance: random.Random) -> None:
    data += bytes(chance.choice((1, 31, 32, BLOCK_BYTES, PAGE_BYTES, 3 * PAGE_BYTES)))


def _swap(data: bytearray, chance: random.Random) -> None:
    size = min(1 << chance.randint(0, 9), len(data) // 2)
    if not size:
        return
    grain = chance.choice((1, size))
    starts = [min(_place(data, chance), len(data) - size) // grain * grain for _ in range(2)]
    first, second = sorted(starts)
    if second - first < size:
        return
    one, other = data[first : first + size], data[second : second + size]
    data[first : first + size], data[second : second + size] = other, one


_MUTATIONS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip": _flip,
    "flips": _flip_some,
    "zeros": _zero_block,
    "zero-page": _zero_page,
    "truncate": _truncate,
    "noise": _noise,
    "extend": _extend,
    "swap": _swap,
}
KINDS = tuple(_MUTATIONS)


def _place(data: bytearray, chance: random.Random) -> int:
    """
    A place in the file, mostly where there is something.
    """
    grains = [
        start
        for start in range(0, len(data), GRAIN_BYTES)
        if any(data[start : start + GRAIN_BYTES])
    ]
    if not grains or chance.random() < 0.1:
        return chance.randrange(len(data))
    start = chance.choice(grains)
    return chance.randrange(start, min(start + GRAIN_BYTES, len(data)))


def _block(data: bytearray, chance: random.Random) -> tuple[int, int]:
    start = _place(data, chance)
    size = min(chance.randint(1, BLOCK_BYTES), len(data) - start)
    return start, size


def _touched(before: bytes, after: bytes) -> tuple[Span, ...]:
    spans: list[Span] = []
    common = min(len(before), len(after))
    for start in range(0, common, GRAIN_BYTES):
        end = min(start + GRAIN_BYTES, common)
        if before[start:end] == after[start:end]:
            continue
        spans += [Span(at, at + 1) for at in range(start, end) if before[at] != after[at]]
    if common < len(before):
        spans.append(Span(common, len(before)))
    return _joined(spans)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].end == span.start:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return tuple(joined)
