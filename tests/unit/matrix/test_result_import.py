"""
Results of another runner on their way into a store, in memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.errors import (
    ErrorKind,
    PermanentTrackingError,
    SettingsError,
    TransientTrackingError,
)
from allele_mlflow.matrix.result_import import ENTRY_ARTIFACT, ImportReport, import_results
from allele_mlflow.settings import Settings
from allele_mlflow.testing import MemoryTracking

SETTINGS = Settings()


def entry(score: float | None, *, error: str | None = None, second: int = 0) -> dict[str, Any]:
    return {
        "config": {"model": "llama3", "temperature": 0.7},
        "score": score,
        "raw_results": {"tokens": [1, 2, 3]},
        "execution_time": 2.0,
        "error": error,
        "timestamp": f"2025-11-02T10:11:{second:02d}",
    }


def write(folder: Path, entries: dict[str, Any], name: str = "results.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "matrix_full"


def bring(path: Path, store: MemoryTracking, **options: Any) -> ImportReport:
    return import_results(path, settings=SETTINGS, tracking=store, **options)


def test_each_entry_is_a_run_below_one(folder: Path) -> None:
    """
    Named after the folder; failed entries are failed runs; each is whole, with its entry as a file.
    """
    store = MemoryTracking()
    entries = {
        "a::x::y": entry(0.5, second=1),
        "b::x::y": entry(None, error="TimeoutError: slow", second=9),
    }
    report = bring(write(folder, entries), store)
    assert (report.created_count, report.failed_count, report.is_complete) == (2, 1, True)
    assert report.experiment == "allele_benchmark_matrix_full"
    parent, *children = store.runs.values()
    assert (parent.run_id, parent.run_name, parent.status) == (
        *(report.run_id, "matrix_full"),
        "FINISHED",
    )
    assert (parent.start_ms, parent.end_ms) == (children[0].start_ms, children[1].end_ms)
    assert [child.status for child in children] == ["FINISHED", "FAILED"]
    for child, (key, content) in zip(children, entries.items(), strict=True):
        assert child.tags["mlflow.parentRunId"] == parent.run_id
        assert child.run_name == key
        assert child.params["temperature"] == "0.7"
        assert [row.step for row in child.rows("raw/tokens")] == [0, 1, 2]
        assert {row.timestamp_ms for row in child.metrics} == {child.end_ms}
        assert json.loads(child.artifacts[ENTRY_ARTIFACT]) == content
    assert children[1].tags["allele.error.category"] == "timeout"


def test_second_import_makes_no_second_run(folder: Path) -> None:
    """
    Neither of the same file, nor of a checkpoint beside it; what has come since is added.
    """
    store = MemoryTracking()
    first = {"a::x::y": entry(0.5), "b::x::y": entry(0.6)}
    bring(write(folder, first, "checkpoint.json"), store)
    before = {run_id: run.end_ms for run_id, run in store.runs.items()}
    again = bring(write(folder, first, "checkpoint.json"), store)
    assert (again.created_count, again.present_count) == (0, 2)
    assert {run_id: run.end_ms for run_id, run in store.runs.items()} == before
    grown = bring(write(folder, first | {"c::x::y": entry(0.7, second=30)}), store)
    assert (grown.created_count, grown.present_count) == (1, 2)
    assert grown.run_id == again.run_id
    assert len(store.runs) == 4


def test_import_that_was_cut_off_goes_on(folder: Path) -> None:
    """
    Wherever the store went away, importing again makes every run whole, and none twice.
    """
    entries = {f"{name}::x::y": entry(0.5) for name in "abc"}
    path = write(folder, entries)
    whole = MemoryTracking()
    bring(path, whole)
    call_count = sum(whole.calls.values())
    for last in range(1, call_count):
        store = Vanishing(last)
        with pytest.raises(TransientTrackingError):
            bring(path, store)
        store.calls_left = 10**6
        assert bring(path, store).is_complete
        assert len(store.runs) == len(whole.runs)
        for run, wanted in zip(store.runs.values(), whole.runs.values(), strict=True):
            assert (run.status, run.end_ms) == (wanted.status, wanted.end_ms)
            assert (run.params, run.tags.keys()) == (wanted.params, wanted.tags.keys())
            assert set(run.metrics) == set(wanted.metrics)


class Vanishing(MemoryTracking):
    """
    A store that is away after so many calls.
    """

    def __init__(self, calls_left: int) -> None:
        super().__init__()
        self.calls_left = calls_left

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or name == "run_url":
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise TransientTrackingError("away", kind=ErrorKind.STORE_UNREACHABLE)
            return found(*arguments, **options)

        return call


def test_malformed_entries_are_named(folder: Path) -> None:
    """
    One bad entry is counted and named, and the others come.
    """
    store = MemoryTracking()
    path = write(folder, {"bad": 3, "a::x::y": entry(0.5), "open": {"config": {}}})
    report = bring(path, store)
    assert (report.created_count, report.malformed_count) == (1, 2)
    assert [key for key, _ in report.malformed] == ["bad", "open"]
    assert not report.is_complete
    assert "2 could not be imported" in report.line()


def test_broken_file_brings_what_stands_before(folder: Path) -> None:
    """
    And the report says where it broke.
    """
    store = MemoryTracking()
    path = write(folder, {"a::x::y": entry(0.5), "b::x::y": entry(0.6)})
    path.write_text(path.read_text()[:-20])
    report = bring(path, store)
    assert report.created_count == 1
    assert report.problem is not None
    assert "after entry 'a::x::y'" in report.problem


def test_file_without_entries_opens_no_store(folder: Path) -> None:
    """
    Nothing is made for nothing.
    """
    store = MemoryTracking()
    report = bring(write(folder, {}), store)
    assert (report.run_id, report.created_count, sum(store.calls.values())) == (None, 0, 0)


def test_entry_that_the_store_refuses_is_named(folder: Path) -> None:
    """
    It is that entry's matter; a store that refuses everybody is everybody's.
    """
    path = write(folder, {"a::x::y": entry(0.5), "b::x::y": entry(0.6)})
    store = Refusing(ErrorKind.REFUSED)
    report = bring(path, store)
    assert (report.created_count, report.malformed_count) == (1, 1)
    assert report.malformed[0][1] == "the store refused it: no"
    with pytest.raises(PermanentTrackingError):
        bring(path, Refusing(ErrorKind.UNAUTHORISED))


class Refusing(MemoryTracking):
    """
    Refuses the first batch.
    """

    def __init__(self, kind: ErrorKind) -> None:
        super().__init__()
        self._kind = kind

    def log_batch(self, *arguments: Any, **options: Any) -> None:
        self.calls["refused"] += 1
        if self.calls["refused"] == 1:
            raise PermanentTrackingError("no", kind=self._kind)
        super().log_batch(*arguments, **options)


def test_names_may_be_given(folder: Path) -> None:
    """
    Another suite is another import, in an experiment of any name.
    """
    store = MemoryTracking()
    path = write(folder, {"a::x::y": entry(0.5)})
    bring(path, store)
    report = bring(path, store, name="other", experiment="shared")
    assert (report.created_count, report.experiment) == (1, "allele_benchmark_shared")


def test_offline_is_no_store(folder: Path) -> None:
    """
    An import needs one, and says so before it does anything.
    """
    path = write(folder, {"a::x::y": entry(0.5)})
    with pytest.raises(SettingsError, match="want a store to import into"):
        import_results(path, settings=Settings(tracking_uri="offline"))
