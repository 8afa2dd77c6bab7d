"""
A program with many runs open at once: `python -m allele_mlflow.drill.many_runs UNTIL GATE RUNS
READINGS`. Starts no sidecar before the file GATE is there, prints the uids of its runs, and ends
them when the file UNTIL is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from allele_mlflow.clock import pause_s
from allele_mlflow.drill.workload import hold_sidecars, use_small_segments
from allele_mlflow.logger import start_logger

POLL_S = 0.05


def main() -> None:
    """
    Log into all of them in turn, then wait for the end.
    """
    until, gate, runs, readings = sys.argv[1:]
    use_small_segments()
    hold_sidecars(Path(gate))
    logs = [start_logger("drill", exit="detach") for _ in range(int(runs))]
    sys.stdout.write(" ".join(log.run_uid for log in logs) + "\n")
    sys.stdout.flush()
    for step in range(int(readings)):
        for log in logs:
            log.metric("reading", float(step), step)
        pause_s(0.01)
    while not Path(until).exists():
        pause_s(POLL_S)
    for log in logs:
        log.close()


if __name__ == "__main__":
    main()
