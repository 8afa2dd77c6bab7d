"""
Figures of a run, of a history, of advice and of genomes.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from allele_mlflow.reports.figures import (
    gain_calibration,
    genome_lineage,
    genome_traits,
    genomes,
    history,
    logging_overhead,
    metric_history,
    run_timeline,
    timeline,
)
from allele_mlflow.units import Direction
from tests.report_tools import (
    BEGAN_MS,
    make_alert,
    make_finding,
    make_phases,
    make_samples,
    make_series,
    note_of,
    spec_of,
    trace_of,
)

NO_SAMPLES = make_samples("system/process_cpu_percent", [])
CPU, RSS = "system/process_cpu_percent", "system/process_rss_megabytes"
CPU_NAME = "CPU of the benchmark, of one core"


def rows_of(figure: Any) -> list[str]:
    return list(spec_of(figure)["layout"]["yaxis"]["ticktext"])


def test_history_has_values_with_the_spread_of_their_repeats() -> None:
    """
    Executions stand in order of time with value and spread; the axes say unit and time zone.
    """
    series = make_series([1.0, 2.0], spread=[0.1, None]).iloc[::-1]
    figure = metric_history(series, metric="latency", cell="a", unit="ms")
    values = trace_of(figure, "value of an execution")
    assert values["y"] == [1.0, 2.0]
    assert values["x"] == ["2025-06-15 15:06:40", "2025-06-16 15:06:40"]
    assert values["error_y"]["array"] == [0.1, None]
    layout = spec_of(figure)["layout"]
    assert layout["yaxis"]["title"]["text"] == "latency (ms)"
    assert "UTC" in layout["xaxis"]["title"]["text"]


def test_history_shows_levels_between_shifts() -> None:
    """
    A level holds from one shift to the execution before the next; the first reaches back to the
    beginning.
    """
    findings = pd.DataFrame(
        [
            make_finding("change", "regression", "e2", level_before=1.0, level_after=2.0),
            make_finding("change", "improvement", "e4", level_before=2.0, level_after=0.5),
        ]
    )
    figure = metric_history(make_series([1.0, 1.0, 2.0, 2.0, 0.5, 0.5]), findings, metric="m")
    level = trace_of(figure, "level")
    days = [None if one is None else one[8:10] for one in level["x"]]
    assert days == ["15", "16", None, "17", "18", None, "19", "20", None]
    assert level["y"] == [1.0, 1.0, None, 2.0, 2.0, None, 0.5, 0.5, None]


def test_history_tells_findings_apart_by_shape() -> None:
    """
    Regressions, improvements, neutral changes and outliers have shapes of their own, at their
    execution.
    """
    findings = pd.DataFrame(
        [
            make_finding("change", "regression", "e1"),
            make_finding("drift", "improvement", "e2"),
            make_finding("environment change", "neutral", "e3"),
            make_finding("outlier", "regression", "e4", level_after=9.0),
            make_finding("change", "regression", "of another suite"),
        ]
    )
    figure = metric_history(make_series([1.0] * 5), findings, metric="m")
    names = ["regression", "improvement", "change, neither better nor worse", "outlier"]
    shapes = {trace_of(figure, name)["marker"]["symbol"] for name in names}
    assert len(shapes) == 4
    assert trace_of(figure, "outlier")["y"] == [9.0]
    assert "4 findings" in note_of(figure)


def test_history_marks_changes_of_the_environment() -> None:
    """
    A dotted line stands where the environment differs from the one before; what is not known is no
    change.
    """
    series = make_series([1.0] * 4, environment=["a", None, "a", "b"])
    figure = metric_history(series, metric="m")
    (line,) = spec_of(figure)["layout"]["shapes"]
    assert line["x0"].startswith("2025-06-18")
    assert line["line"]["dash"] == "dot"
    assert "1 change of the environment" in note_of(figure)


def test_history_is_of_the_newest_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of too many executions the newest are drawn, and it is said.
    """
    monkeypatch.setattr(history, "MOST_EXECUTIONS", 3)
    figure = metric_history(make_series([1.0, 2.0, 3.0, math.nan, 5.0]), metric="m")
    assert trace_of(figure, "value of an execution")["y"] == [3.0, None, 5.0]
    assert note_of(figure).startswith("3 of 5 executions, 1 without a value")


