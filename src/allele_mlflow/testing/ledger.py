"""
The check that belongs at the end of every test that delivers.
"""

from __future__ import annotations

from allele_mlflow.records import Ledger


def assert_ledger_balanced(ledger: Ledger, *, accepted: int | None = None) -> None:
    """
    Fail unless every number of the ledger makes sense and, if given, all add up to `accepted`.

    Args:
        ledger: What a sidecar published of one run, or a sum of such.
        accepted: How many records the test's calls handed over.
    Raises:
        AssertionError: with the whole ledger in its message.
    """
    parts = {
        **{f"delivered[{kind}]": count for kind, count in ledger.delivered.items()},
        **{f"archived[{rule}]": count for rule, count in ledger.archived.items()},
        **{f"rejected[{reason}]": count for reason, count in ledger.rejected.items()},
        **{f"dropped[{reason}]": count for reason, count in ledger.dropped.items()},
        "torn": ledger.torn,
        "pending": ledger.pending,
    }
    shown = ", ".join(f"{name}={count}" for name, count in parts.items())
    negative = [name for name, count in (*parts.items(), ("sampled", ledger.sampled)) if count < 0]
    if negative:
        raise AssertionError(f"negative counts {', '.join(negative)} in the ledger: {shown}")
    total = sum(parts.values())
    if accepted is not None and total != accepted:
        raise AssertionError(
            f"{accepted} records accepted, {total} accounted for ({total - accepted:+}): {shown}"
        )
