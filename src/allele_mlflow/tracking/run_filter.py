"""
Runs with certain tags or ids, in the language of MLflow's `search_runs`. Pure.

That language has quotes and no escapes: of `'it''s'` it makes `it''s`, and a backslash before the
last quote swallows the quote. So what cannot be written in it is asked for by less, and whoever
asks compares what comes back.

Source: utils/search_utils.py of MLflow 3.17 (`_strip_quotes`), keywords.py of sqlparse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


def filter_of_tags(wanted: Mapping[str, str | None]) -> str:
    """
    A filter that lets through every run that has all of these tags with these values.

    It may let through others as well: those whose value of a tag is another, where the wanted one
    cannot be written, or where a store does not tell upper from lower case.

    Args:
        wanted: Keys that MLflow takes (`check_key`: no quote, no backtick), and any values; None
            where the tag only has to be there, with any text.
    """
    return " AND ".join(f"tags.`{key}` {_condition(value)}" for key, value in wanted.items())


def _condition(value: str | None) -> str:
    if value is not None and value.isprintable() and "\\" not in value:
        for quote in ("'", '"'):
            if quote not in value:
                return f"= {quote}{value}{quote}"
    return "!= ''"  # it is there, and not empty: nor is what cannot be written


def filter_of_ids(run_ids: Collection[str]) -> str:
    """
    A filter for runs of these ids; one that cannot be written is nobody's.
    """
    known = [one for one in run_ids if one.isascii() and one.replace("-", "").isalnum()]
    return f"attributes.run_id IN ({', '.join(map(repr, known or ['nobody']))})"
