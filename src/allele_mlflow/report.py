"""
What `close` returns: where every record of the run is, and what the logger cost.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from allele_mlflow.records import Ledger


@dataclass(frozen=True)
class DeliveryReport:
    """
    The end of one run as its logger saw it.

    Units: `elapsed_s` from start to close, `waited_s` of it in close; `overhead_ratio` the logger's
    calls as a part of `elapsed_s` (0.01 = 1 %), None where the run was too short to tell.
    """

    experiment: str
    run_uid: str
    run_id: str | None
    run_url: str | None
    status: str
    ledger: Ledger
    is_complete: bool
    elapsed_s: float
    waited_s: float
    overhead_ratio: float | None
    spool: Path | None
    last_error: str | None = None
    is_offline: bool = False
    #: No sidecar goes on when the program ends: `worker="thread"`.
    is_alone: bool = False
    #: What `sync` has to be told, for the spool does not know it: the store of an offline run, or
    #: an address with secrets (masked here).
    needed_uri: str | None = None

    def line(self) -> str:
        """
        The ledger in one line of plain text.
        """
        ledger = self.ledger
        metrics = ledger.delivered.get("metric", 0)
        parts = [f"{metrics:,} metrics delivered"]
        if ledger.archived:
            parts.append(f"{_counted(ledger.archived)} archived{_reasons(ledger.archived)}")
        parts.append(f"{_counted(ledger.rejected)} rejected{_reasons(ledger.rejected)}")
        parts.append(f"{ledger.pending:,} pending")
        if ledger.dropped:
            parts.append(f"{_counted(ledger.dropped)} dropped{_reasons(ledger.dropped)}")
        if ledger.torn:
            parts.append(f"{ledger.torn:,} torn")
        cost = f"run of {self.elapsed_s:.1f} s"
        if self.overhead_ratio is not None:
            cost = f"logger {self.overhead_ratio * 100:.1f} % of {self.elapsed_s:.1f} s"
        return f"{', '.join(parts)}; {cost}"

    def lines(self) -> list[str]:
        """
        What `close` writes to a terminal: experiment, address of the run, ledger, and what to do
        next.
        """
        found = [f"experiment {self.experiment}, run {self.run_url or self.run_uid}", self.line()]
        if not self.is_complete and self.spool is not None:
            command = f"allele-mlflow sync {shlex.quote(str(self.spool))}"
            if self.needed_uri is not None:
                command += f" --tracking-uri {shlex.quote(self.needed_uri)}"
            goes_on = not (self.is_offline or self.is_alone)
            who = "the sidecar goes on alone, or" if goes_on else "deliver them with"
            waiting = f"{self.ledger.pending:,} records wait"
            if not self.ledger.pending:
                waiting = "files that describe the run wait"
            found.append(f"{waiting} in {self.spool}; {who}: {command}")
            if self.last_error:
                found.append(f"last error: {self.last_error}")
        return found


def _counted(numbers: dict[str, int]) -> str:
    return f"{sum(numbers.values()):,}"


def _reasons(numbers: dict[str, int]) -> str:
    """
    The reasons in brackets, nothing where there are none.
    """
    if not numbers:
        return ""
    return " (" + ", ".join(f"{reason} {n:,}" for reason, n in sorted(numbers.items())) + ")"
