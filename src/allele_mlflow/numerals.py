"""
Whole numbers that come as text from anybody: tags, addresses, forms.
"""

from __future__ import annotations

#: What every column and field of ours takes; times in nanoseconds have as many digits.
LARGEST = 2**63 - 1


def whole_number(text: str | None) -> int | None:
    """
    The number from 0 to 2**63 - 1 that a text says in ASCII digits, and nothing else; None for what
    is none.

    `str.isdigit` alone also takes "²", and `int` refuses that, as it does thousands of digits.
    """
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST))):
        return None
    number = int(text)
    return number if number <= LARGEST else None
