"""
Figures of a suite as a whole: its heat map, differences, running times, parallel coordinates.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from allele_mlflow.reports.figures import (
    forest,
    forest_plot,
    heat_map,
    layout,
    parallel,
    parallel_coordinates,
    running_time_ecdf,
    runtimes,
    suite_heat_map,
)
from allele_mlflow.reports.summary import Objective
from allele_mlflow.units import Direction
from tests.report_tools import make_comparisons, make_results, make_row, note_of, spec_of, trace_of

SCORE = Objective("score", "points", Direction.HIGHER)
LATENCY = Objective("latency", "ms", Direction.LOWER)


def with_latency(results: pd.DataFrame, values: list[float]) -> pd.DataFrame:
    return results.assign(**{"metric.latency": values})


def test_heat_map_has_a_tile_for_each_cell_and_metric() -> None:
    """
    Rows stand by the first objective, best on top; each tile says its median.
    """
    results = with_latency(make_results({"a": [1.0, 3.0], "b": [9.0]}), [7.0, 9.0, 5.0])
    figure = suite_heat_map(results, [SCORE, LATENCY])
    assert spec_of(figure)["layout"]["yaxis"]["ticktext"] == ["b", "a"]
    score, latency = trace_of(figure, "score"), trace_of(figure, "latency")
    assert (score["text"], score["base"]) == (["9.000", "2.000"], [0, 0])
    assert (latency["text"], latency["base"]) == (["5.000", "8.000"], [1, 1])


def test_heat_map_is_stronger_where_it_is_better() -> None:
    """
    Colour goes by rank within a metric, whichever way is better, from paper to the strongest tint.
    """
    results = with_latency(make_results({"a": [1.0], "b": [50.0], "c": [2.0]}), [1.0, 2.0, 3.0])
    figure = suite_heat_map(results, [SCORE, LATENCY])
    rows = spec_of(figure)["layout"]["yaxis"]["ticktext"]
    for objective, order in (("score", ["b", "c", "a"]), ("latency", ["a", "b", "c"])):
        colours = dict(zip(rows, trace_of(figure, objective)["marker"]["color"], strict=True))
        strengths = [sum(int(colours[cell][at : at + 2], 16) for at in (1, 3, 5)) for cell in order]
        assert strengths == sorted(strengths)
        assert colours[order[-1]] == "#ffffff"


def test_heat_map_hatches_failures() -> None:
    """
    A tile whose repeats have no value is hatched, more densely where none has, and it is said.
    """
    results = make_results({"whole": [3.0, 3.0], "part": [2.0, None], "none": [None, math.nan]})
    figure = suite_heat_map(results, [SCORE])
    tiles = trace_of(figure, "score")
    pattern = tiles["marker"]["pattern"]
    assert pattern["shape"] == ["", "/", "/"]
    assert pattern["solidity"][2] > pattern["solidity"][1]
    assert tiles["text"] == ["3.000", "2.000", "none"]
    assert "1 of 2 repeats" in tiles["hovertext"][1]
    assert "hatched: repeats without a value" in note_of(figure)


def test_heat_map_names_units_and_directions() -> None:
    """
    Above each column stand metric, unit and which way is better.
    """
    results = with_latency(make_results({"a": [1.0]}), [1.0])
    figure = suite_heat_map(results, [SCORE, LATENCY])
    assert spec_of(figure)["layout"]["xaxis"]["ticktext"] == [
        "score<br>(points)<br>more is better",
        "latency<br>(ms)<br>less is better",
    ]


def test_heat_map_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of too many cells the best are drawn, of too many metrics the first, and both are said.
    """
    monkeypatch.setattr(heat_map, "MOST_CELLS", 2)
    results = make_results({"a": [1.0], "b": [2.0], "c": [3.0]})
    many = [SCORE, *(Objective(f"m{number}") for number in range(20))]
    figure = suite_heat_map(results, many)
    assert spec_of(figure)["layout"]["yaxis"]["ticktext"] == ["c", "b"]
    assert len(figure.data) == heat_map.MOST_METRICS
    assert note_of(figure).startswith("2 of 3 cells, 10 of 21 metrics")


