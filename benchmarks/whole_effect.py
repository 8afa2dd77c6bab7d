"""
The whole effect of logging: seconds-long phases with a sidecar that delivers, against nothing.

Short blocks cannot see what the sidecar costs, for it drains through both halves of a pair. Here a
round has three phases in random order, the same generations from the same seed: without any logging
while the sidecar is drained and idle, with live delivery, with quiet delivery. Each logging phase
is a run of its own; its start, its drain and its close lie outside the timed window.

    python benchmarks/whole_effect.py --folder F --store DB --pairs N --result R.json  (overhead.py)
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import RunLogger, start_logger
from benchmarks.arms import (
    EXIT_TIMEOUT_S,
    METRICS_PER_GENERATION,
    MUTATION_RATE,
    POPULATION,
    Sink,
    add_measurement_options,
    await_sidecar,
    run_measurement,
    say_progress,
    time_generations,
)
from benchmarks.evolution import Cell, store_settings
from benchmarks.scratch import cpu_seconds, find_sidecar, scopes_below

#: Name in the JSON, and the setting.
DELIVERIES = {"whole_effect": "live", "whole_effect_quiet": "quiet"}
CALIBRATION_GENERATIONS = 20
CALIBRATION_EVALUATIONS = 10
SEED = 80_000
#: The sidecar counts as idle when it uses no more than this in one look; longest wait for that.
IDLE_LOOK_S = 0.1
IDLE_CPU_S = 0.011
IDLE_DEADLINE_S = 3.0


@dataclass
class WholeEffect:
    """
    What one way of delivery cost. `log_ratios` has shape (pairs,).

    Units: `sidecar_cpu_percent` of one core while the timed phases ran;
    `sidecar_cpu_us_per_metric` from the begin of a phase until all of it was delivered.
    """

    log_ratios: list[float] = field(default_factory=list)
    logging_s: float = 0.0
    metrics: int = 0
    delivered: int = 0
    lost: int = 0
    cpu_in_phase_s: float = 0.0
    cpu_until_drained_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """
        The numbers that a reader wants, and the raw ones.
        """
        return asdict(self) | {
            "metrics_per_s": self.metrics / self.logging_s,
            "sidecar_cpu_percent": self.cpu_in_phase_s / self.logging_s * 100.0,
            "sidecar_cpu_us_per_metric": self.cpu_until_drained_s / max(1, self.delivered) * 1e6,
        }


class WholeMeasurement:
    """
    Rounds of three phases in one process, with one warm sidecar.
    """

    def __init__(self, folder: Path, phase_s: float, rate_per_s: float | None) -> None:
        self._evaluations = 1
        self.effects = {name: WholeEffect() for name in DELIVERIES}
        self._settings = store_settings(folder) | {
            "exit_timeout_s": EXIT_TIMEOUT_S,
            "idle_timeout_s": 600.0,
        }
        self._generations = CALIBRATION_GENERATIONS
        self._sidecar: psutil.Process | None = None
        for delivery in DELIVERIES.values():  # the first run makes the sidecar import MLflow
            self._log_phase(WholeEffect(), delivery, self._cell(-1))
        self._sidecar = find_sidecar(scopes_below(folder)[0])
        if self._sidecar is None:
            raise RuntimeError(f"no sidecar in {folder}")
        if rate_per_s is not None:
            self._evaluations = self._evaluations_for(METRICS_PER_GENERATION / rate_per_s)
        calibration_s = self._generation_s()
        self._generations = max(CALIBRATION_GENERATIONS, round(phase_s / calibration_s))

    def run_round(self, number: int) -> None:
        """
        All three phases once, in an order of their own.
        """
        names: list[str | None] = [None, *DELIVERIES]
        random.Random(SEED + number).shuffle(names)
        cell = self._cell(number)
        elapsed_s: dict[str | None, float] = {}
        for name in names:
            self._settle()
            if name is None:
                elapsed_s[name] = self._time(cell, None)
            else:
                elapsed_s[name] = self._log_phase(self.effects[name], DELIVERIES[name], cell)
        for name, effect in self.effects.items():
            effect.log_ratios.append(math.log(elapsed_s[name] / elapsed_s[None]))

    def _time(self, cell: Cell, sink: Sink | None) -> float:
        return time_generations(cell, sink, evaluations=self._evaluations).elapsed_s

    def _evaluations_for(self, wanted_s: float) -> int:
        """
        How often to compute each genome's fitness so that a generation takes so long.
        """
        once_s = self._generation_s()
        self._evaluations = 1 + CALIBRATION_EVALUATIONS
        each_s = (self._generation_s() - once_s) / CALIBRATION_EVALUATIONS
        return 1 + max(0, round((wanted_s - once_s) / each_s))

    def _generation_s(self) -> float:
        return self._time(self._cell(-1), None) / CALIBRATION_GENERATIONS

    def _cell(self, number: int) -> Cell:
        return Cell(POPULATION, MUTATION_RATE, self._generations, SEED + number)

    def _log_phase(self, effect: WholeEffect, delivery: str, cell: Cell) -> float:
        log = start_logger(
            "overhead", run_name=f"whole {delivery}", delivery=delivery, **self._settings
        )
        try:
            await_sidecar(log)
            self._settle()
            elapsed_s = self._time_logging(effect, log, cell)
        except BaseException:
            log.detach()
            raise
        report = log.close()
        effect.lost += report.ledger.lost
        effect.delivered += report.ledger.delivered.get("metric", 0)
        if not report.is_complete:
            raise RuntimeError(f"not delivered in {EXIT_TIMEOUT_S:g} s: {report.line()}")
        return elapsed_s

    def _time_logging(self, effect: WholeEffect, log: RunLogger, cell: Cell) -> float:
        begin_s = self._sidecar_cpu_s()
        elapsed_s = self._time(cell, Sink(log.metric, phase=log.phase))
        end_s = self._sidecar_cpu_s()
        log.flush()
        effect.logging_s += elapsed_s
        effect.metrics += cell.generations * METRICS_PER_GENERATION
        effect.cpu_in_phase_s += end_s - begin_s
        effect.cpu_until_drained_s += self._sidecar_cpu_s() - begin_s
        return elapsed_s

    def _sidecar_cpu_s(self) -> float:
        return cpu_seconds(self._sidecar) if self._sidecar is not None else 0.0

    def _settle(self) -> None:
        deadline_s = time.monotonic() + IDLE_DEADLINE_S
        while self._sidecar is not None and time.monotonic() < deadline_s:
            before_s = self._sidecar_cpu_s()
            time.sleep(IDLE_LOOK_S)
            if self._sidecar_cpu_s() - before_s <= IDLE_CPU_S:
                return


def measure_whole(
    folder: Path, rounds: int, *, phase_s: float, longest_s: float, rate_per_s: float | None
) -> dict[str, dict[str, Any]]:
    """
    As many rounds as were asked for, or as fit into `longest_s`.

    Args:
        folder: Of store and spool.
        rounds: How many.
        phase_s: Length of a phase.
        longest_s: Time for all of them.
        rate_per_s: About how many metrics a second the program logs; None for as many as it does.
    """
    deadline_s = time.monotonic() + longest_s
    measurement = WholeMeasurement(folder, phase_s, rate_per_s)
    for number in range(rounds):
        measurement.run_round(number)
        say_progress(number + 1, rounds)
        if number > 0 and time.monotonic() > deadline_s:
            break
    return {name: effect.as_json() for name, effect in measurement.effects.items()}


def main() -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    add_measurement_options(parser)
    parser.add_argument("--phase-s", type=float, default=3.0)
    parser.add_argument("--longest-s", type=float, default=math.inf)
    parser.add_argument("--rate-per-s", type=float)
    options = parser.parse_args()
    return run_measurement(
        options,
        lambda folder: measure_whole(
            folder,
            options.pairs,
            phase_s=options.phase_s,
            longest_s=options.longest_s,
            rate_per_s=options.rate_per_s,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
