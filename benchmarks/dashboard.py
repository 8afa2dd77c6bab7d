"""
How fast the dashboard answers on a large store, what it holds in memory, and how late its live page
is.

A server of its own is started on `dashboard_store`'s store, and each page is asked for: as HTML, as
JSON and for its figures, once in a process that has just begun and then in turns of random order,
none of which is served by what the server keeps for some seconds. Where there is a Chromium, the
same pages are opened in it for their first contentful paint. The live page is followed while this
process logs to a run.

    python benchmarks/dashboard.py            ten minutes (make bench-dashboard)
    python benchmarks/dashboard.py --quick    tiny, to see that it runs

Writes benchmarks/results/dashboard.json; benchmarks/README.md says how to read it.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allele_mlflow.dashboard.recent import KEPT_S
from benchmarks.dashboard_browser import measure_paints
from benchmarks.dashboard_live import measure_lag
from benchmarks.dashboard_server import Server, opened_server
from benchmarks.dashboard_store import DashboardShape, fill_dashboard
from benchmarks.dashboard_views import Asked, asked_views
from benchmarks.environment import describe_environment, is_busy
from benchmarks.program import run_benchmark
from benchmarks.scratch import PARENT, scratch_folder

OUTPUT = Path(__file__).resolve().parent / "results" / "dashboard.json"
SEED = 7


class Plan(NamedTuple):
    """
    How large the store is, how often each page is asked for, and how many readings are awaited.
    """

    shape: DashboardShape
    turns: int
    readings: int


FULL = Plan(DashboardShape(), 5, 40)
QUICK = Plan(DashboardShape(4, 40, 4, 3, 2, 10), 1, 2)


class Taken(NamedTuple):
    """
    What one answer took, by the clock and of the server's processors.
    """

    wall_s: float
    cpu_s: float


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """
    Everything; the report.
    """
    with scratch_folder(PARENT) as folder, console.status("filling the store"):
        store = fill_dashboard(folder, plan.shape)
        report: dict[str, Any] = {
            "format": 1,
            "environment": describe_environment(folder),
            "store": store.rows | plan.shape._asdict(),
        }
        views = asked_views(store)
        with opened_server(store.settings) as server:
            report["start_s"] = round(server.started_s, 2)
            report["rss_mb_at_start"] = server.rss_mb()
            report["answers"] = _ask_all(server, views, plan.turns)
            report["rss_mb_after_walk"] = server.rss_mb()
            report["paints_ms"] = measure_paints(server, views, plan.turns)
            report["rss_mb"] = server.rss_mb()
            report["rss_mb_peak"] = server.peak_rss_mb()
            report["live_lag_s"] = measure_lag(server, store.settings, plan.readings)
        report["load_average_after"] = [round(one, 2) for one in psutil.getloadavg()]
    return report


def _ask_all(server: Server, views: Sequence[Asked], turns: int) -> dict[str, Any]:
    """
    Each address: first in a fresh process, then in turns.
    """
    addresses = [(view.name, kind, path) for view in views for kind, path in view.paths()]
    taken: dict[tuple[str, str], list[Taken]] = {}
    sizes: dict[tuple[str, str], int] = {}
    chance = random.Random(SEED)
    for turn in range(1 + turns):
        if turn:
            time.sleep(KEPT_S)
        # HTML first: what a page keeps for its figures is not what is measured of the page
        order = addresses if not turn else _by_kind(addresses, chance)
        for name, kind, path in order:
            answer, found = server.timed(path)
            taken.setdefault((name, kind), []).append(found)
            sizes[name, kind] = len(answer)
    return {}
