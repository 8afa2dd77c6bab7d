"""
What became of the runs that `sync` found, and the exit code that follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, say, shown
from allele_mlflow.cli.targets import explain_left
from allele_mlflow.settings import mask_secrets
from allele_mlflow.watching.spools import SpooledRun, look_again


@dataclass
class SyncOutcome:
    """
    The runs as they were found, and what is noted while they are delivered.
    """

    #: By the address of the store they go to.
    runs: dict[str, list[SpooledRun]] = field(default_factory=dict)
    #: Runs that nobody can deliver as it is.
    left: list[SpooledRun] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    is_store_wanted: bool = False
    has_gaps: bool = False
    has_losses: bool = False
    is_interrupted: bool = False

    def add(self, run: SpooledRun, target: str | None) -> None:
        """
        Take in a run that waits.
        """
        if target is None:
            self.left.append(run)
        else:
            self.runs.setdefault(target, []).append(run)

    @property
    def is_empty(self) -> bool:
        """
        Whether nothing waits.
        """
        return not (self.runs or self.left)

    def report(self) -> ExitCode:
        """
        Say what became of each run: results on stdout, what the user has to see to on stderr.

        Raises:
            OutputError: stdout takes nothing.
        """
        for target, runs in self.runs.items():
            say(f"to {mask_secrets(target)}:")
            for run in runs:
                self._report_run(run)
        for run in self.left:
            self._report_left(run)
        for text in self.complaints:
            complain(text)
        return self._exit_code()

    def _report_run(self, before: SpooledRun) -> None:
        run = look_again(before)
        if run is None:
            return  # somebody deleted it
        damage = run.state.damage if run.state else []
        self.has_losses |= bool(run.ledger.lost or damage)
        self.has_gaps |= run.is_waiting
        metrics = run.ledger.delivered.get("metric", 0)
        end = "still waiting" if run.is_waiting else run.state.status if run.state else "?"
        error = run.state.last_error if run.is_waiting and run.state else None
        if run.is_waiting and not error and (run.state is None or run.state.end is None):
            error = "its program still runs, or another process delivers it"
        say(
            f"{_label(run)}: {end}, {metrics:,} metrics delivered, "
            f"{run.ledger.pending:,} pending, {run.ledger.lost:,} rejected, dropped or torn"
            + (f" ({shown(error)})" if error else "")
        )
        for text in damage:
            say(f"  not readable: {text}")

    def _report_left(self, run: SpooledRun) -> None:
        if run.is_described:
            self.is_store_wanted = True
            complain(f"{_label(run)}: left, for {explain_left(run.spec)}")
            return
        self.has_losses = True
        complain(
            f"{run.folder}: left with {run.ledger.pending:,} records, for its description is "
            "missing or cannot be read; want its run.msgpack back"
        )

    def _exit_code(self) -> ExitCode:
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        if self.is_store_wanted:
            return ExitCode.USAGE
        if self.has_gaps:
            return ExitCode.UNREACHABLE
        return ExitCode.LOST if self.has_losses else ExitCode.FINE


def _label(run: SpooledRun) -> str:
    return shown(f"{run.spec.experiment} {run.name}")