def test_forest_shows_value_and_interval() -> None:
    """
    A row stands at its relative difference in percent, with both ends of the interval.
    """
    rows = [{"ratio": 1.2, "ratio_low": 1.1, "ratio_high": 1.5}]
    better = trace_of(forest_plot(make_comparisons(rows)), "better")
    assert better["x"] == pytest.approx([20.0])
    assert better["error_x"]["arrayminus"] == pytest.approx([10.0])
    assert better["error_x"]["array"] == pytest.approx([30.0])


def test_forest_puts_what_is_decided_on_top() -> None:
    """
    Worse before better before the rest, the largest difference first; each verdict has a shape.
    """
    verdicts = {"same": "equivalent", "up": "better", "down": "worse", "unsure": "inconclusive"}
    rows: list[dict[str, Any]] = [
        {"cell": cell, "verdict": verdict} for cell, verdict in verdicts.items()
    ]
    rows.append({"cell": "far down", "verdict": "worse", "ratio": 0.2})
    figure = forest_plot(make_comparisons(rows))
    names = spec_of(figure)["layout"]["yaxis"]["ticktext"]
    order = ["far down", "down", "up", "unsure", "same"]
    assert names == [f"{cell} · score" for cell in order]
    shapes = [trace["marker"]["symbol"] for trace in spec_of(figure)["data"]]
    assert len(set(shapes)) == 4
    assert note_of(figure) == "5 comparisons, 2 worse, 1 better, 1 inconclusive, 1 equivalent"


def test_forest_of_one_metric_is_in_its_unit() -> None:
    """
    The axis of one metric has its unit, and rows without a ratio are there.
    """
    rows: list[dict[str, Any]] = [
        {"ratio": None, "ratio_low": None, "ratio_high": None},
        {"metric": "other"},
    ]
    frame = make_comparisons(rows)
    figure = forest_plot(frame, metric="score", unit="points")
    assert trace_of(figure, "better")["x"] == [1.0]
    title = spec_of(figure)["layout"]["xaxis"]["title"]["text"]
    assert title == "candidate - baseline, score (points)"
    assert "1 without a ratio" in note_of(forest_plot(frame))


def test_forest_draws_the_margin_of_equivalence() -> None:
    """
    What makes no difference in practice is a band around zero.
    """
    (band,) = spec_of(forest_plot(make_comparisons([{}]), margin_ratio=0.02))["layout"]["shapes"]
    assert (band["x0"], band["x1"]) == (-2.0, 2.0)


