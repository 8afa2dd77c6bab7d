"""
How versions are written, and how runs say that they used one.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.errors import NotFoundError
from allele_mlflow.references import (
    Reference,
    Stage,
    decode_uses,
    encode_uses,
    parse_reference,
    reference_of,
)

NAMES = st.from_regex(r"[\w.\-][\w.\- ]*[\w.\-]", fullmatch=True)
REFERENCES = st.one_of(
    st.builds(Reference, NAMES, st.integers(0, 999_999_999), st.none()),
    st.builds(Reference, NAMES, st.none(), st.sampled_from(Stage)),
)
TIMES = st.datetimes().map(lambda time: f"{time.isoformat(timespec='milliseconds')}+00:00")


@given(REFERENCES)
def test_what_is_written_is_read_again(reference: Reference) -> None:
    """A version's text means that version and no other."""
    assert parse_reference(str(reference)) == reference


@given(st.dictionaries(REFERENCES, TIMES, min_size=1, max_size=5))
def test_uses_come_back(uses: dict[Reference, str]) -> None:
    """What a run says of its uses is read again, each with its time."""
    text = encode_uses({str(reference): time for reference, time in uses.items()})
    assert dict(decode_uses(text)) == uses


@pytest.mark.parametrize("text", ["", "hello", "m@production", ", ,", "m@nowhere 2026-01-01"])
def test_foreign_tags_are_passed_over(text: str) -> None:
    """A tag that anybody wrote names nothing, and breaks nothing."""
    assert list(decode_uses(text)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("persona", "want name@stage or name/version"),
        ("@production", "want name@stage or name/version"),
        ("/3", "want name@stage or name/version"),
        ("persona/third", "want name@stage or name/version"),
        ("persona/-1", "want name@stage or name/version"),
        ("persona/²", "want name@stage or name/version"),
        (f"persona/{'9' * 30}", "want name@stage or name/version"),
        ("persona@prod", "stage 'prod': want one of development, candidate, staging, production"),
    ],
)
def test_what_is_no_reference(text: str, words: str) -> None:
    """It is refused with what is wanted."""
    with pytest.raises(NotFoundError, match=words):
        parse_reference(text)


def test_loaded_things_are_references() -> None:
    """What a registry gave has a name and a version; anything else is told what is wanted."""
    assert reference_of(SimpleNamespace(name="m", version=3)) == Reference("m", 3, None)
    assert reference_of("m@staging") == Reference("m", None, Stage.STAGING)
    for other in (3, None, SimpleNamespace(name="m", version=None), {"name": "m"}):
        with pytest.raises(NotFoundError, match="what a registry loaded"):
            reference_of(other)
