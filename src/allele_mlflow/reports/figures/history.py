"""
The history of a metric over executions: its level, where that shifted, and what else stands out.
"""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    Theme,
    axis_title,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    lay_out_below,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, shorten, write_number

#: Columns of one history, as `analysis.histories.SERIES` has them; `environment`, `commit` and
#: `spread` (of the repeats behind a value) may be there.
SERIES_COLUMNS = ("execution_id", "started_ms", "value")
#: Columns of its findings, as the document of `allele-mlflow trend --json` has them.
FINDING_COLUMNS = ("kind", "outcome", "execution", "level_before", "level_after", "words")
MOST_EXECUTIONS = 1000
MOST_FINDINGS = 60
#: The end of the year 2261, the last that every pandas can hold.
_LAST_MS = 9_214_646_400_000
_SHAPES = {
    "regression": "triangle-down",
    "improvement": "triangle-up",
    "neutral": "diamond",
    "outlier": "x-open",
}
_LASTING = ("change", "environment change")


def metric_history(
    series: pd.DataFrame,
    findings: pd.DataFrame | None = None,
    *,
    metric: str,
    cell: str = "",
    unit: str = "",
    is_dark: bool = False,
) -> go.Figure:
    """
    One metric of one cell over the executions of a suite: values with the spread of their repeats,
    levels between shifts, findings by kind, and where the environment changed.

    Args:
        series: `SERIES_COLUMNS`, of one cell and metric.
        findings: `FINDING_COLUMNS`, of the same; those of other executions are passed over.
        metric: Its name.
        cell: Whose it is.
        unit: Of the metric.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    whole = check_columns(series, SERIES_COLUMNS, name="series")
    whole = whole.sort_values("started_ms", kind="stable", ignore_index=True)
    rows = whole.tail(MOST_EXECUTIONS).reset_index(drop=True)
    values = pd.to_numeric(rows.value, errors="coerce").astype("float64")
    rows = rows.assign(value=values.where(values.abs() < math.inf), when=_dates(rows.started_ms))
    found = _placed(findings, rows)
    of = f" of {clean(cell)}" if cell else ""
    figure = start_figure(theme, title=f"{clean(metric)}{of} over executions")
    if rows.value.notna().any():
        figure.add_trace(_values_trace(rows, theme))
        figure.add_traces(_level_traces(rows, found, theme))
        figure.add_traces(_finding_traces(found, theme))
    changes = _mark_environments(figure, rows, theme)
    _lay_out(figure, axis_title(metric, unit))
    missing = int(rows.value.isna().sum())
    notes = [
        count_of(len(rows), len(whole), "execution"),
        f"{missing} without a value" if missing else "",
        count_of(len(found), len(found), "finding"),
        f"{count_of(changes, changes, 'change')} of the environment" if changes else "",
    ]
    return finish_figure(figure, notes)


def _dates(times_ms: pd.Series) -> list[str]:
    """
    Times as plotly reads dates; empty for what is none.
    """
    times = pd.to_numeric(times_ms, errors="coerce").astype("float64")
    moments = pd.to_datetime(times.where(times.between(0, _LAST_MS)), unit="ms")
    return ["" if pd.isna(one) else f"{one:%Y-%m-%d %H:%M:%S}" for one in moments]


def _placed(findings: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame:
    """
    The findings with the `place` of their execution in the rows, in order.
    """
    given = pd.DataFrame() if findings is None else findings
    frame = check_columns(given, FINDING_COLUMNS, name="findings")
    places = {one: place for place, one in enumerate(rows.execution_id)}
    frame = frame.assign(place=[places.get(one, math.nan) for one in frame.execution])
    levels = ("level_before", "level_after")
    numeric = {name: pd.to_numeric(frame[name], errors="coerce") for name in levels}
    frame = frame.assign(**numeric)
    known = frame[frame.place.notna()].sort_values("place", kind="stable", ignore_index=True)
    known = known.assign(place=known.place.astype("int64")).tail(MOST_FINDINGS)
    return known.assign(when=[rows.when.iloc[place] for place in known.place])


def _values_trace(rows: pd.DataFrame, theme: Theme) -> go.Scatter:
    spread = rows.get("spread", pd.Series(math.nan, index=rows.index))
    commits = rows.get("commit", pd.Series("", index=rows.index))
    spreads = pd.to_numeric(spread, errors="coerce").astype("float64")
    return go.Scatter(
        x=list(rows.when),
        y=numbers(rows.value),
        mode="lines+markers",
        name="value of an execution",
        line={"color": theme.colours[0], "width": 1},
        marker={"color": theme.colours[0], "size": 6},
        error_y={
            "type": "data",
            "array": numbers(spreads),
            "color": theme.soft,
            "thickness": 1,
            "width": 2,
            "visible": bool(spreads.notna().any()),
        },
        hovertext=[
            hover(
                execution,
                f"{when} UTC",
                f"{write_number(value)}" + ("" if pd.isna(one) else f" ± {write_number(one)}"),
                f"commit {clean(commit)[:10]}" if isinstance(commit, str) and commit else "",
            )
            for execution, when, value, one, commit in zip(
                rows.execution_id, rows.when, rows.value, spreads, commits, strict=True
            )
        ],
        hoverinfo="text",
    )


def _level_traces(rows: pd.DataFrame, found: pd.DataFrame, theme: Theme) -> list[go.Scatter]:
    """
    Lines at the levels before and after each shift; of a drift its line.
    """
    x: list[str | None] = []
    y: list[float] = []
    lasting = found[found.kind.isin(_LASTING)]
    ends = [0, *lasting.place, len(rows)]
    for number, one in enumerate(lasting.itertuples()):
        if number == 0:
            x += [rows.when.iloc[0], rows.when.iloc[max(int(one.place) - 1, 0)], None]
            y += [one.level_before, one.level_before, math.nan]
        x += [rows.when.iloc[one.place], rows.when.iloc[max(ends[number + 2] - 1, one.place)], None]
        y += [one.level_after, one.level_after, math.nan]
    for one in found[found.kind == "drift"].itertuples():
        x += [rows.when.iloc[0], rows.when.iloc[one.place], None]
        y += [one.level_before, one.level_after, math.nan]
    if not x:
        return []
    line = {"color": theme.ink, "width": 3, "dash": "dash"}
    return [go.Scatter(x=x, y=numbers(y), mode="lines", name="level", line=line, hoverinfo="skip")]


def _finding_traces(found: pd.DataFrame, theme: Theme) -> list[go.Scatter]:
    colours = {"regression": theme.worse, "improvement": theme.better}
    traces = []
    kinds = [
        "outlier" if kind == "outlier" else str(outcome)
        for kind, outcome in zip(found.kind, found.outcome, strict=True)
    ]
    for name, symbol in _SHAPES.items():
        chosen = found[[kind == name for kind in kinds]]
        if not len(chosen):
            continue
        own = colours.get(name, theme.ink)
        traces.append(
            go.Scatter(
                x=list(chosen.when),
                y=numbers(chosen.level_after),
                mode="markers",
                name=name if name != "neutral" else "change, neither better nor worse",
                marker={
                    "symbol": symbol,
                    "size": 14,
                    "color": own,
                    "line": {"width": 2, "color": own},
                },
                hovertext=[hover(shorten(clean(one), 200)) for one in chosen.words],
                hoverinfo="text",
            )
        )
    return traces


def _mark_environments(figure: go.Figure, rows: pd.DataFrame, theme: Theme) -> int:
    """
    A dotted line at each execution in another environment than the one before it; how many.
    """
    if "environment" not in rows:
        return 0
    known = [str(one) if isinstance(one, str) and one else None for one in rows.environment]
    changes: list[str] = []
    last: str | None = None
    for when, one in zip(rows.when, known, strict=True):
        if one is not None and last is not None and one != last:
            changes.append(when)
        last = one or last
    for when in changes[-MOST_FINDINGS:]:
        figure.add_shape(
            type="line",
            x0=when,
            x1=when,
            y0=0,
            y1=1,
            yref="paper",
            line={"color": theme.soft, "width": 1.5, "dash": "dot"},
        )
    if changes:
        figure.add_annotation(
            text="environment",
            x=changes[-1],
            y=1,
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11, "color": theme.soft},
        )
    return len(changes)


def _lay_out(figure: go.Figure, title: str) -> None:
    is_empty = not figure.data
    lay_out_below(figure, height_px=340)
    figure.update_layout(
        showlegend=len(figure.data) > 1,
        xaxis={
            "title": {"text": "start of the execution (UTC)"},
            "type": "date",
            "automargin": True,
        },
        yaxis={"title": {"text": title}, "automargin": True},
    )
    if is_empty:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no execution has a value")
