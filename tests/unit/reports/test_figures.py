"""
Figures of suites: what is drawn where, in what order, and what is said of the rest.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pandas as pd
import pytest

from allele_mlflow.analysis.median_interval import median_interval
from allele_mlflow.reports import plotted
from allele_mlflow.reports.figures import (
    cells,
    convergence,
    layout,
    objective_by_cell,
    suite_heat_map,
)
from allele_mlflow.reports.summary import Objective, cell_rows
from allele_mlflow.units import Direction
from tests.report_tools import (
    HOSTILE,
    make_history,
    make_results,
    make_row,
    note_of,
    spec_of,
    trace_of,
)

HIGHER, LOWER, NONE = Direction.HIGHER, Direction.LOWER, Direction.NONE
EMPTY = pd.DataFrame()


def rows_of(figure: Any) -> list[str]:
    return list(spec_of(figure)["layout"]["yaxis"]["ticktext"])


@pytest.mark.parametrize(
    ("direction", "wanted"),
    [
        (HIGHER, ["high", "middle", "low", "none"]),
        (LOWER, ["low", "middle", "high", "none"]),
        (NONE, ["none", "middle", "low", "high"]),
    ],
)
def test_best_cell_is_on_top(direction: Direction, wanted: list[str]) -> None:
    """
    Cells stand by their median, the better on top, those without a value last; as they appear where
    no direction is better.
    """
    results = make_results(
        {"none": [None], "middle": [2.0, 2.1, 90.0], "low": [1.0], "high": [3.0, 3.0, -50.0]}
    )
    figure = objective_by_cell(results, "score", direction=direction)
    assert rows_of(figure) == wanted
    low, high = spec_of(figure)["layout"]["yaxis"]["range"]
    assert low > high  # the first row is the topmost


def test_each_repeat_is_a_point_in_its_row() -> None:
    """
    Every repeat with a value is drawn at it, within its cell's row; the median beside them.
    """
    figure = objective_by_cell(
        make_results({"a": [1.0, 2.0, 6.0], "b": [4.0]}), "score", direction=LOWER
    )
    points, medians = trace_of(figure, "repeat"), trace_of(figure, "median")
    assert points["x"] == [1.0, 2.0, 6.0, 4.0]
    assert [round(height) for height in points["y"]] == [0, 0, 0, 1]
    assert len(set(points["y"])) == 4
    assert (medians["x"], medians["y"]) == ([2.0, 4.0], [0, 1])


def test_median_of_huge_values_is_finite() -> None:
    """
    Two values may be too large for their sum: their median and quartiles are numbers all the same.
    """
    results = make_results({"a": [1.7e308, 1.7e308], "b": [-1.7e308, 1.7e308]})
    figure = objective_by_cell(results, "score", direction=HIGHER)
    assert trace_of(figure, "median")["x"] == [1.7e308, 0.0]
    first, second = (row.spreads[0] for row in cell_rows(results, [Objective("score")]))
    assert first is not None
    assert second is not None
    assert (first.median, first.first_quartile) == (1.7e308, 1.7e308)
    assert (second.low, second.median) == (-1.7e308, 0.0)
    assert second.third_quartile == pytest.approx(0.85e308)
    tiles = trace_of(suite_heat_map(results, [Objective("score")]), "score")
    assert "∞" not in "".join(tiles["text"])
    readings = pd.DataFrame({"repeat": [0, 1], "step": [0, 0], "value": [1.7e308, 1.7e308]})
    curve, *_ = plotted.curve_of(readings)
    assert curve[["low", "median", "high"]].to_numpy().tolist() == [[1.7e308] * 3]
    assert median_interval([1.7e308, 1.7e308]).median == 1.7e308


def test_repeats_without_a_value_are_at_the_margin() -> None:
    """
    Failed repeats, and those whose value is NaN or infinite, stand on an axis of their own, told
    apart and counted.
    """
    results = make_results({"a": [1.0, None, math.nan], "b": [math.inf, None, None]})
    figure = objective_by_cell(results, "score", direction=HIGHER)
    failed, valueless = trace_of(figure, "failed"), trace_of(figure, "no value")
    assert failed["y"] == [0, 1, 1]
    assert valueless["y"] == [0, 1]
    assert failed["marker"]["symbol"] != valueless["marker"]["symbol"]
    assert {failed["xaxis"], valueless["xaxis"]} == {"x2"}
    assert all(0 < place < 1 for place in failed["x"] + valueless["x"])
    assert "timeout" in failed["hovertext"][0]
    assert note_of(figure) == "2 cells, n = 1 repeat, 3 failed, 2 without a value"


def test_last_finished_attempt_counts() -> None:
    """
    A repeat with several attempts is one point, of the last that finished.
    """
    results = pd.DataFrame(
        [
            make_row("a", 0, None),
            make_row("a", 0, 5.0, attempt=2),
            make_row("a", 0, None, attempt=3),
        ]
    )
    figure = objective_by_cell(results, "score", direction=HIGHER)
    assert trace_of(figure, "repeat")["x"] == [5.0]
    assert note_of(figure) == "1 cell, n = 1 repeat"


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize(
    "results",
    [
        EMPTY,
        make_results({"a": [1.0]}),
        make_results({"a": [None, None], "b": [None]}),
        make_results({"a": [math.nan]}),
        make_results({"a": [0.0, -1e308, 1e308]}),
        make_results({"a": [1e-300, 1e308]}),
        make_results({"": [1.0], "1": [2.0], "2024-01-01": [3.0]}),
    ],
    ids=["empty", "one", "all failed", "nan", "huge", "tiny and huge", "odd names"],
)
def test_any_results_make_a_figure(results: pd.DataFrame, is_dark: bool) -> None:
    """
    Nothing at all, one point, no value at all, and extremes are drawn too, as strict JSON.
    """
    figure = objective_by_cell(results, "score", direction=HIGHER, is_dark=is_dark)
    json.dumps(spec_of(figure), allow_nan=False)
    values = trace_of(figure, "repeat")["x"]
    annotations = spec_of(figure)["layout"].get("annotations", [])
    assert bool(annotations) == (not values)


def test_objective_that_nobody_returned() -> None:
    """
    A metric without a column is one without values.
    """
    figure = objective_by_cell(make_results({"a": [1.0]}), "speed", direction=HIGHER)
    assert note_of(figure) == "1 cell, n = 0 repeats, 1 without a value"


def test_missing_column_is_named() -> None:
    """
    Frames that lack a column are refused with its name.
    """
    with pytest.raises(ValueError, match="results without status"):
        objective_by_cell(
            make_results({"a": [1.0]}).drop(columns="status"), "score", direction=HIGHER
        )
    with pytest.raises(ValueError, match="history without step"):
        convergence(make_history({"a": [[1.0]]}).drop(columns="step"), objective="score")


def test_hostile_names_are_text() -> None:
    """
    Markup in names reaches plotly escaped, in ticks, hovers, legends, titles and axes; no template
    of plotly's is filled in with them.
    """
    results = make_results({HOSTILE: [1.0, None]}).rename(
        columns={"metric.score": "metric.<b>s</b>"}
    )
    history = make_history({HOSTILE: [[1.0, 2.0]]}).assign(key="<b>s</b>")
    for figure in (
        objective_by_cell(results, "<b>s</b>", direction=HIGHER, unit="<i>m</i>"),
        convergence(history, objective="<b>s</b>", unit="<i>m</i>"),
    ):
        spec = spec_of(figure)
        for part in ("title", "note"):  # plain text, for a page to escape
            spec["layout"]["meta"].pop(part)
        text = json.dumps(spec, ensure_ascii=False)
        assert "&lt;script&gt;" in text
        for mark in ("<script", "<b>", "<i>", "\u202e", "%{", "hovertemplate", "texttemplate"):
            assert mark not in text


def test_axes_and_titles_say_unit_and_count() -> None:
    """
    Units stand on the axis and with the better direction in the title, with n.
    """
    figure = objective_by_cell(
        make_results({"a": [1.0, 2.0]}), "score", direction=LOWER, unit="seconds"
    )
    layout = spec_of(figure)["layout"]
    assert layout["xaxis"]["title"]["text"] == "score (seconds)"
    assert "score by cell (seconds, lower is better)" in layout["title"]["text"]
    assert "n = 2 repeats" in layout["title"]["text"]
    layout = spec_of(convergence(make_history({"a": [[1.0]]}), objective="score", unit="seconds"))[
        "layout"
    ]
    assert layout["yaxis"]["title"]["text"] == "score (seconds)"
    assert layout["xaxis"]["title"]["text"] == "step"


def test_wide_spans_are_logarithmic_and_say_so() -> None:
    """
    Values over more than three decades are drawn on a logarithmic axis, but never zero or less.
    """
    wide = spec_of(objective_by_cell(make_results({"a": [1.0, 5000.0]}), "score", direction=LOWER))[
        "layout"
    ]["xaxis"]
    assert (wide["type"], wide["title"]["text"]) == ("log", "score, logarithmic")
    zero = objective_by_cell(make_results({"a": [0.0, 5000.0]}), "score", direction=LOWER)
    assert spec_of(zero)["layout"]["xaxis"]["type"] == "linear"


def test_long_names_stay_apart() -> None:
    """
    Names that are equal once shortened are told apart, on narrow screens too.
    """
    names = [f"{'p' * 60}{middle}{'q' * 60}" for middle in "xyz"]
    layout = spec_of(
        objective_by_cell(make_results({name: [1.0] for name in names}), "score", direction=HIGHER)
    )["layout"]
    for shown in (layout["yaxis"]["ticktext"], layout["meta"]["narrow_names"]):
        assert len(set(shown)) == 3
        assert max(map(len, shown)) < 60


def test_many_cells_and_repeats_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of too many cells the best are drawn, of too many repeats evenly fewer, and both are said; the
    median is of all repeats.
    """
    monkeypatch.setattr(cells, "MOST_CELLS", 2)
    monkeypatch.setattr(plotted, "MOST_REPEAT_POINTS", 10)
    results = make_results(
        {"c": [1.0], "a": [float(number) for number in range(100, 120)], "b": [50.0]}
    )
    figure = objective_by_cell(results, "score", direction=HIGHER)
    assert rows_of(figure) == ["a", "b"]
    points = trace_of(figure, "repeat")["x"]
    assert 50.0 in points
    assert len(points) <= 11
    assert trace_of(figure, "median")["x"] == [109.5, 50.0]
    assert note_of(figure) == f"2 of 3 cells, n = 21 repeats, {len(points)} of the points drawn"


