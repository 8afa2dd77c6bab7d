"""
Which runs give up their artifacts, and which of their files: tables of what there is to what goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from allele_mlflow.clock import utc_iso
from allele_mlflow.registry.reachability import KnownRun, KnownRuns, Root, reach, whole
from allele_mlflow.registry.retention import (
    CLOCK_TOLERANCE_MS,
    MS_PER_DAY,
    Decision,
    Mark,
    Rules,
    Verdict,
    begin_mark,
    best_runs,
    clock_problem,
    decide,
    read_mark,
    weigh,
)
from allele_mlflow.registry.retention_files import going_files, going_paths, unsafe_roots
from allele_mlflow.units import Direction

NOW_MS = 1_790_000_000_000
MONTH = Rules(older_than_days=30)


def run(run_id: str, *, days: float = 45.0, **more: Any) -> KnownRun:
    """
    A run of ours that is over since so many days.
    """
    ended_ms = round(NOW_MS - days * MS_PER_DAY)
    told: dict[str, Any] = {
        "experiment": "sorting",
        "name": run_id,
        "status": "FINISHED",
        "artifact_uri": f"/store/{run_id}/artifacts",
        "started_ms": ended_ms - 1000,
        "ended_ms": ended_ms,
        "uid": f"uid-{run_id}",
    }
    return KnownRun(run_id=run_id, **told | more)


def verdicts(
    *runs: KnownRun, rules: Rules = MONTH, roots: tuple[Root, ...] = (), **more: Any
) -> dict[str, str]:
    """
    What becomes of each.
    """
    known = KnownRuns(runs)
    reached = reach(roots, known.references())
    decisions = decide(known, runs, reached, rules, now_ms=NOW_MS, **more)
    return {one.run.run_id: one.verdict.value for one in decisions}


def mark(state: str, *, files: int = 3, days: float = 10.0) -> str:
    """
    The tag of a run that was cleaned up so many days ago.
    """
    time = utc_iso(round(NOW_MS - days * MS_PER_DAY) * 1_000_000)
    told = {"state": state, "time": time, "files": files, "size_bytes": 300, "why": "old"}
    return msgspec.json.encode({"format": 1, **told}).decode()


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, "deleted"),
        ({"days": 29.0}, "young"),
        ({"days": 30.0}, "young"),
        ({"status": "RUNNING"}, "goes_on"),
        ({"status": "FAILED"}, "deleted"),
        ({"kind": "suite"}, "report"),
        ({"kind": "confirmation"}, "report"),
        ({"kind": "cell"}, "deleted"),
        ({"uid": None}, "foreign"),
        ({"ended_ms": None}, "unclear"),
        ({"artifact_uri": "/elsewhere"}, "unclear"),
        ({"artifact_uri": "relative/a/artifacts"}, "unclear"),
        ({"artifact_uri": "/x/../store/a/artifacts"}, "unclear"),
        ({"artifact_uri": "s3://bucket/a/artifacts"}, "deleted"),
        ({"retention": mark("done")}, "cleaned"),
        ({"retention": mark("done", days=50.0)}, "deleted"),
        ({"retention": mark("begun")}, "deleted"),
        ({"retention": "no mark"}, "deleted"),
        ({"parent": "gone"}, "deleted"),
    ],
)
def test_one_run(more: Mapping[str, Any], verdict: str) -> None:
    """Over, ours, old and in a folder of its own: only then it goes."""
    assert verdicts(run("a", **more)) == {"a": verdict}


def test_runs_of_others_go_when_asked() -> None:
    """With `is_foreign` who made a run does not count; whether it goes on still does."""
    rules = replace(MONTH, is_foreign=True)
    assert verdicts(run("a", uid=None), rules=rules) == {"a": "deleted"}
    assert verdicts(run("a", uid=None, status="RUNNING"), rules=rules) == {"a": "goes_on"}


def test_deleted_runs_are_left_to_mlflow() -> None:
    """A run that was deleted in MLflow can be restored there: it is not looked at."""
    assert verdicts(run("a", is_active=False)) == {}


def test_cells_of_a_suite_that_goes_on_stay() -> None:
    """Whoever resumes a suite finds its cells."""
    suite = run("s", kind="suite", status="RUNNING")
    assert verdicts(suite, run("c", kind="cell", execution="uid-s", parent="s"))["c"] == "goes_on"


@pytest.mark.parametrize(
    ("root", "kept"),
    [
        (whole("s"), {"s", "c1", "c2"}),
        ("c1", {"s", "c1"}),
        (whole("c1"), {"s", "c1"}),
        ("s", {"s"}),
        (whole("k"), {"k", "k1", "b", "b1"}),
        ("k", {"k", "b"}),
        ("p", {"p", "c2", "s"}),
    ],
)
def test_what_a_root_reaches(root: str, kept: set[str]) -> None:
    """A suite reaches its cells where the whole of it is meant; a cell its suite; a confirmation
    its baseline, whole where it is whole; a run whom its tags name.
    """
    runs = [
        run("s", kind="suite"),
        run("c1", kind="cell", parent="s", execution="uid-s"),
        run("c2", kind="cell", execution="uid-s"),
        run("k", kind="confirmation", named=("uid-b",)),
        run("k1", kind="confirmation_cell", parent="k", execution="uid-k"),
        run("b", kind="confirmation"),
        run("b1", kind="confirmation_cell", parent="b", execution="uid-b"),
        run("p", named=("c2",)),
        run("alone"),
    ]
    found = verdicts(*runs, roots=(Root(root, "why"),))
    assert {name for name, verdict in found.items() if verdict == "reached"} == kept
    assert found["alone"] == "deleted"


def test_what_a_name_can_mean() -> None:
    """Evidence by name keeps all that the name may mean, and cells whose suite's run is gone."""
    runs = KnownRuns(
        [
            run("s", kind="suite", name="sorting"),
            run("other", experiment="tests_words"),
            run("orphan", parent="gone", experiment="tests_words"),
        ]
    )
    assert runs.meant("sorting") == [whole("s")]
    assert runs.meant("words", prefix="tests_") == [whole("other"), whole("orphan")]
    assert runs.meant("uid-s") == [whole("s")]
    assert runs.meant("gone") == [whole("gone")]
    assert runs.meant("nothing") == []
    assert "orphan" in reach([Root(whole("gone"), "why")], runs.references())


