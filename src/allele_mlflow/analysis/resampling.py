"""
Resamples, splits and sign flips as rows of weights on sorted values.

A row holds what each of the sorted values counts for in the location of one resample. The rows
depend on the sizes of the samples only: one matrix serves every metric that was measured on as
many runs, and the resampled locations of all of them are its product with their sorted values.

Cost: rows * n floats, so the rows of splits and flips come in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from allele_mlflow.analysis.locations import BoolArray, FloatArray, Location, weights_of

#: Up to as many arrangements all of them are tried, and the p-value is exact.
EXACT_LIMIT = 20_000
#: Weights held at once: with what is made of them, some 6 MB. Results do not depend on it.
CHUNK_WEIGHTS = 100_000


def bootstrap_weights(
    count: int, location: Location, *, resamples: int, generator: np.random.Generator
) -> FloatArray:
    """
    Shape (resamples, count): a row times the sorted values is the location of one resample.
    """
    found = np.empty((resamples, count))
    weights = weights_of(location, count)
    for block in row_blocks(resamples, count):
        rows = block.stop - block.start
        drawn = np.sort(generator.integers(0, count, size=(rows, count)), axis=1)
        places = (drawn + count * np.arange(rows)[:, np.newaxis]).ravel()
        summed = np.bincount(places, np.tile(weights, rows), minlength=rows * count)
        found[block] = summed.reshape(rows, count)
    return found


def jackknife_weights(count: int, location: Location) -> FloatArray:
    """
    Shape (count, count), count >= 2: row i times the sorted values is the location without the
    i-th of them.
    """
    rows = np.zeros((count, count))
    rows[~np.eye(count, dtype=bool)] = np.tile(weights_of(location, count - 1), count)
    return rows


def count_splits(first_count: int, second_count: int) -> int:
    """
    Ways to deal the pooled values out to two sides of these sizes.
    """
    return math.comb(first_count + second_count, first_count)


def count_flips(pairs: int) -> int:
    """
    Ways to choose the signs of the differences of pairs.
    """
    return 1 << pairs


def split_weights(
    first_count: int,
    second_count: int,
    location: Location,
    *,
    arrangements: int,
    generator: np.random.Generator,
) -> Iterator[FloatArray]:
    """
    Chunks of rows over the sorted pooled values: a row's product is the location of the second side
    minus that of the first, for one way to deal the values out.

    All ways where there are at most `EXACT_LIMIT`, else `arrangements` random ones.
    """
    total = first_count + second_count
    first, second = weights_of(location, first_count), weights_of(location, second_count)
    for is_second in _split_chunks(total, second_count, arrangements, generator):
        seconds = np.cumsum(is_second, axis=1)
        firsts = np.arange(1, total + 1) - seconds
        yield np.where(is_second, second[seconds - 1], -first[firsts - 1])


def _split_chunks(
    total: int, chosen: int, arrangements: int, generator: np.random.Generator
) -> Iterator[BoolArray]:
    if math.comb(total, chosen) <= EXACT_LIMIT:
        indices = np.array(list(combinations(range(total), chosen)))
        is_chosen = np.zeros((len(indices), total), dtype=bool)
        np.put_along_axis(is_chosen, indices, values=True, axis=1)
        yield is_chosen
        return
    for block in row_blocks(arrangements, total):
        start = np.zeros((block.stop - block.start, total), dtype=bool)
        start[:, :chosen] = True
        yield generator.permuted(start, axis=1)


def flip_weights(
    pairs: int, location: Location, *, arrangements: int, generator: np.random.Generator
) -> Iterator[FloatArray]:
    """
    Chunks of rows over the sorted absolute differences: a row's product is the location of the
    differences with one choice of signs.

    All choices where there are at most `EXACT_LIMIT`, else `arrangements` random ones.
    """
    weights = weights_of(location, pairs)
    for is_negative in _flip_chunks(pairs, arrangements, generator):
        # Sorted with their signs, the negative ones come first, the largest foremost.
        negatives = np.cumsum(is_negative, axis=1)
        below = negatives[:, -1:]
        rank = np.where(is_negative, below - negatives, below + np.arange(pairs) - negatives)
        yield np.where(is_negative, -weights[rank], weights[rank])


def _flip_chunks(
    pairs: int, arrangements: int, generator: np.random.Generator
) -> Iterator[BoolArray]:
    if count_flips(pairs) <= EXACT_LIMIT:
        yield (np.arange(count_flips(pairs))[:, np.newaxis] >> np.arange(pairs)) % 2 == 1
        return
    for block in row_blocks(arrangements, pairs):
        yield generator.random((block.stop - block.start, pairs)) < 0.5


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """
    Slices that take all rows of a matrix of that width, about `CHUNK_WEIGHTS` cells each.
    """
    largest = max(1, CHUNK_WEIGHTS // width)
    for start in range(0, rows, largest):
        yield slice(start, min(start + largest, rows))
