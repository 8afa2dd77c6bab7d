"""
What differs between two versions, as a terminal shows it.
"""

from __future__ import annotations

from allele_mlflow.cli.registry.comparing import change_text
from allele_mlflow.registry.differences import Change

START = "You are a helpful tutor who never gives the answer away; "


def test_long_texts_are_shown_where_they_begin_to_differ() -> None:
    """Of two prompts that begin alike, the table shows the words that are not the same."""
    change = Change(
        "$.text", f'"{START}be brief."', f'"{START}explain at length, with care."', None
    )
    text = change_text([change], "p/1", "p/2")
    assert "be brief" in text
    assert "explain at length" in text
    assert "helpful tutor" not in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_numbers_have_a_difference_and_absent_things_a_dash() -> None:
    """Numbers are shown with their difference; what one side lacks is a dash; names cannot move
    the cursor.
    """
    changes = [
        Change("$.rate", "0.1", "0.25", 0.15),
        Change("$.\x1b[2J", None, "true", None),
    ]
    lines = change_text(changes, "m/1", "m/2").splitlines()
    assert lines[-2].split() == ["$.rate", "0.1", "0.25", "+0.15"]
    assert lines[-1].split() == ["$.\\x1b[2J", "-", "true", "-"]
    assert change_text([], "m/1", "m/2") == "nothing differs"
