"""
A suspected change confirmed or not: both sides of it run again, in turn, on one machine.

Each repeat is a randomised complete block of all cells of both sides, one at a time, and both sides
get the same seed in it: what drifts falls on both alike, and the runs can be compared in pairs.
What was decided before anything runs stands in `check_sides`, `choose_repeats` and `plan_trials`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import ErrorKind, MatrixError, TransientTrackingError
from allele_mlflow.matrix import supervisor
from allele_mlflow.matrix.cells import Cell, Trial, select_cells
from allele_mlflow.matrix.confirmation_side import Side, SideName
from allele_mlflow.matrix.exclusive import hold_machine
from allele_mlflow.matrix.executors import CellExecutor, open_executor
from allele_mlflow.matrix.history import await_spooled
from allele_mlflow.matrix.messages import CellResult, decode, encode
from allele_mlflow.matrix.options import Beginning, SuiteView
from allele_mlflow.matrix.plan import Submit, SuitePlan
from allele_mlflow.matrix.prepared import ENVIRONMENT_FILE, Prepared
from allele_mlflow.matrix.suite_runs import cell_request, start_suite_log
from allele_mlflow.matrix.trial import SECONDS_METRIC
from allele_mlflow.records import content_hash
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # pandas and SciPy are read where they are needed
    from allele_mlflow.analysis.options import CompareOptions
    from allele_mlflow.analysis.suite_comparison import SuiteComparison
    from allele_mlflow.analysis.verdicts import Verdict

#: How often a display is asked to show what is new.
TICK_S = 0.2
_EXECUTOR = "process:1"


@dataclass(frozen=True)
class Repeats:
    """
    How often each cell is run on each side, and what has to be known about that.
    """

    count: int
    warning: str = ""


class SidedCell(NamedTuple):
    """
    A cell of a side.
    """

    side: SideName
    cell: Cell


@dataclass(frozen=True)
class Trials:
    """
    What is run: a plan over the cells of both sides, and which they are by their key in it.
    """

    plan: SuitePlan
    cells: Mapping[str, SidedCell]


@dataclass(frozen=True)
class Confirmed:
    """
    What came out.

    Attributes:
        verdict: Of all rows together; None where no run of any side finished.
        comparison: Cell by cell; None with it.
        run_ids: Of the runs of baseline and candidate, in MLflow.
    """

    verdict: Verdict | None
    comparison: SuiteComparison | None
    run_ids: tuple[str | None, str | None]


def check_sides(baseline: Prepared, candidate: Prepared) -> None:
    """
    Whether both sides are the same suite with the same cells, whatever their code is.

    Raises:
        MatrixError: they are not.
    """
    ours, theirs = baseline.suite, candidate.suite
    for name in ("name", "seed", "warm_ups"):
        values = getattr(ours, name), getattr(theirs, name)
        if values[0] != values[1]:
            raise _differ(f"{name} is {values[0]!r} of the baseline, {values[1]!r} of the other")
    for name in ours.metrics.keys() & theirs.metrics.keys():
        ways = ours.metrics[name].direction, theirs.metrics[name].direction
        if ways[0] is not ways[1]:
            raise _differ(f"metric {name!r}: {ways[0]} is better, and {ways[1]}")
    for side, own, other in (
        ("baseline", baseline, candidate),
        ("candidate", candidate, baseline),
    ):
        known = {cell.params_hash for cell in other.cells}
        only = [cell.name for cell in own.cells if cell.params_hash not in known]
        if only:
            more = f" and {len(only) - 3} more" if len(only) > 3 else ""
            raise _differ(f"only the {side} has the cells {'; '.join(only[:3])}{more} (see --only)")


def choose_repeats(suite_repeats: int, hypotheses: int, asked: int | None) -> Repeats:
    """
    As many repeats as the suite has, or more where fewer could never show anything.

    Args:
        suite_repeats: Of the suite.
        hypotheses: As of `count_hypotheses`.
        asked: Instead.
    Raises:
        MatrixError: no number of repeats can show anything.
    """
    from allele_mlflow.analysis.power import Design
    from allele_mlflow.analysis.sides import fewest_pairs

    fewest = fewest_pairs(hypotheses)
    if not Design(fewest, hypotheses, is_paired=True).is_reachable:
        raise MatrixError(
            f"{hypotheses} hypotheses (cells x metrics and success): no number of repeats makes a "
            "difference significant; want fewer: --only, --metric",
            kind=ErrorKind.BAD_SUITE,
        )
    if asked is None:
        return Repeats(max(suite_repeats, fewest))
    # fewer are compared without pairs, which can be enough
    design = Design(asked, hypotheses, is_paired=asked >= fewest)
    if design.is_reachable:
        return Repeats(asked)
    return Repeats(
        asked,
        f"with {asked} repeats nothing can ever be significant over {hypotheses} hypotheses "
        f"(cells x metrics and success): {fewest} can",
    )


def plan_trials(baseline: Prepared, candidate: Prepared, repeats: int) -> Trials:
    """
    All trials of both sides in one plan: in each repeat every cell of either side once, in an
    order of its own.
    """
    cells: dict[str, SidedCell] = {}
    planned = []
    sides: tuple[tuple[SideName, Prepared], ...] = (
        ("baseline", baseline),
        ("candidate", candidate),
    )
    for side, prepared in sides:
        for cell in prepared.cells:
            # keys of both sides are the same where the code is
            key = content_hash({"side": side, "params": cell.params_hash})[:32]
            cells[key] = SidedCell(side, cell)
            planned.append(cell._replace(key=key, name=f"{side}: {cell.name}"))
    suite = msgspec.structs.replace(baseline.suite, repeats=repeats, adaptive=None)
    return Trials(SuitePlan(suite, planned, 1), cells)


def selected(side: Side, only: str | None, repeats: int | None = None) -> Side:
    """
    The side with these cells alone, and so many repeats.

    Raises:
        MatrixError: as of `select_cells`.
    """
    prepared = side.prepared
    if only is not None:
        prepared = replace(prepared, cells=select_cells(prepared.cells, only))
    if repeats is not None:
        suite = msgspec.structs.replace(prepared.suite, repeats=repeats, adaptive=None)
        prepared = replace(prepared, suite=suite)
    return replace(side, prepared=prepared)


def compared_metrics(prepared: Prepared, metrics: Sequence[str]) -> list[str]:
    """
    What is compared: those that are asked for, else all that the suite names, and the time.
    """
    return list(metrics) or [*prepared.suite.metrics, SECONDS_METRIC]


def count_hypotheses(prepared: Prepared, metrics: Sequence[str]) -> int:
    """
    What Holm's correction is over at most, as far as it is known before: metrics, a glob counts as
    one, and the success rate of each cell.
    """
    return len(prepared.cells) * (len(metrics) + 1)


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """
    One verdict for all rows: the first of worse, different, better that any row has; equivalent
    only where all are.
    """
    from allele_mlflow.analysis.verdicts import Verdict

    order = (Verdict.WORSE, Verdict.DIFFERENT, Verdict.BETTER, Verdict.INCONCLUSIVE)
    rest = Verdict.EQUIVALENT if verdicts else Verdict.INCONCLUSIVE
    return next((one for one in order if one in verdicts), rest)


class Confirmation:
    """
    One confirmation. Use `run` once.

    Args:
        baseline, candidate: Both sides, with the cells and repeats that are run.
        settings: Of the logger; cells get the same.
        view: Told what happens.
        metrics: Those that are compared: names or globs.
        finding: Id of the finding that is to be confirmed.
        options: Of the comparison.
    """

    def __init__(
        self,
        baseline: Side,
        candidate: Side,
        settings: Settings,
        view: SuiteView,
        *,
        metrics: Sequence[str],
        finding: str | None = None,
        options: CompareOptions | None = None,
    ) -> None:
        self._sides = {side.name: side for side in (baseline, candidate)}
        self._settings = settings
        self._view = view
        self._metrics = metrics
        self._finding = finding
        self._options = options
        prepared = baseline.prepared
        self._trials = plan_trials(prepared, candidate.prepared, prepared.suite.repeats)
        self._executors: dict[SideName, CellExecutor] = {}
        self._logs: dict[SideName, RunLogger] = {}
        self._finished_count = 0

    def run(self, attach: Callable[[Confirmed, RunLogger], None]) -> Confirmed:
        """
        Run all trials, compare, and keep the verdict with the candidate's run.

        Args:
            attach: Called with what came out and the logger of that run before it closes.
        Raises:
            KeyboardInterrupt: it was interrupted; its cells have ended.
            TrackingError: the runs could not be read again.
            AnalysisError: they have nothing to be compared.
        """
        supervisor.stopping.clear()
        with contextlib.ExitStack() as closing:
            closing.enter_context(hold_machine(self._view.say))
            for name, side in self._sides.items():
                # a thread each, and so a process each that cells come from
                executor = open_executor(_EXECUTOR, side.prepared.folder)
                closing.callback(executor.close, waits=True)
                self._executors[name] = executor
            for name in self._sides:
                self._logs[name] = closing.enter_context(self._open_log(name))
            self._perform()
            found = self._compare()
            log = self._logs["candidate"]
            log.tag(tags.CONFIRMATION, "none" if found.verdict is None else found.verdict.value)
            attach(found, log)
        return found

    @contextlib.contextmanager
    def _open_log(self, name: SideName) -> Iterator[RunLogger]:
        side = self._sides[name]
        told: dict[str, str] = {tags.KIND: tags.RunKind.CONFIRMATION, tags.SIDE: name}
        if name == "candidate":
            told[tags.BASELINE] = self._logs["baseline"].run_uid
            if self._finding is not None:
                told[tags.FINDING] = self._finding
        if side.commit is not None:
            told[tags.COMMIT] = side.commit
        log = start_suite_log(
            side.prepared,
            self._settings,
            executor=_EXECUTOR,
            is_tracked=True,
            run_name=f"{side.prepared.suite.name} {name} {side.label}",
            told=told,
        )
        with log:
            if not log.handle():
                raise MatrixError("no spool: the runs cannot be tracked", kind=ErrorKind.BAD_SUITE)
            log.json(msgspec.to_builtins(side.prepared.environment), ENVIRONMENT_FILE)
            yield log

    # --- running ---------------------------------------------------------------------------------

    def _perform(self) -> None:
        plan, suite = self._trials.plan, self._trials.plan.suite
        handle = self._logs["baseline"].handle()
        self._view.begin(
            Beginning(
                suite=suite.name,
                cell_count=len(plan.cells),
                total_count=plan.total_count,
                reused_count=0,
                executor=_EXECUTOR,
                width=1,
                spool_runs=Path(handle).parent if handle else None,
                is_adaptive=False,
            )
        )
        while isinstance(step := plan.next(), Submit):
            self._view.submitted(step.trial, step.attempt)
            result = self._attempt(step)
            is_retried = plan.finished(step.trial, result)
            self._finished_count += result.failure is None
            self._view.finished(step.trial, result, is_retried=is_retried, total=plan.total_count)

    def _attempt(self, step: Submit) -> CellResult:
        side_name, cell = self._trials.cells[step.trial.cell.key]
        side, log = self._sides[side_name], self._logs[side_name]
        executor = self._executors[side_name]
        request = cell_request(
            side.prepared,
            Submit(Trial(cell, step.trial.repeat, step.trial.order), step.attempt),
            executor,
            log,
            settings=self._settings,
            parent=(log.handle(), None),
            kind=tags.RunKind.CONFIRMATION_CELL,
            place=side.place,
        )
        name = f"{log.run_uid}-{cell.key}-{step.trial.repeat}-{step.attempt}"
        future = executor.submit(encode(request), name=name)
        try:
            return decode(self._awaited(future), CellResult)
        except KeyboardInterrupt:
            supervisor.stopping.set()
            self._view.say("interrupted: ending the running cell; Ctrl-C again to leave now")
            future.result()
            raise

    def _awaited(self, future: Future[bytes]) -> bytes:
        while True:
            with contextlib.suppress(TimeoutError):
                return future.result(timeout=TICK_S)
            self._view.tick()

    # --- comparing -------------------------------------------------------------------------------

    def _compare(self) -> Confirmed:
        run_ids = self._await_delivery()
        if not self._finished_count:
            return Confirmed(None, None, run_ids)
        from allele_mlflow.analysis.selection import select
        from allele_mlflow.analysis.suite_comparison import compare_selections
        from allele_mlflow.tracking.reader import open_reader

        uri = self._settings.tracking_uri
        with contextlib.closing(open_reader(uri)) as reader:
            chosen = {name: select(reader, uri, log.run_uid) for name, log in self._logs.items()}
        # one machine, in turn: what differs is what each side brings, and is compared
        compared = compare_selections(
            *(replace(chosen[name], label=side.label) for name, side in self._sides.items()),
            metrics=self._metrics,
            options=self._options,
            across_environments=True,
        )
        rows = compared.found.rows if compared.found is not None else ()
        return Confirmed(overall([row.verdict for row in rows]), compared, run_ids)

    def _await_delivery(self) -> tuple[str | None, str | None]:
        """
        Wait until all is in MLflow; the ids of both runs there.

        Raises:
            TransientTrackingError: it is not.
        """
        self._view.say("waiting for the runs to be in MLflow")
        is_complete = True
        for log in self._logs.values():
            scope = Path(log.handle()).parent.parent
            timeout_s = self._settings.exit_timeout_s
            told = {tags.EXECUTION: log.run_uid}
            waiting = await_spooled(scope, told, timeout_s=timeout_s, tick=self._view.tick)
            is_complete = is_complete and not waiting and log.flush()
        if not is_complete:
            uids = " ".join(log.run_uid for log in self._logs.values())
            raise TransientTrackingError(
                f"not all runs are in MLflow yet: allele-mlflow sync, then compare {uids}",
                kind=ErrorKind.UNDELIVERED,
            )
        return self._logs["baseline"].run_id, self._logs["candidate"].run_id


def _differ(what: str) -> MatrixError:
    return MatrixError(f"both sides are to be one suite: {what}", kind=ErrorKind.BAD_SUITE)
