"""
Sizes as people write them.
"""

from __future__ import annotations

import click
import pytest

from allele_mlflow.cli.gc import gc, read_size

OPTION = next(one for one in gc.params if one.name == "larger_than")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        *(("0", 0), ("500", 500), ("1_000", 1000), ("20MB", 20_000_000), (" 2 kB ", 2000)),
        *(("2GiB", 2 << 30), ("1.5k", 1500), ("3tb", 3 * 10**12), ("7B", 7), ("1KiB", 1024)),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    """Decimal and binary units, with or without the B."""
    assert read_size(click.Context(gc), OPTION, text) == size_bytes


@pytest.mark.parametrize("text", ["", "-5", "MB", "5 apples", "1e6", "nan"])
def test_what_is_no_size(text: str) -> None:
    """It is refused with what is wanted."""
    with pytest.raises(click.BadParameter, match="want bytes"):
        read_size(click.Context(gc), OPTION, text)