def test_timeline_has_phases_and_resources_on_one_axis() -> None:
    """
    A row for each phase's name, in the order in which they begin; below them CPU and memory, all in
    seconds since the run began.
    """
    phases = make_phases([("load", 0, 2), ("evolve", 2, 6)])
    samples = pd.concat([make_samples(CPU, [50.0, 90.0]), make_samples(RSS, [100.0, 200.0])])
    figure = run_timeline(phases, samples)
    assert rows_of(figure) == ["load", "evolve"]
    bars = trace_of(figure, "phase")
    assert sorted(zip(bars["base"], bars["x"], bars["y"], strict=True)) == [(0, 2, 0), (2, 6, 1)]
    cpu, memory = trace_of(figure, CPU_NAME), trace_of(figure, "resident memory")
    assert (cpu["x"], cpu["y"]) == ([0, 1], [50, 90])
    assert cpu["yaxis"] != memory["yaxis"]
    layout = spec_of(figure)["layout"]
    assert layout["xaxis"]["title"]["text"].startswith("seconds")
    assert "percent" in layout["yaxis2"]["title"]["text"]
    assert "MB" in layout["yaxis3"]["title"]["text"]
    assert layout["yaxis"]["domain"][0] > layout["yaxis2"]["domain"][1]


def test_timeline_begins_where_it_is_told() -> None:
    """
    Times count from the begin of the run, where that is known.
    """
    figure = run_timeline(make_phases([("a", 5, 1)]), NO_SAMPLES, began_ms=BEGAN_MS)
    assert trace_of(figure, "phase")["base"] == [5.0]


def test_timeline_shows_alerts_by_severity() -> None:
    """
    Alerts stand in a row of their own at their time, a shape for each severity, with what they say.
    """
    alerts = pd.DataFrame(
        [make_alert("slow", 1), make_alert("lost", 3, "critical"), make_alert("fine", 4, "info")]
    )
    figure = run_timeline(make_phases([("a", 0, 5)]), NO_SAMPLES, alerts)
    assert rows_of(figure) == ["alerts", "a"]
    found = [trace_of(figure, f"{one} alert") for one in ("critical", "warning", "info")]
    assert [one["x"] for one in found] == [[3.0], [1.0], [4.0]]
    assert {tuple(one["y"]) for one in found} == {(0,)}
    assert len({one["marker"]["symbol"] for one in found}) == 3
    assert found[0]["hovertext"][0].startswith("lost<br>critical<br>lost!")


def test_timeline_merges_phases_that_nearly_touch() -> None:
    """
    Ten thousand short phases of a name are one bar, and what was drawn is said; one that did not
    end stands alone, hatched.
    """
    spans = [("step", number, 0.9) for number in range(10_000)] + [("step", 10_000, 5.0)]
    phases = make_phases(spans, complete=[True] * 10_000 + [False])
    figure = run_timeline(phases, NO_SAMPLES)
    bars = trace_of(figure, "phase")
    assert len(bars["x"]) == 2
    assert bars["x"][0] == pytest.approx(9999.9)
    assert bars["marker"]["pattern"]["shape"] == ["", "/"]
    assert "10,001 phases, of which near ones are drawn as one: 2 bars" in note_of(figure)
    whole = run_timeline(make_phases(spans[:-1]), NO_SAMPLES)
    assert "10,000 phases, of which near ones are drawn as one: 1 bar," in f"{note_of(whole)},"


def test_timeline_keeps_peaks() -> None:
    """
    Of many samples fewer are drawn, the highest and the lowest among them.
    """
    values = [50.0] * 20_000
    values[7777], values[1234] = 400.0, 1.0
    figure = run_timeline(make_phases([]), make_samples(CPU, values))
    drawn = trace_of(figure, CPU_NAME)["y"]
    assert len(drawn) <= timeline.MOST_POINTS
    assert (max(drawn), min(drawn)) == (400.0, 1.0)


def test_timeline_has_a_curve_for_each_gpu() -> None:
    """
    Several devices are told apart by dash and name.
    """
    keys = [f"system/gpu_{number}_utilization_percentage" for number in (0, 3)]
    samples = pd.concat([make_samples(key, [10.0, 20.0]) for key in keys])
    figure = run_timeline(make_phases([]), samples)
    first, second = trace_of(figure, "GPU 0"), trace_of(figure, "GPU 3")
    assert first["line"]["dash"] != second["line"]["dash"]


def test_overhead_has_the_costliest_cell_on_top() -> None:
    """
    A row a cell with both costs of each run, in percent; the budget is a line.
    """
    runs = pd.DataFrame(
        {
            "cell": ["a", "b", "b", "c"],
            "logger_percent": [0.1, 2.0, 3.0, None],
            "sidecar_percent": [1.0, 5.0, math.inf, 9.0],
        }
    )
    figure = logging_overhead(runs, budget_percent=1.0)
    assert rows_of(figure) == ["b", "a", "c"]
    calls = trace_of(figure, "log calls, in the benchmark's thread")
    sidecar = trace_of(figure, "sidecar, on another core")
    assert sorted(calls["x"]) == [0.1, 2.0, 3.0]
    assert sorted(sidecar["x"]) == [1.0, 5.0, 9.0]
    assert calls["marker"]["symbol"] != sidecar["marker"]["symbol"]
    layout = spec_of(figure)["layout"]
    assert layout["shapes"][0]["x0"] == 1.0
    assert "percent" in layout["xaxis"]["title"]["text"]