def test_forest_cuts_off_what_would_press_the_rest_together() -> None:
    """
    An interval of two runs ends in an arrow's head at the end of the axis, and is told whole.
    """
    rows: list[dict[str, Any]] = [
        {"cell": "wild", "ratio": 1.4, "ratio_low": 1e-9, "ratio_high": 9.9e5},
        {"cell": "endless", "ratio": 1.3, "ratio_low": 1.1, "ratio_high": math.inf},
        {"cell": "fine", "ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.15},
    ]
    figure = forest_plot(make_comparisons(rows), margin_ratio=0.02)
    low, high = spec_of(figure)["layout"]["xaxis"]["range"]
    assert low == pytest.approx(-115.0)
    assert high == pytest.approx(215.0)
    better = trace_of(figure, "better")
    assert better["error_x"]["array"] == pytest.approx([160.0, 170.0, 5.0])
    assert "9.900e+07" in better["hovertext"][0]
    arrows = trace_of(figure, "the interval goes on")
    assert (arrows["x"], arrows["y"]) == ([200.0, 200.0], [0, 1])
    assert arrows["marker"]["symbol"] == "triangle-right"
    assert "arrow: the interval goes on" in note_of(figure)
    calm = forest_plot(make_comparisons(rows[2:]))
    assert "range" not in spec_of(calm)["layout"]["xaxis"]
    assert "arrow" not in note_of(calm)


def test_forest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of too many rows those that matter most are drawn, and it is said.
    """
    monkeypatch.setattr(forest, "MOST_ROWS", 3)
    rows = [{"cell": str(number), "ratio": 1 + number / 10} for number in range(9)]
    figure = forest_plot(make_comparisons(rows))
    assert [row.split()[0] for row in spec_of(figure)["layout"]["yaxis"]["ticktext"]] == list("876")
    assert note_of(figure).startswith("3 of 9 comparisons")


def make_runtimes(cells: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    rows = [(cell, *point) for cell, points in cells.items() for point in points]
    return pd.DataFrame(rows, columns=["cell", "evaluations", "reached_ratio"])


def test_running_times_are_steps_over_one_range() -> None:
    """
    Every curve spans all numbers of evaluations: zero before its first target, level after
    its last.
    """
    figure = running_time_ecdf(make_runtimes({"a": [(1, 0.5), (10, 1.0)], "b": [(4, 0.25)]}))
    first, second = trace_of(figure, "a"), trace_of(figure, "b")
    assert (first["x"], first["y"]) == ([1, 10], [0.5, 1.0])
    assert (second["x"], second["y"]) == ([1, 4, 10], [0, 0.25, 0.25])
    assert {first["line"]["shape"], second["line"]["shape"]} == {"hv"}
    assert first["line"]["dash"] != second["line"]["dash"]


def test_search_that_reached_nothing_lies_at_zero() -> None:
    """
    A cell without a row is drawn where it is named.
    """
    figure = running_time_ecdf(make_runtimes({"a": [(1, 0.5), (9, 1)]}), cells=["a", "lost"])
    assert trace_of(figure, "lost")["y"] == [0.0, 0.0]


def test_running_times_are_bounded() -> None:
    """
    Of too many cells the first are drawn and it is said; of many points some, with both ends.
    """
    points = [(float(n + 1), (n + 1) / 2000) for n in range(2000)]
    figure = running_time_ecdf(make_runtimes({f"c{n}": points for n in range(12)}))
    assert len(figure.data) == layout.MOST_CURVES
    assert note_of(figure) == "8 of 12 cells"
    (x, y) = (figure.data[0].x, figure.data[0].y)
    assert len(x) == runtimes.MOST_POINTS
    assert (x[0], x[-1], y[-1]) == (1.0, 2000.0, 1.0)


def grid(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            make_row(f"c{n}", 0, float(n), **{"param.size": n, "param.kind": f"k{n % 2}"})
            for n in range(count)
        ]
    )


def test_parallel_has_an_axis_for_what_varies() -> None:
    """
    Parameters that vary and objectives have an axis each; what is the same everywhere has none.
    """
    results = grid(4).assign(**{"param.same": 1})
    spec = spec_of(parallel_coordinates(results, [SCORE]))
    titles = spec["layout"]["xaxis"]["ticktext"]
    assert titles == ["size", "kind", "score<br>(points, higher is better)"]
    assert {trace["type"] for trace in spec["data"]} == {"scatter"}


def test_parallel_places_levels_and_values() -> None:
    """
    Numbers lie between smallest and largest, other levels evenly; each line is a cell.
    """
    figure = parallel_coordinates(grid(3), [SCORE])
    best = trace_of(figure, "1. c2")
    assert best["x"] == [0, 1, 2, None]
    assert best["y"] == [1.0, 0.0, 1.0, None]
    others = trace_of(figure, "the other cells")
    assert others["y"] == [0.5, 1.0, 0.5, None, 0.0, 0.0, 0.0, None]
    assert best["line"]["width"] > others["line"]["width"]


def test_parallel_says_the_levels_beside_the_axis() -> None:
    """
    Each level of an axis with few stands beside it; an axis of many shows its ends.
    """
    texts = annotations_of(parallel_coordinates(grid(30), [SCORE]))
    assert {"k0", "k1"} <= texts
    assert {"0", "29"} <= texts
    assert "15" not in texts


def annotations_of(figure: Any) -> set[str]:
    return {one["text"] for one in spec_of(figure)["layout"]["annotations"]}


def test_parallel_leaves_a_gap_where_nothing_was_measured() -> None:
    """
    A cell whose repeats all failed has its parameters, and no value.
    """
    results = pd.concat([grid(3), pd.DataFrame([make_row("bad", 0, None, **{"param.kind": "k0"})])])
    others = trace_of(parallel_coordinates(results, [SCORE]), "the other cells")
    assert others["y"][-2:] == [None, None]


def test_parallel_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of too many cells the best are drawn; of too many axes the objectives stay, and it is said.
    """
    monkeypatch.setattr(parallel, "MOST_LINES", 5)
    more = {f"param.p{number}": range(9) for number in range(30)}
    figure = parallel_coordinates(grid(9).assign(**more), [SCORE])
    spec = spec_of(figure)
    assert len(spec["layout"]["xaxis"]["ticktext"]) == parallel.MOST_AXES
    assert "score" in spec["layout"]["xaxis"]["ticktext"][-1]
    assert note_of(figure).startswith("5 of 9 cells, 10 of 33 axes")
