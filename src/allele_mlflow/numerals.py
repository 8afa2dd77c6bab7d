"""
Whole numbers that come as text from anybody: tags, addresses, forms.
"""

from __future__ import annotations

#: Decimal digits of the largest number that every column and field of ours takes.
MOST_DIGITS = 18


def whole_number(text: str | None) -> int | None:
    """
    The number that a text says in at most 18 ASCII digits, and nothing else; None for what is none.

    `str.isdigit` alone also takes "²", and `int` refuses that, as it does thousands of digits.
    """
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return int(text) if text is not None and is_number else None
