"""
What a selection reads of a store: no more than it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow.analysis import selection
from allele_mlflow.analysis.selection import select
from allele_mlflow.errors import AnalysisError
from allele_mlflow.tracking.frames import RunFrames
from allele_mlflow.tracking.reader import open_reader
from tests.integration.executions import PREFIX, Metrics, Store

AXES: dict[str, list[Any]] = {"size": [10, 20, 30], "rate": [0.1, 0.2]}


def measured(params: Mapping[str, Any], seed: int) -> Metrics:
    return {"score": params["size"] + seed % 5, "other": params["rate"]}


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """
    Two executions of six cells with three repeats each.
    """
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    made = Store(tmp_path)
    for _ in range(2):
        made.add(AXES, measured, repeats=3)
    yield made
    made.close()


class Watched:
    """
    A reader that notes how many runs each question brought, with metrics and without.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.with_metrics: list[int] = []
        self.without: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def runs(self, *arguments: Any, **options: Any) -> RunFrames:
        found: RunFrames = self._reader.runs(*arguments, **options)
        (self.with_metrics if len(found.metrics) else self.without).append(len(found.runs))
        return found


@pytest.mark.parametrize("most_ids", [500, 5])
@pytest.mark.parametrize(
    ("text", "meant"), [("sorting", 18), ("sorting~1", 18), ("sorting[size == 20]", 6)]
)
def test_metrics_are_read_of_the_execution_at_most(
    store: Store, monkeypatch: pytest.MonkeyPatch, text: str, meant: int, most_ids: int
) -> None:
    """Of a few runs theirs alone, of more those of the execution; never of the whole experiment."""
    monkeypatch.setattr(selection, "MOST_RUN_IDS", most_ids)
    watched = Watched(open_reader(store.uri))
    found = select(watched, store.uri, text, prefix=PREFIX)
    watched.close()
    assert len(found.frames.runs) == meant
    assert found.frames.metrics["run_id"].nunique() == meant
    assert found.frames.params["run_id"].nunique() == meant
    assert watched.with_metrics == [meant if meant <= most_ids else 18]
    assert max(watched.without) == 38


def test_an_expression_that_is_true_of_none(store: Store) -> None:
    """Says so."""
    reader = open_reader(store.uri)
    with pytest.raises(AnalysisError, match="of 18 runs it is true of none"):
        select(reader, store.uri, "sorting[size == 25]", prefix=PREFIX)
    reader.close()
