"""
The dashboard's process as it is measured: what an answer takes by the clock and of the processors,
what it holds in memory, and how late its live page is.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import psutil

from allele_mlflow import start_logger
from allele_mlflow.settings import PREFIX, Settings, environment
from benchmarks.scratch import cpu_seconds

START = "from allele_mlflow.cli.main import main; main()"
DEADLINE_S = 120.0
#: Readings of the run that is followed come so often.
READING_INTERVAL_S = 0.7
FIRST_VALUE = 1000


class Answer(NamedTuple):
    """
    One answer: its body, seconds by the clock, and CPU seconds of the server meanwhile.
    """

    body: bytes
    wall_s: float
    cpu_s: float


class Server:
    """
    A dashboard that was started, and a browser that was let in.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        begin_s = time.perf_counter()
        self._process = process
        self._usage = psutil.Process(process.pid)
        self._browser = httpx.Client(timeout=DEADLINE_S)
        address = self.next_address()
        self.base = address.partition("/?")[0]
        self._browser.get(address, follow_redirects=True).raise_for_status()
        self.started_s = time.perf_counter() - begin_s

    def next_address(self) -> str:
        """
        Lets one browser in.
        """
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, path: str) -> Answer:
        """
        The whole answer to a request.

        Raises:
            RuntimeError: it is no good one.
        """
        before_s, begin_s = cpu_seconds(self._usage), time.perf_counter()
        answer = self._browser.get(self.base + path)
        wall_s = time.perf_counter() - begin_s
        if not answer.is_success:
            raise RuntimeError(f"{path}: HTTP {answer.status_code}: {answer.text[-500:]}")
        return Answer(answer.content, wall_s, cpu_seconds(self._usage) - before_s)

    def rss_mb(self) -> float:
        """
        What it holds now, in MB (10^6).
        """
        return round(self._usage.memory_info().rss / 1e6, 1)

    def measure_lags(self, settings: Settings, readings: int) -> list[float]:
        """
        Seconds from `log.metric` to the event of the live page that has its value, of so many.
        """
        lags = []
        with start_logger("live", settings=settings) as log:
            log.metric("beat", FIRST_VALUE, 0)
            address = f"{self.base}/runs/{log.run_uid}/live"
            with self._browser.stream("GET", address) as events:
                lines = events.iter_lines()
                for number in range(1, readings + 1):
                    time.sleep(READING_INTERVAL_S)
                    begin_s = time.perf_counter()
                    log.metric("beat", FIRST_VALUE + number, number)
                    shown = f">{FIRST_VALUE + number}<"
                    next(line for line in lines if shown in line)
                    lags.append(time.perf_counter() - begin_s)
        return lags


@contextmanager
def opened_server(settings: Settings) -> Iterator[Server]:
    """
    `allele-mlflow dashboard` on this store, to the end of the block.
    """
    names = ("tracking_uri", "model_registry_uri", "experiment_prefix", "spool_dir")
    given = {f"{PREFIX}{name.upper()}": str(getattr(settings, name)) for name in names}
    process = subprocess.Popen(
        [sys.executable, "-c", START, "dashboard", "--port", "0"],
        env=environment() | given,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
