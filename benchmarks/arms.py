"""
One arm of the overhead benchmark in a process of its own: short blocks with and without logging.

The program is the evolution at its natural rate: population 50, every genome's fitness by a call of
its own and three more a generation, about 4,800 metrics a second on an idle machine of this class.
A pair is the same few generations from the same seed, once with logging and once without.

    python benchmarks/arms.py ARM --folder F --store DB --pairs N --result R.json  (overhead.py)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import RunLogger, start_logger
from benchmarks.evolution import (
    Cell,
    Generation,
    MetricCall,
    PersonaFitness,
    PhaseCall,
    build_engine,
    drive,
    store_settings,
)
from benchmarks.paired import is_logging_first
from benchmarks.scratch import interrupt_once, scratch_folder

POPULATION = 50
MUTATION_RATE = 0.1
#: Generations of a block: some 35 ms on an idle machine.
BLOCK_GENERATIONS = 3
#: MLflow's own logging takes hundreds of milliseconds for one.
RIVAL_GENERATIONS = 1
#: Metrics a generation: one a genome, and best, mean, diversity.
METRICS_PER_GENERATION = POPULATION + 3
FLOOR_LENGTH = 10_000
EXIT_TIMEOUT_S = 180.0
SEED = 40_000


@dataclass
class Sink:
    """
    Where an arm's metrics go. `lost` is known when the sink is closed.
    """

    metric: MetricCall
    phase: PhaseCall | None = None
    drain: Callable[[], object] = field(default=lambda: None)
    lost: int = 0


@dataclass(frozen=True)
class ArmResult:
    """
    What an arm's process hands back. `log_ratios` and `cpu_log_ratios` have shape (pairs,): of the
    time, and of the CPU time of all threads of the process.
    """

    log_ratios: list[float]
    cpu_log_ratios: list[float]
    metrics_per_s: float
    block_ms: float
    lost: int


class Timing(NamedTuple):
    """
    What some generations took: seconds by the clock, and CPU seconds of the whole process.
    """

    elapsed_s: float
    cpu_s: float


def time_generations(cell: Cell, sink: Sink | None, *, evaluations: int = 1) -> Timing:
    """
    What a cell's generations take, with their metrics going to `sink` or nowhere.

    Args:
        cell: Its population, generations and seed.
        sink: Where metrics go.
        evaluations: How often the fitness of each genome is computed, for one metric: more of them
            make a program that logs less often.
    """
    fitness = PersonaFitness()
    metric = sink.metric if sink is not None else None
    following = count().__next__

    def evaluate(genome: Any) -> float:
        score = fitness(genome)
        for _ in range(evaluations - 1):
            fitness(genome)
        if metric is not None:
            metric("fitness/genome", score, following())
        return score

    def note(generation: Generation) -> None:
        if metric is not None:
            metric("fitness/best", generation.best, generation.step)
            metric("fitness/mean", generation.mean, generation.step)
            metric("diversity", generation.diversity, generation.step)

    phase = sink.phase if sink is not None else None
    engine, population = build_engine(cell, phase=phase, on_generation=note)
    gc.collect()  # what one block leaves behind is not the next one's to clear
    before_s, cpu_before_s = time.perf_counter(), time.process_time()
    drive(engine.evolve(population, evaluate))
    return Timing(time.perf_counter() - before_s, time.process_time() - cpu_before_s)


def run_pairs(
    sink: Sink | None, pairs: int, *, generations: int = BLOCK_GENERATIONS, warm_ups: int = 3
) -> ArmResult:
    """
    Time pairs of blocks. Without a sink both halves are the same: the null arm.
    """
    found: list[tuple[Timing, Timing]] = []
    orders = is_logging_first(pairs, seed=SEED)
    for number in range(-warm_ups, pairs):
        cell = Cell(POPULATION, MUTATION_RATE, generations, SEED + number)
        halves: dict[bool, Timing] = {}
        is_first = number < 0 or orders[number]
        for is_logging in (is_first, not is_first):
            halves[is_logging] = time_generations(cell, sink if is_logging else None)
            if is_logging and sink is not None:
                sink.drain()
        if number >= 0:
            found.append((halves[True], halves[False]))
            say_progress(number + 1, pairs)
    logging_s = sum(logged.elapsed_s for logged, _ in found)
    metrics = pairs * generations * METRICS_PER_GENERATION if sink is not None else 0
    return ArmResult(
        log_ratios=[math.log(logged.elapsed_s / plain.elapsed_s) for logged, plain in found],
        cpu_log_ratios=[math.log(logged.cpu_s / plain.cpu_s) for logged, plain in found],
        metrics_per_s=metrics / logging_s,
        block_ms=logging_s / pairs * 1e3,
        lost=0,
    )


def say_progress(done: int, total: int) -> None:
    """
    Tell overhead.py how far we are.
    """
    print(f"progress {done} {total}", flush=True)


# --- the arms -------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_floor(folder: Path) -> Iterator[Sink]:
    """
    The least that Python can do: a tuple into a bounded deque.
    """
    rows: deque[tuple[str, float, int, int]] = deque(maxlen=FLOOR_LENGTH)

    def metric(key: str, value: float, step: int) -> None:
        rows.append((key, value, step, time.time_ns()))

    yield Sink(metric)


@contextlib.contextmanager
def open_logger(folder: Path, *, delivery: str) -> Iterator[Sink]:
    """
    This project, phases included; delivery goes on through both halves of a pair.
    """
    settings = store_settings(folder) | {"exit_timeout_s": EXIT_TIMEOUT_S, "delivery": delivery}
    log = start_logger("overhead", run_name=delivery, idle_timeout_s=600.0, **settings)
    try:
        await_sidecar(log)
        sink = Sink(log.metric, phase=log.phase)
        yield sink
        report = log.close()
        if not report.is_complete:
            raise RuntimeError(f"not delivered in {EXIT_TIMEOUT_S:g} s: {report.line()}")
        sink.lost = report.ledger.lost
    except BaseException:
        log.detach()  # else the interpreter would wait for delivery at its end
        raise


def await_sidecar(log: RunLogger) -> None:
    """
    Wait until the sidecar has taken up a run (and, where it delivers live, made it in MLflow).

    Raises:
        RuntimeError: it has not, in time.
    """
    deadline_s = time.monotonic() + EXIT_TIMEOUT_S
    is_live = log.settings.delivery == "live"
    while (state := log.status()) is None or (is_live and state.run_id is None):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"no sidecar took up the run in {EXIT_TIMEOUT_S:g} s")
        time.sleep(0.01)


@contextlib.contextmanager
def open_mlflow(
    folder: Path, *, is_synchronous: bool, buffering_s: int | None = None
) -> Iterator[Sink]:
    """
    MLflow's own logging into the same kind of store, drained between blocks.
    """
    if buffering_s is not None:
        os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"] = str(buffering_s)
    import mlflow  # only the arms that measure it

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    location = str(folder / "mlflow_artifacts")
    experiment_id = mlflow.create_experiment("overhead", artifact_location=location)

    def metric(key: str, value: float, step: int) -> None:
        mlflow.log_metric(key, value, step=step, synchronous=is_synchronous)

    with mlflow.start_run(experiment_id=experiment_id):
        yield Sink(metric, drain=(lambda: None) if is_synchronous else mlflow.flush_async_logging)


@dataclass(frozen=True)
class Arm:
    """
    How an arm's sink is opened (None: no logging at all), and the size of its blocks.
    """

    open_sink: Callable[[Path], contextlib.AbstractContextManager[Sink]] | None
    generations: int = BLOCK_GENERATIONS
    warm_ups: int = 3


ARMS = {
    "null": Arm(None),
    "allele_mlflow": Arm(partial(open_logger, delivery="live")),
    "allele_mlflow_quiet": Arm(partial(open_logger, delivery="quiet")),
    "deque_floor": Arm(open_floor),
    "mlflow_sync": Arm(partial(open_mlflow, is_synchronous=True), RIVAL_GENERATIONS, 1),
    "mlflow_async": Arm(partial(open_mlflow, is_synchronous=False), RIVAL_GENERATIONS, 1),
    "mlflow_async_buffered": Arm(
        partial(open_mlflow, is_synchronous=False, buffering_s=1), RIVAL_GENERATIONS, 1
    ),
}


def measure_arm(name: str, folder: Path, pairs: int) -> ArmResult:
    """
    One arm, its spool and store in `folder`.
    """
    arm = ARMS[name]
    if arm.open_sink is None:
        return run_pairs(None, pairs)
    with arm.open_sink(folder) as sink:
        found = run_pairs(sink, pairs, generations=arm.generations, warm_ups=arm.warm_ups)
    return replace(found, lost=sink.lost)


def run_measurement(options: argparse.Namespace, measure: Callable[[Path], object]) -> int:
    """
    Call `measure` with a scratch folder that holds a fresh store, and write what it gives as JSON.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupt_once)
    gc.freeze()  # the libraries' objects stay; no need to look at them before every block
    try:
        with scratch_folder(options.folder) as folder:
            shutil.copyfile(options.store, folder / "mlflow.db")
            found = measure(folder)
    except KeyboardInterrupt:
        return 130
    options.result.write_text(json.dumps(found), encoding="utf-8")
    return 0


def add_measurement_options(parser: argparse.ArgumentParser) -> None:
    """
    What every process that measures is told.
    """
    parser.add_argument("--folder", type=Path, required=True, help="where to make the scratch")
    parser.add_argument("--store", type=Path, required=True, help="an empty MLflow database")
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--result", type=Path, required=True, help="the JSON to write")


def main() -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=ARMS)
    add_measurement_options(parser)
    options = parser.parse_args()
    return run_measurement(
        options, lambda folder: vars(measure_arm(options.arm, folder, options.pairs))
    )


if __name__ == "__main__":
    sys.exit(main())
