"""
Runs a suite: performs what `SuitePlan` says, keeps what comes back, and tells MLflow.

One execution of a suite is a run in MLflow; each attempt at a trial is a run below it, which the
cell's own process starts. The runner imports no mlflow: it logs as anybody does, and reads what was
there before through `tracking.reader`.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path

from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_monotonic_s
from allele_mlflow.errors import AlleleMlflowError, ErrorKind, MatrixError, SidecarError
from allele_mlflow.matrix import supervisor
from allele_mlflow.matrix.cells import Cell, Trial, repeat_seed, select_cells
from allele_mlflow.matrix.exclusive import hold_machine
from allele_mlflow.matrix.executors import CellExecutor, open_executor
from allele_mlflow.matrix.history import Execution, await_spooled, spooled_runs
from allele_mlflow.matrix.messages import (
    CellResult,
    decode,
    encode,
    failure_of,
)
from allele_mlflow.matrix.options import Beginning, RunOptions, SilentView, SuiteView
from allele_mlflow.matrix.plan import WAIT, Submit, SuitePlan
from allele_mlflow.matrix.prepared import Prepared, find_last
from allele_mlflow.matrix.results import Outcome, TrialRow, row_of
from allele_mlflow.matrix.suite_runs import cell_request, start_suite_log
from allele_mlflow.matrix.trial import SECONDS_METRIC
from allele_mlflow.queue import spool
from allele_mlflow.queue.archive import is_abandoned
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings
from allele_mlflow.sidecar import launch
from allele_mlflow.sidecar.profile import profile_of

#: How often a display is asked to show what is new.
TICK_S = 0.2
#: How long a runner that goes on waits for what its own spool still holds.
SPOOLED_S = 60.0


class SuiteRunner:
    """
    One execution of a suite, or the next part of one. Use `run` once.

    Args:
        prepared: What to run.
        options: How.
        settings: Of the logger; cells get the same.
        view: Told what happens.
        finish: Called with the outcome and the suite's own logger before that closes: what it logs
            there is the suite's.
    """

    def __init__(
        self,
        prepared: Prepared,
        options: RunOptions,
        settings: Settings,
        *,
        view: SuiteView | None = None,
        finish: Callable[[Outcome, RunLogger], None] | None = None,
    ) -> None:
        self._prepared = prepared
        self._suite = prepared.suite
        self._options = options
        wanted = options.is_tracked
        is_tracked = settings.auto_experiment_tracking if wanted is None else wanted
        self._settings = settings
        self._is_tracked = is_tracked and settings.enabled
        self._view: SuiteView = view or SilentView()
        self._finish = finish
        self._results: queue.SimpleQueue[tuple[Trial, int, Future[bytes]]] = queue.SimpleQueue()
        self._rows: dict[tuple[str, int], TrialRow] = {}
        self._outcome = Outcome(prepared)
        self._futures: set[Future[bytes]] = set()
        self._is_exclusive = prepared.suite.exclusive or options.is_exclusive

    def run(self) -> Outcome:
        """
        Run all there is to run; what became of it. Ctrl-C stops it, and it can be resumed.

        Raises:
            MatrixError: nothing to go on with, or no such executor.
            TrackingError: what was there before cannot be read.
        """
        cells = self._prepared.cells
        if self._options.only is not None:
            cells = select_cells(cells, self._options.only)
        last = self._find_last()
        began_s = now_monotonic_s()
        supervisor.stopping.clear()
        with contextlib.ExitStack() as closing:
            if self._is_exclusive:
                closing.enter_context(hold_machine(self._view.say))
            executor = open_executor(self._executor_name, self._prepared.folder)
            closing.callback(self._close, executor)
            self._outcome.is_local = executor.is_local
            plan = SuitePlan(
                self._suite,
                cells,
                1 if self._is_exclusive else executor.width,
                past=last.past_trials() if last is not None else {},
                fails_fast=self._options.fails_fast,
                only_failed=self._options.retries_failed,
            )
            log = start_suite_log(
                self._prepared,
                self._settings,
                executor=executor.name,
                is_tracked=self._is_tracked,
                run_uid=last.run_uid if last is not None else None,
                run_name=self._options.run_name,
                told={tags.KIND: self._options.kind, **self._options.told},
            )
            with self._closing_log(log):
                self._perform(plan, executor, log)
                self._conclude(plan, cells, last, began_s)
                if self._finish is not None:
                    self._finish(self._outcome, log)
        return self._outcome

    @property
    def _executor_name(self) -> str:
        return self._options.executor or self._suite.executor

    def _find_last(self) -> Execution | None:
        if not (self._options.is_resumed or self._options.retries_failed):
            return None
        if not self._is_tracked:
            raise MatrixError(
                "nothing to go on with: the suite is not tracked", kind=ErrorKind.BAD_SUITE
            )
        self._await_spooled()
        last = find_last(self._prepared, self._settings)
        if last is None and self._options.retries_failed:
            raise MatrixError(
                f"suite {self._suite.name!r} has never been run in "
                f"{self._settings.experiment_prefix}{self._suite.name}: nothing to try again",
                kind=ErrorKind.BAD_SUITE,
            )
        return last

    def _await_spooled(self) -> None:
        """
        Have delivered what a killed runner left in this machine's spool.

        Raises:
            MatrixError: the runner is not gone.
        """
        name = self._suite.name
        scope = Path(self._settings.spool_dir) / spool.scope_name()
        waiting = spooled_runs(scope, {tags.SUITE: name})
        if not waiting:
            return
        for folder, told in waiting.items():
            if told.get(tags.KIND) == tags.RunKind.SUITE and not is_abandoned(folder):
                raise MatrixError(
                    f"suite {name!r} is running: want its end before another part of it begins",
                    kind=ErrorKind.BAD_SUITE,
                )
        self._view.say("waiting for runs of the last execution that are on their way to MLflow")
        profile = profile_of(scope, self._settings)
        with contextlib.suppress(SidecarError):  # then they wait, and the store tells what it has
            launch.ensure_sidecar(scope, profile, self._settings)
        await_spooled(scope, {tags.SUITE: name}, timeout_s=SPOOLED_S)

    # --- the suite's own run ---------------------------------------------------------------------

    @contextlib.contextmanager
    def _closing_log(self, log: RunLogger) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            log.__exit__(type(exc), exc, exc.__traceback__)
            raise
        if self._outcome.is_interrupted:
            log._close("KILLED", "KeyboardInterrupt", waits=log.settings.exit == "drain")
        else:
            log.close("FINISHED" if self._outcome.finished_count else "FAILED")

    # --- performing the plan ---------------------------------------------------------------------

    def _perform(self, plan: SuitePlan, executor: CellExecutor, log: RunLogger) -> None:
        handle = log.handle()
        parent = (handle, None) if executor.is_local else ("", log.run_id)
        step = plan.next()
        self._view.begin(
            Beginning(
                suite=self._suite.name,
                cell_count=len(plan.cells),
                total_count=plan.total_count,
                reused_count=plan.reused_count,
                executor=executor.name,
                width=plan.width,
                spool_runs=Path(handle).parent if handle else None,
                is_adaptive=self._suite.adaptive is not None,
            )
        )
        while step is not None:
            try:
                if isinstance(step, Submit):
                    self._submit(step, executor, parent, log)
                else:
                    self._await_result(plan, log)
                step = plan.next()
            except KeyboardInterrupt:
                if self._outcome.is_interrupted:
                    raise
                self._interrupt(plan, executor)
                step = WAIT if executor.is_local and self._futures else None

    def _interrupt(self, plan: SuitePlan, executor: CellExecutor) -> None:
        self._outcome.is_interrupted = True
        plan.stop()
        supervisor.stopping.set()
        running = sum(not future.done() for future in self._futures)
        if executor.is_local and running:
            self._view.say(
                f"interrupted: ending {running} running cells; Ctrl-C again to leave now"
            )

    def _submit(
        self,
        step: Submit,
        executor: CellExecutor,
        parent: tuple[str, str | None],
        log: RunLogger,
    ) -> None:
        trial, attempt = step
        request = cell_request(
            self._prepared,
            step,
            executor,
            log,
            settings=self._settings,
            parent=parent,
            is_tracked=self._is_tracked,
            kind=tags.CELLS_OF[self._options.kind],
        )
        self._view.submitted(trial, attempt)
        name = f"{log.run_uid}-{trial.cell.key}-{trial.repeat}-{attempt}"
        future = executor.submit(encode(request), name=name)
        self._futures.add(future)
        future.add_done_callback(lambda done: self._results.put((trial, attempt, done)))

    def _await_result(self, plan: SuitePlan, log: RunLogger) -> None:
        try:
            trial, attempt, future = self._results.get(timeout=TICK_S)
        except queue.Empty:
            self._view.tick()
            return
        self._futures.discard(future)
        result = self._result_of(trial, attempt, future)
        is_retried = plan.finished(trial, result)
        row = row_of(
            trial.cell,
            result,
            seed=repeat_seed(self._suite.seed, trial.repeat),
            order=trial.order,
        )
        if not (self._outcome.is_interrupted and result.failure is not None):
            self._rows[trial.identity] = row
            if result.failure is not None:
                self._outcome.failures.append((trial.cell.name, result.failure))
        done = sum(one.failure is None for one in self._rows.values())
        log.metrics({"suite/finished": done, "suite/failed": len(self._rows) - done})
        self._view.finished(trial, result, is_retried=is_retried, total=plan.total_count)

    def _result_of(self, trial: Trial, attempt: int, future: Future[bytes]) -> CellResult:
        try:
            return decode(future.result(), CellResult)
        except (Exception, CancelledError) as exc:  # noqa: BLE001 - a border: the executor is anybody's; it becomes the trial's failure
            return CellResult(
                cell_key=trial.cell.key,
                repeat=trial.repeat,
                attempt=attempt,
                run_uid="",
                status="failed",
                failure=failure_of(exc, note="the executor did not carry it: "),
            )

    # --- the end ---------------------------------------------------------------------------------

    def _conclude(
        self, plan: SuitePlan, cells: Sequence[Cell], last: Execution | None, began_s: float
    ) -> None:
        outcome = self._outcome
        rows = self._reused_rows(last) | self._rows
        place = {cell.key: number for number, cell in enumerate(self._prepared.cells)}
        outcome.rows = sorted(rows.values(), key=lambda row: (place[row.cell.key], row.repeat))
        tried = sum(identity in rows for identity in self._planned(cells))
        outcome.left_count = len(cells) * self._suite.repeats - tried if plan.is_stopped else 0
        outcome.seconds = now_monotonic_s() - began_s

    def _planned(self, cells: Sequence[Cell]) -> Iterator[tuple[str, int]]:
        for cell in cells:
            for repeat in range(self._suite.repeats):
                yield cell.key, repeat

    def _reused_rows(self, last: Execution | None) -> dict[tuple[str, int], TrialRow]:
        cells = {cell.key: cell for cell in self._prepared.cells}
        found: dict[tuple[str, int], TrialRow] = {}
        for run in last.runs if last is not None else ():
            identity = run.cell_key, run.repeat
            if run.cell_key in cells and run.is_finished and identity not in found:
                found[identity] = TrialRow(
                    cell=cells[run.cell_key],
                    repeat=run.repeat,
                    attempt=run.attempt,
                    seed=repeat_seed(self._suite.seed, run.repeat),
                    metrics={k: v for k, v in run.metrics.items() if k != SECONDS_METRIC},
                    run_uid=run.run_uid,
                    run_id=run.run_id,
                    seconds=run.metrics.get(SECONDS_METRIC),
                    is_reused=True,
                )
        return found

    def _close(self, executor: CellExecutor) -> None:
        is_waiting = not self._outcome.is_interrupted or (executor.is_local and not self._futures)
        with contextlib.suppress(AlleleMlflowError):
            executor.close(waits=is_waiting)