def test_two_hundred_cells_have_room() -> None:
    """
    Each of 200 rows is high enough to be read.
    """
    results = make_results({f"cell {number}": [float(number)] for number in range(200)})
    layout = spec_of(objective_by_cell(results, "score", direction=LOWER))["layout"]
    assert layout["height"] / 200 >= layout["yaxis"]["tickfont"]["size"] * 1.4
    assert len(layout["yaxis"]["tickvals"]) == 200


def test_curve_is_the_median_in_a_band_of_quartiles() -> None:
    """
    At each step the median over repeats is drawn, and the quartiles around it.
    """
    history = make_history({"a": [[0.0, 10.0], [1.0, 11.0], [5.0, 12.0]]})
    band, curve = spec_of(convergence(history, objective="score"))["data"]
    assert (curve["x"], curve["y"]) == ([0, 1], [1.0, 11.0])
    assert band["y"] == [3.0, 11.5, 10.5, 0.5]
    assert band["x"] == [0, 1, 1, 0]
    assert (band["legendgroup"], band["showlegend"]) == (curve["legendgroup"], False)


def test_repeats_with_other_steps_count_between_their_readings() -> None:
    """
    A repeat counts with its last reading until its next; not before its first nor after its last.
    """
    history = make_history({"a": [[0.0, 2.0, 4.0], [10.0]]})
    history.loc[history.repeat == 0, "step"] *= 10
    history.loc[history.repeat == 1, "step"] = 5
    curve = spec_of(convergence(history, objective="score"))["data"][-1]
    assert (curve["x"], curve["y"]) == ([0, 5, 10, 20], [0.0, 5.0, 2.0, 4.0])