def test_the_last_executions_stay() -> None:
    """Of each suite the newest executions with all their cells; of runs of no suite the newest."""
    runs = [
        run(f"{name}{number}", kind="cell", suite="a", execution=name, days=40 + age)
        for age, name in enumerate("xyz")
        for number in (1, 2)
    ]
    runs += [run("k", kind="confirmation_cell", suite="a", execution="c", days=90)]
    runs += [run("plain1", days=41), run("plain2", days=42), run("plain3", days=43)]
    found = verdicts(*runs, rules=replace(MONTH, keep_last=2))
    gone = {name for name, verdict in found.items() if verdict == "deleted"}
    assert gone == {"z1", "z2", "plain3"}
    assert found["k"] == "last"


def test_the_best_of_each_cell_stay() -> None:
    """By direction, finished runs alone, no NaN; of equals the newer."""
    runs = [run(f"r{number}", cell="one", days=40 + number) for number in range(5)]
    runs += [run("f", cell="one", status="FAILED"), run("other", cell="two")]
    values = {
        "score": {"r0": 1.0, "r1": 3.0, "r2": math.nan, "r3": 2.0, "r4": 3.0, "f": 9.0, "other": 0},
        "seconds": {"r0": 1.0, "r1": 9.0},
        "shown": {"r3": 100.0},
    }
    directions = {"score": Direction.HIGHER, "seconds": Direction.LOWER}

    def direction_of(one: KnownRun, metric: str) -> Direction:
        return directions.get(metric, Direction.NONE)

    assert set(best_runs(runs, values, direction_of, 1)) == {"r1", "r0", "other"}
    best = best_runs(runs, {"score": values["score"]}, direction_of, 2)
    assert set(best) == {"r1", "r4", "other"}
    found = verdicts(*runs, best=best)
    assert {name for name, verdict in found.items() if verdict == "best"} == set(best)


