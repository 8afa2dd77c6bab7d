"""
Which mlflow is new enough.
"""

from __future__ import annotations

from importlib import metadata

import pytest

from allele_mlflow.tracking import versions


@pytest.mark.parametrize(
    ("version", "floor", "expected"),
    [
        ("2.22.1", "3.9", True),
        ("3.8.1", "3.9", True),
        ("3.9", "3.9", False),
        ("3.9.0", "3.9", False),
        ("3.9", "3.9.0", False),
        ("3.10.0rc1", "3.9", False),
        ("3.17.3.dev0", "3.9", False),
        ("10.0", "3.9", False),
        ("unknown", "3.9", False),
        ("", "3.9", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, floor: str, expected: bool) -> None:
    """
    3.10 is newer than 3.9, and what is no version is never too old.
    """
    assert versions.is_older(version, floor) is expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["anyio>=4", "mlflow-skinny>=3.9"], "3.9"),
        (["mlflow-skinny (>=3.9.1)"], "3.9.1"),
        (["mlflow-skinny<4,>=3.9"], "3.9"),
        (["mlflow>=3.20; extra == 'ui'"], None),
        ([], None),
    ],
)
def test_floor_is_that_of_our_metadata(
    wanted: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The lowest mlflow is read from what our package says that it needs.
    """
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    assert versions.lowest_mlflow() == expected


def test_floor_of_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A bare source tree states no floor, and refuses nothing.
    """

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert versions.lowest_mlflow() is None
    versions.check_mlflow()