def make_gains(rows: list[tuple[str, float | None, float | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "source": source,
                "title": "try it",
                "verdict": "better",
                "expected": expected,
                "expected_low": None,
                "expected_high": None,
                "gain": gain,
                "gain_low": 0.05,
                "gain_high": 0.2,
            }
            for source, expected, gain in rows
        ]
    )


def test_calibration_holds_gains_against_promises() -> None:
    """
    In percent, with the intervals there are, a shape for each source, beside the line of kept
    promises; what is not judged is left out and counted.
    """
    gains = make_gains([("ours", 0.1, 0.1), ("allele", 0.5, 0.15), ("ours", None, 0.2)])
    figure = gain_calibration(gains)
    ours, other = trace_of(figure, "ours"), trace_of(figure, "allele")
    assert (ours["x"], ours["y"]) == ([10.0], [10.0])
    assert (other["x"], other["y"]) == ([50.0], [15.0])
    assert ours["error_y"]["arrayminus"] == pytest.approx([5.0])
    assert ours["error_x"]["array"] == [0.0]
    assert ours["marker"]["symbol"] != other["marker"]["symbol"]
    assert trace_of(figure, "promise kept")["x"] == [0.0, 50.0]
    assert note_of(figure).startswith("2 of 3 recommendations, 2 sources")


def make_genomes(rows: list[tuple[str, int, float, list[str]]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["genome_id", "generation", "fitness", "parents"])


def test_traits_are_medians_in_bands() -> None:
    """
    A curve a trait over generations, the median over genomes between the quartiles.
    """
    rows = [(step, "empathy", 0.1 * one + step) for step in (0, 1) for one in (1, 2, 3)]
    frame = pd.DataFrame(rows, columns=["generation", "trait", "value"])
    band, curve = spec_of(genome_traits(frame))["data"]
    assert (curve["x"], curve["y"]) == ([0, 1], pytest.approx([0.2, 1.2]))
    assert band["y"] == pytest.approx([0.25, 1.25, 1.15, 0.15])


def test_lineage_follows_the_best_genome_back() -> None:
    """
    The best genome and its ancestors stand out, children are joined with the parents there are.
    """
    genomes_frame = make_genomes(
        [
            ("root", 0, 0.1, []),
            ("mid", 1, 0.2, ["root", "not there"]),
            ("other", 1, 0.4, ["root"]),
            ("top", 2, 0.9, ["mid"]),
        ]
    )
    figure = genome_lineage(genomes_frame, unit="points")
    assert (trace_of(figure, "best")["x"], trace_of(figure, "best")["y"]) == ([2], [0.9])
    assert sorted(trace_of(figure, "ancestor")["y"]) == [0.1, 0.2]
    assert trace_of(figure, "genome")["y"] == [0.4]
    assert trace_of(figure, "parent of")["y"] == [0.1, 0.4, None]
    edges = trace_of(figure, "ancestor of the best")["x"]
    assert sorted(zip(edges[::3], edges[1::3], strict=True)) == [(0, 1), (1, 2)]
    title = spec_of(figure)["layout"]["yaxis"]["title"]["text"]
    assert title == "fitness (points)"


def test_lineage_where_less_is_better() -> None:
    """
    The best is the lowest where the direction says so.
    """
    frame = make_genomes([("a", 0, 1.0, []), ("b", 0, 2.0, [])])
    figure = genome_lineage(frame, direction=Direction.LOWER)
    assert trace_of(figure, "best")["y"] == [1.0]


def test_lineage_survives_a_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Genomes that name each other as parents end nowhere in a loop; of too many the ancestors stay.
    """
    monkeypatch.setattr(genomes, "MOST_GENOMES", 2)
    rows: list[tuple[str, int, float, list[str]]] = [(f"g{n}", 0, 0.5, []) for n in range(5)]
    rows += [("a", 0, 0.1, ["b"]), ("b", 1, 0.9, ["a"])]
    figure = genome_lineage(make_genomes(rows))
    assert trace_of(figure, "ancestor")["hovertext"][0].startswith("a<br>")
    assert trace_of(figure, "genome")["y"] == []
    assert note_of(figure) == "2 of 7 genomes, 2 of them are the best one and its ancestors"