def test_a_clock_that_is_wrong_is_told() -> None:
    """A run of the future stops everything, a few minutes between two machines do not."""
    near = run("a", ended_ms=NOW_MS + CLOCK_TOLERANCE_MS)
    far = run("b", ended_ms=NOW_MS + 2 * 3_600_000)
    assert clock_problem([near], NOW_MS) is None
    assert "run b is of 2.0 hours from now" in str(clock_problem([near, far], NOW_MS))


def test_folders_that_are_not_ones_own() -> None:
    """One folder of two runs, and one within another, are nobody's to delete."""
    inner = "/store/a/artifacts/x/b/artifacts"
    assert set(unsafe_roots([run("a"), run("b", artifact_uri=inner), run("c")])) == {"a", "b"}
    twice = [run("a"), run("b", artifact_uri="/store/a/artifacts/"), run("c")]
    assert set(unsafe_roots(twice)) == {"a", "b"}
    spelt = [run("a", artifact_uri="file:///sto%20re/a/artifacts"), run("b"), run("c")]
    assert unsafe_roots(spelt) == {}
    assert set(unsafe_roots([run("a", artifact_uri=""), run("b")])) == {"a"}


SIZES = {
    "model/weights.bin": 700,
    "model/deep/more.bin": 200,
    "notes.txt": 50,
    "allele/environment.json": 10,
    "allele/readings.parquet": 40,
    "allele/parts/1/alerts.json": 5,
    "allele/parts/1/readings.csv.gz": 1,
}


def test_our_documents_stay() -> None:
    """All but what is under `allele/`, and of that the readings, in as few paths as can be."""
    assert set(going_files(SIZES)) == set(SIZES) - {
        "allele/environment.json",
        "allele/parts/1/alerts.json",
    }
    assert going_paths(SIZES) == [
        "allele/parts/1/readings.csv.gz",
        "allele/readings.parquet",
        "model",
        "notes.txt",
    ]


def test_no_path_begins_one_that_stays() -> None:
    """Old MLflow deletes from S3 whatever begins with a path; such a folder goes file by file, and
    such a file stays.
    """
    paths = ["all/x.bin", "al", "allele/a.json", "allele/readings.parquet", "b/x"]
    assert going_paths(paths) == ["all/x.bin", "allele/readings.parquet", "b"]
    assert "al" not in going_files(paths)


def test_what_would_go_is_weighed() -> None:
    """Runs without anything to delete, and small ones, are left; an interrupted one never."""
    decision = Decision(run=run("a"), verdict=Verdict.DELETED, why="old")
    found = weigh(decision, SIZES, MONTH)
    assert (found.is_deleted, found.files, found.size_bytes) == (True, 5, 991)
    assert weigh(decision, {"allele/a.json": 5}, MONTH).verdict is Verdict.EMPTY
    large = replace(MONTH, larger_than_bytes=991)
    assert weigh(decision, SIZES, large).verdict is Verdict.SMALL
    assert weigh(decision, SIZES, replace(large, larger_than_bytes=990)).is_deleted
    begun = replace(decision, run=run("a", retention=mark("begun")))
    assert weigh(begun, {}, large).is_deleted


def test_marks_add_up() -> None:
    """What was said before an interruption counts, and what went before is not forgotten."""
    time = "2026-11-28T12:00:00.000+00:00"
    first = begin_mark(None, SIZES, why="old", time=time)
    assert first == Mark(state="begun", files=5, size_bytes=991, why="old", time=time)
    begun, done = read_mark(mark("begun")), read_mark(mark("done"))
    assert begin_mark(begun, {"notes.txt": 50}, why="old", time=time).files == 3
    assert begin_mark(done, SIZES, why="old", time=time).files == 8
    assert read_mark("{}") is None
