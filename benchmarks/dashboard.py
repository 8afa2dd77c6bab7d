"""
How soon the dashboard's pages come on a store of 10,000 runs with 50 metrics each, what its server
needs of memory, and how far a live page is behind its run.

    python benchmarks/dashboard.py

Writes benchmarks/results/dashboard.json. A page's time is that from the request to the last byte;
rounds are so far apart that nothing of the round before is kept.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import psutil
from rich.console import Console

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow import start_logger
from allele_mlflow.dashboard.recent import KEPT_S
from allele_mlflow.settings import environment
from benchmarks.environment import describe_environment
from benchmarks.make_store import FilledStore, StoreShape, fill_store
from benchmarks.program import run_benchmark
from benchmarks.scratch import prepare_store, scratch_folder

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "dashboard.json"
ROUNDS = 5
LIVE_S, LOG_INTERVAL_S = 20.0, 0.02
DEADLINE_S = 120.0
KEY = "clock"
# behind the curve of the last readings stands the step
_STEP = re.compile(
    rf'scope="row">{KEY}</th>.*?</svg></td><td class="number">([\d,]+)</td>', re.DOTALL
)


class Inside(NamedTuple):
    """
    A browser that was let in.
    """

    base: str
    browser: OpenerDirector
    server: psutil.Process


@contextmanager
def served(folder: Path, uri: str) -> Iterator[Inside]:
    """
    The dashboard of a store as a process of its own.
    """
    command = "from allele_mlflow.cli.main import main; main()"
    own = {"ALLELE_MLFLOW_SPOOL_DIR": str(folder / "spool"), "XDG_STATE_HOME": str(folder)}
    server = subprocess.Popen(
        [sys.executable, "-c", command, "dashboard", "--port", "0", "--tracking-uri", uri],
        env=environment() | own,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        browser = build_opener(HTTPCookieProcessor(CookieJar()))
        browser.open(address, timeout=DEADLINE_S).read()
        yield Inside(address.partition("/?")[0], browser, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait(DEADLINE_S)
        server.stdout.close()


def paths_of(store: FilledStore) -> list[str]:
    """
    The pages, and what their figures are made of.
    """
    experiment, execution = f"/experiments/{store.experiment_id}", store.parent_run_id
    # of 10,000 runs these are 200
    rates = [
        f"{execution}[population_size < 110 and mutation_rate == {one}]" for one in (0.01, 0.3)
    ]
    return [
        "/",
        experiment,
        f"{experiment}/runs",
        f"{experiment}/runs?sort=-metric.fitness/best",
        f"{experiment}/runs?filter=mutation_rate+%3C+0.2",
        f"{experiment}/runs?group=mutation_rate&metric=fitness/best",
        f"{experiment}/trend",
        f"{experiment}/recommendations",
        f"/executions/{execution}",
        f"/executions/{execution}?filter=mutation_rate+%3C+0.2",
        f"/executions/{execution}?group=mutation_rate",
        f"/executions/{execution}/anytime?metric=fitness/best&direction=higher",
        f"/api/executions/{execution}/figures/cells.json",
        f"/runs/{execution}",
        "/compare",
        f"/compare?{urlencode({'base': rates[0], 'with': rates[1]})}",
        "/alerts",
        "/delivery",
        "/retention?registry=none",
    ]


def time_pages(inside: Inside, paths: list[str], rounds: int) -> list[dict[str, Any]]:
    """
    Seconds of each page, the first time and in later rounds.
    """
    taken: dict[str, list[float]] = {path: [] for path in paths}
    for number in range(rounds + 1):
        for path in paths:
            began_s = time.perf_counter()
            inside.browser.open(inside.base + path, timeout=DEADLINE_S).read()
            taken[path].append(time.perf_counter() - began_s)
        if number < rounds:
            time.sleep(KEPT_S + 1.0)
    return [
        {
            "path": re.sub(r"[0-9a-f]{32}", "ID", path),
            "first_s": round(seconds[0], 3),
            "median_s": round(statistics.median(seconds[1:]), 3),
            "max_s": round(max(seconds[1:]), 3),
        }
        for path, seconds in taken.items()
    ]


def measure_lag(inside: Inside, folder: Path, uri: str, seconds: float) -> dict[str, Any]:
    """
    How old the newest reading on a live page is when it arrives, and just before the next one.
    """
    lags, ages, last_s = [], [], 0.0
    with start_logger("live", tracking_uri=uri, spool_dir=str(folder / "spool")) as log:
        began_s = time.monotonic()
        is_over = threading.Event()

        def run() -> None:
            while not is_over.wait(LOG_INTERVAL_S):
                log.metric(KEY, 0.0, step=round(1000 * (time.monotonic() - began_s)))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            events = inside.browser.open(
                f"{inside.base}/runs/{log.run_uid}/live", timeout=DEADLINE_S
            )
            for line in events:
                found = _STEP.search(json.loads(line[6:])) if line.startswith(b"data: ") else None
                now_s = time.monotonic() - began_s
                if found is None or now_s < seconds / 4:
                    continue
                logged_s = int(found[1].replace(",", "")) / 1000
                lags.append(now_s - logged_s)
                ages += [now_s - last_s] if last_s else []
                last_s = logged_s
                if now_s > seconds:
                    break
        finally:
            is_over.set()
            thread.join()
    return {
        "events": len(lags),
        "lag_median_s": round(statistics.median(lags), 3),
        "lag_max_s": round(max(lags), 3),
        "age_max_s": round(max(ages), 3),
    }


def measure(is_quick: bool) -> dict[str, Any]:
    """
    All of it; the report.
    """
    shape = StoreShape(runs=200, metrics=5) if is_quick else StoreShape()
    with scratch_folder() as folder:
        path = folder / "mlflow.db"
        prepare_store(path)
        store = fill_store(path, shape)
        with served(folder, store.uri) as inside:
            pages = time_pages(inside, paths_of(store), 1 if is_quick else ROUNDS)
            live = measure_lag(inside, folder, store.uri, 12.0 if is_quick else LIVE_S)
            status = Path(f"/proc/{inside.server.pid}/status").read_text(encoding="ascii")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return {
        "format": 1,
        "runs": shape.runs,
        "metrics": shape.metrics,
        "pages": pages,
        "live": live,
        "peak_rss_mb": round(int(peak[1]) * 1024 / 1e6) if peak else None,
        # pandas loads it where it is there: some 50 MB
        "has_pyarrow": find_spec("pyarrow") is not None,
        "environment": describe_environment(ROOT),
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """
    The numbers as a person reads them.
    """
    console.print(f"{report['runs']} runs of {report['metrics']} metrics; first, median, max in s")
    for page in report["pages"]:
        numbers = f"{page['first_s']:7.3f} {page['median_s']:7.3f} {page['max_s']:7.3f}"
        console.print(f"  {numbers}  {page['path']}", markup=False, highlight=False)
    console.print(f"live: {report['live']}", markup=False)
    console.print(f"peak memory of the server: {report['peak_rss_mb']} MB")


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    return run_benchmark(
        arguments,
        description="How soon the dashboard's pages come.",
        output=OUTPUT,
        measure=lambda is_quick, console: measure(is_quick),
        show=print_report,
    )


if __name__ == "__main__":
    sys.exit(main())
