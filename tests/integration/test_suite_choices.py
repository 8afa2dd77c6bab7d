"""
What a suite may choose, through the command line: adaptive repeats, and workers of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest

from allele_mlflow import suite_tags as tags
from tests.integration.suites import Place, await_that, document

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(150)]

SCATTERED = '''
def run(number, mode, *, seed):
    """Mean 100; without scatter, or with so much that no few repeats know it."""
    return {"score": 100.0 + (0 if mode == "steady" else seed % 200 - 100)}
'''


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """
    A folder of its own.
    """
    return Place(tmp_path)


def processes_in(folder: Path) -> list[int]:
    """
    Those that were started there, but for a sidecar, which waits a while for another run.
    """
    return [
        one.pid
        for one in psutil.process_iter(["cmdline", "cwd"])
        if one.info["cwd"] == str(folder) and "sidecar" not in " ".join(one.info["cmdline"])
    ]


def test_adaptive_repeats_go_where_the_objective_is_not_known(place: Place) -> None:
    """
    Two repeats each are asked for: the steady cell is left at the least number that tells its
    scatter, the scattered one runs to `most_repeats`; each repeat is a run. A resume adds none.
    """
    suite = place.write(
        "adapting.toml",
        'repeats = 2\n[matrix]\nnumber = [1]\nmode = ["steady", "scattered"]\n'
        "[adaptive]\nhalf_width_ratio = 0.01\nconfidence = 0.95\nmost_repeats = 5",
    )
    (place.folder / "bench.py").write_text(SCATTERED)
    for options in ([], ["--resume"]):
        done = place.run("run", str(suite), "--json", *options)
        assert done.returncode == 0, done.stderr
        repeats = Counter(row["param.mode"] for row in document(done)["results"])
        assert repeats == {"steady": 3, "scattered": 5}
        stored = Counter((run.params["mode"], run.status) for run in place.cells())
        assert stored == {("steady", "FINISHED"): 3, ("scattered", "FINISHED"): 5}
        assert set(place.finished().values()) == {1}, "each repeat once"


def test_dask_workers_of_the_suites_own(place: Place) -> None:
    """
    `dask:local` starts its workers, gives the results and runs that any executor gives, and leaves
    no process behind.
    """
    suite = place.write("own.toml", "repeats = 2\n[matrix]\nnumber = [1, 2, 3]")
    done = place.run("run", str(suite), "--executor", "dask:local", "--json")
    assert done.returncode == 0, done.stderr
    assert [
        (row["param.number"], row["repeat"], row["metric.score"])
        for row in document(done)["results"]
    ] == [(number, repeat, float(number)) for number in (1, 2, 3) for repeat in (0, 1)]
    assert set(place.finished().values()) == {1}
    assert len(place.finished()) == 6
    assert {run.tags[tags.EXECUTOR] for run in place.cells()} == {"dask:local"}
    await_that(lambda: not processes_in(place.folder))
