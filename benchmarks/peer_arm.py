"""
One tracker in a process and an environment of its own: what a call costs, its exit, its overhead.

    python benchmarks/peer_arm.py PEER --folder F --store DB --pairs N --calls-s S --result R.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not benchmarks/ itself

from allele_mlflow import start_logger
from benchmarks.arms import (
    EXIT_TIMEOUT_S,
    RIVAL_GENERATIONS,
    Sink,
    add_measurement_options,
    await_sidecar,
    run_measurement,
    run_pairs,
)
from benchmarks.evolution import MetricCall, store_settings

#: So many calls are measured at most.
MOST_CALLS = 50_000
BLOCK = 50
KEYS = 5


@contextlib.contextmanager
def open_ours(folder: Path) -> Iterator[MetricCall]:
    """
    This project.
    """
    settings = store_settings(folder) | {"exit_timeout_s": EXIT_TIMEOUT_S}
    log = start_logger("peers", idle_timeout_s=0.0, overhead_budget_percent=100, **settings)
    try:
        await_sidecar(log)
        yield log.metric
        log.close()
    except BaseException:
        log.detach()
        raise


@contextlib.contextmanager
def open_mlflow(folder: Path) -> Iterator[MetricCall]:
    """
    `mlflow.log_metric`, as it comes.
    """
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    location = str(folder / "mlflow_artifacts")
    experiment_id = mlflow.create_experiment("peers", artifact_location=location)
    with mlflow.start_run(experiment_id=experiment_id):
        yield lambda key, value, step: mlflow.log_metric(key, value, step=step)


@contextlib.contextmanager
def open_wandb(folder: Path) -> Iterator[MetricCall]:
    """
    Weights & Biases, offline.
    """
    import wandb

    run = wandb.init(
        project="peers", mode="offline", dir=folder, settings=wandb.Settings(silent=True)
    )
    yield lambda key, value, step: run.log({key: value})
    run.finish()


@contextlib.contextmanager
def open_trackio(folder: Path) -> Iterator[MetricCall]:
    """
    Trackio, into its local database.
    """
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    import trackio

    trackio.init(project="peers", embed=False)
    yield lambda key, value, step: trackio.log({key: value})
    trackio.finish()


@contextlib.contextmanager
def open_neptune(folder: Path) -> Iterator[MetricCall]:
    """
    Neptune Scale, offline.
    """
    from neptune_scale import Run

    with Run(
        project="peers/peers", run_id="peer", mode="offline", log_directory=folder / "neptune"
    ) as run:
        yield lambda key, value, step: run.log_metrics({key: value}, step=step)


@contextlib.contextmanager
def open_aim(folder: Path) -> Iterator[MetricCall]:
    """
    Aim, into its local repository.
    """
    from aim import Run

    run = Run(repo=str(folder / "aim"), system_tracking_interval=None, log_system_params=False)
    yield lambda key, value, step: run.track(value, name=key, step=step)
    run.close()


@contextlib.contextmanager
def open_tensorboardx(folder: Path) -> Iterator[MetricCall]:
    """
    TensorBoardX's summary writer.
    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(logdir=str(folder / "tensorboard")) as writer:
        yield writer.add_scalar


@contextlib.contextmanager
def open_swanlab(folder: Path) -> Iterator[MetricCall]:
    """
    SwanLab, offline.
    """
    import swanlab

    swanlab.init(project="peers", mode="offline", logdir=str(folder / "swanlab"))
    yield lambda key, value, step: swanlab.log({key: value}, step=step)
    swanlab.finish()


#: How each is opened. Its requirement stands in peers.py.
PEERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[MetricCall]]] = {
    "allele-mlflow": open_ours,
    "mlflow": open_mlflow,
    "wandb": open_wandb,
    "trackio": open_trackio,
    "neptune-scale": open_neptune,
    "aim": open_aim,
    "tensorboardX": open_tensorboardx,
    "swanlab": open_swanlab,
}


def measure_peer(name: str, folder: Path, pairs: int, calls_s: float) -> dict[str, Any]:
    """
    Everything of one tracker.

    Units: `block_ns` nanoseconds a call, each the mean of a block of calls; `cpu_us_per_metric` CPU
    of all threads of the process, from the first call to the end of closing; `exit_s` seconds.
    """
    blocks = []
    with contextlib.ExitStack() as stack:
        metric = stack.enter_context(PEERS[name](folder))
        keys = [f"key/{number}" for number in range(KEYS)]
        for step in range(BLOCK):  # what the first calls set up is not a call's cost
            metric("warm", 0.5, step)
        cpu_s, begin_s, step = time.process_time(), time.perf_counter(), 0
        while step < MOST_CALLS and time.perf_counter() - begin_s < calls_s:
            before = time.perf_counter_ns()
            for number in range(step, step + BLOCK):
                metric(keys[number % KEYS], 0.5, number)
            blocks.append((time.perf_counter_ns() - before) / BLOCK)
            step += BLOCK
        closing_s = time.perf_counter()
        stack.close()
    ended_s, cpu_s = time.perf_counter(), time.process_time() - cpu_s
    found: dict[str, Any] = {
        "calls": step,
        "block_ns": sorted(blocks),
        "cpu_us_per_metric": cpu_s / step * 1e6,
        "exit_s": ended_s - closing_s,
    }
    own = folder / "overhead"
    own.mkdir()
    (own / "mlflow.db").write_bytes((folder / "empty.db").read_bytes())
    with PEERS[name](own) as metric:
        result = run_pairs(Sink(metric), pairs, generations=RIVAL_GENERATIONS, warm_ups=1)
    return found | {"overhead": asdict(result)}


def main() -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    add_measurement_options(parser)
    parser.add_argument("--calls-s", type=float, required=True, help="how long to call it")
    options = parser.parse_args()

    def measure(folder: Path) -> object:
        (folder / "empty.db").write_bytes(options.store.read_bytes())
        return measure_peer(options.peer, folder, options.pairs, options.calls_s)

    return run_measurement(options, measure)


if __name__ == "__main__":
    sys.exit(main())
