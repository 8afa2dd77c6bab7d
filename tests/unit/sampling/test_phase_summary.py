"""
What the summary of phases promises.
"""

from __future__ import annotations

import json
import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allele_mlflow.records import PhaseSpan
from allele_mlflow.sampling.phase_summary import metric_safe, phases_document, summarise
from allele_mlflow.sampling.phases import PhaseRow
from allele_mlflow.units import describe

SECOND = 1_000_000_000


def row(
    instance: int,
    seconds: float,
    *,
    name: str = "evaluate",
    stream: str = "s",
    cpu_s: float | None = None,
    rss_mb_max: float | None = None,
    gpu: tuple[int, float] | None = None,
    complete: bool = True,
) -> PhaseRow:
    """
    One closed phase that began at the epoch; `gpu` is (samples, mean percent).
    """
    span = PhaseSpan(
        stream_id=stream,
        instance=instance,
        name=name,
        begin_ns=0,
        end_ns=round(seconds * SECOND),
        cpu_s=cpu_s,
        step=None,
        complete=complete,
    )
    samples, percent = gpu or (0, None)
    return PhaseRow(
        span=span,
        samples=samples,
        rss_mb_max=rss_mb_max,
        gpu_samples=samples,
        gpu_percent_mean=percent,
    )


def test_summary_adds_up_phases_of_one_name() -> None:
    """
    Seconds and count are totals, CPU is weighted by time over phases that know it, memory is the
    highest, GPU is weighted by samples.
    """
    rows = [
        row(1, 1.0, cpu_s=1.0, rss_mb_max=10.0, gpu=(1, 10.0)),
        row(2, 3.0, cpu_s=7.0, rss_mb_max=30.0, gpu=(3, 50.0)),
        row(3, 6.0, complete=False),
    ]
    assert summarise(rows) == {
        "phase/evaluate/seconds": 10.0,
        "phase/evaluate/count": 3.0,
        "phase/evaluate/cpu_percent_mean": 200.0,
        "phase/evaluate/rss_mb_max": 30.0,
        "phase/evaluate/gpu_percent_mean": 40.0,
    }


def test_unknown_stays_absent() -> None:
    """
    What no phase of a name knows is absent: neither 0 nor a division by zero.
    """
    assert summarise([row(1, 0.0, cpu_s=0.0), row(2, 0.0)]) == {
        "phase/evaluate/seconds": 0.0,
        "phase/evaluate/count": 2.0,
    }
    assert summarise([]) == {}


def test_phase_that_comes_twice_counts_once() -> None:
    """
    A row written again after a crash changes nothing, the first one counts; the same number in
    another stream is another phase. Rows may come from a generator.
    """
    rows = [row(1, 1.0, rss_mb_max=5.0), row(1, 1.0), row(1, 2.0, stream="other")]
    assert summarise(one for one in rows) == {
        "phase/evaluate/seconds": 3.0,
        "phase/evaluate/count": 2.0,
        "phase/evaluate/rss_mb_max": 5.0,
    }
    assert len(phases_document(rows)["rows"]) == 2


def test_document_is_json_with_a_row_a_phase() -> None:
    """
    The document has a summary by name and for each phase what is known, None where it is not.
    """
    document = phases_document([row(1, 2.0, name="a b%", cpu_s=1.0)])
    assert json.loads(json.dumps(document, allow_nan=False)) == {
        "format": 1,
        "summary": {"a b_": {"seconds": 2.0, "count": 1.0, "cpu_percent_mean": 50.0}},
        "rows": [
            {
                "name": "a b%",
                "step": None,
                "stream": "s",
                "begin": "1970-01-01T00:00:00.000+00:00",
                "seconds": 2.0,
                "cpu_percent": 50.0,
                "samples": 0,
                "rss_mb_max": None,
                "gpu_percent_mean": None,
                "complete": True,
            }
        ],
        "rows_left_out": 0,
    }


def test_long_document_says_what_it_leaves_out() -> None:
    """
    Beyond its limit the document counts rows, and its summary still holds all.
    """
    document = phases_document((row(number, 1.0) for number in range(5)), max_rows=2)
    assert len(document["rows"]) == 2
    assert document["rows_left_out"] == 3
    assert document["summary"]["evaluate"]["seconds"] == 5.0


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("evaluate", "evaluate"),
        ("Fortpflanzung über alles: 1.5", "Fortpflanzung über alles: 1.5"),
        ("outer/inner", "outer/inner"),
        ("p99%", "p99_"),
        ("x[y=1]", "x_y_1_"),
        ("", "_"),
        ("/a", "_/a"),
        ("a//b/", "a/_/b/_"),
        ("../..", "_/_"),
        ("line\n", "line_"),
    ],
)
def test_safe_name_keeps_what_it_can(name: str, safe: str) -> None:
    """
    Only what MLflow forbids is replaced.
    """
    assert metric_safe(name) == safe


@given(name=st.text(max_size=300))
def test_safe_name_always_makes_a_key(name: str) -> None:
    """
    Every name makes a key that MLflow takes (its pattern, its length, its path rule), with a unit.
    """
    key = f"phase/{metric_safe(name)}/gpu_percent_mean"
    assert re.fullmatch(r"[/\w.\- :]*", key)
    assert len(key) <= 250
    assert posixpath.normpath(key) == key
    assert describe(key) is not None


def test_long_names_stay_apart() -> None:
    """
    Names that begin alike and are too long stay two names.
    """
    one, two = metric_safe("x" * 300), metric_safe("x" * 301)
    assert one != two
    assert len(one) == len(two) == 200