def test_later_reading_of_a_step_counts() -> None:
    """
    Of two readings of one repeat at a step, the one of the later time is drawn.
    """
    history = make_history({"a": [[1.0]]})
    later = history.assign(timestamp_ms=9000, value=7.0)
    figure = convergence(pd.concat([later, history]), objective="score")
    assert spec_of(figure)["data"][-1]["y"] == [7.0]


@pytest.mark.parametrize(
    "history",
    [
        EMPTY,
        make_history({"a": [[1.0]]}),
        make_history({"a": [[math.nan, math.inf]]}),
        make_history({"a": [[1.0]]}).assign(key="another"),
        make_history({"a": [[1.0, 2.0]]}).drop(columns=["timestamp_ms", "run_id"]),
    ],
    ids=["empty", "one", "no value", "another key", "least columns"],
)
def test_any_history_makes_a_figure(history: pd.DataFrame) -> None:
    """
    Nothing, one reading, and none with a value are drawn too, as strict JSON.
    """
    spec = spec_of(convergence(history, objective="score", is_dark=True))
    json.dumps(spec, allow_nan=False)
    assert bool(spec["layout"].get("annotations")) == (not spec["data"])


def test_long_histories_are_thinned_evenly() -> None:
    """
    Of many steps some are drawn, evenly apart, the first and the last among them, and it is said.
    """
    figure = convergence(
        make_history({"a": [[float(step) for step in range(1001)]]}), objective="score"
    )
    steps = spec_of(figure)["data"][-1]["x"]
    assert (steps[0], steps[-1], len(steps)) == (0, 1000, plotted.MOST_CURVE_POINTS)
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1
    assert "200 of 1001 steps drawn" in note_of(figure)


def test_curves_differ_without_colour() -> None:
    """
    As many cells as can be told apart are drawn, each with a dash and a marker of its own; the rest
    is said.
    """
    history = make_history({f"cell {number}": [[1.0, 2.0]] for number in range(20)})
    figure = convergence(history, objective="score")
    curves = spec_of(figure)["data"]
    assert [curve["name"] for curve in curves] == [
        f"cell {number}" for number in range(layout.MOST_CURVES)
    ]
    for looks in (
        {curve["line"]["dash"] for curve in curves},
        {curve["marker"]["symbol"] for curve in curves},
        {curve["line"]["color"] for curve in curves},
    ):
        assert len(looks) == layout.MOST_CURVES
    assert "8 of 20 cells" in note_of(figure)


def test_dark_figures_have_the_same_data() -> None:
    """
    Dark changes looks and nothing else.
    """
    results = make_results({"a": [1.0, None], "b": [2.0]})
    light, dark = (
        spec_of(objective_by_cell(results, "score", direction=HIGHER, is_dark=is_dark))
        for is_dark in (False, True)
    )
    assert light["layout"]["paper_bgcolor"] != dark["layout"]["paper_bgcolor"]
    for one, other in zip(light["data"], dark["data"], strict=True):
        assert one["marker"] != other["marker"]
        one.pop("marker"), other.pop("marker")
        assert one == other
