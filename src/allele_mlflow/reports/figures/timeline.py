"""
A run in time: phases, alerts, CPU, memory and GPU one above the other.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from allele_mlflow.reports.figures.layout import (
    Theme,
    as_text,
    count_of,
    finish_figure,
    hide_axes,
    hover,
    numbers,
    say_nothing_to_show,
    start_figure,
    theme_of,
)
from allele_mlflow.reports.plotted import merge_spans, thin_peaks
from allele_mlflow.reports.summary import check_columns
from allele_mlflow.reports.wording import clean, shorten, write_duration, write_number

#: Columns that are read, as `analysis.frames` has them: of PHASES, METRICS or histories, ALERTS.
PHASE_COLUMNS = ("name", "step", "begin", "seconds")
SAMPLE_COLUMNS = ("key", "timestamp_ms", "value")
ALERT_COLUMNS = ("time", "severity", "name", "message")
MOST_PHASE_ROWS, MOST_ALERTS, MOST_POINTS = 12, 200, 600
#: Phases that are nearer than this part of the whole are drawn as one.
_NEAR_RATIO = 1 / 800
_SEVERITIES = {
    "critical": "x",
    "error": "square",
    "warning": "triangle-up",
    "info": "circle-open",
}
_GPU = re.compile(r"system/gpu_(\d+)_utilization_percentage")
#: Key, name and unit of each curve, by panel.
_PANELS: tuple[tuple[str, dict[str, str]], ...] = (
    ("CPU (percent)", {"system/process_cpu_percent": "CPU of the benchmark, of one core"}),
    ("memory (MB)", {"system/process_rss_megabytes": "resident memory"}),
    ("GPU (percent)", {}),
)
_ROW_PX, _PANEL_PX, _GAP_PX = 26, 110, 26


class _Panel(NamedTuple):
    title: str
    curves: dict[str, pd.DataFrame]


def run_timeline(
    phases: pd.DataFrame,
    samples: pd.DataFrame,
    alerts: pd.DataFrame | None = None,
    *,
    began_ms: float | None = None,
    is_dark: bool = False,
) -> go.Figure:
    """
    Phases as bars in a row for each name, alerts at their time, and below them CPU, memory and GPU
    on the same axis of seconds.

    Args:
        phases: `PHASE_COLUMNS`; `complete` may be there, and what was not complete is hatched.
        samples: `SAMPLE_COLUMNS` of the keys of resources; others are passed over.
        alerts: `ALERT_COLUMNS`; `resolved`, `phase` and `step` may be there.
        began_ms: When the run began, since 1970; by default the earliest time in the frames.
        is_dark: For a dark page.
    Raises:
        ValueError: a column is missing.
    """
    theme = theme_of(is_dark=is_dark)
    spans = _spans_of(phases)
    taken = _samples_of(samples)
    raised = _alerts_of(alerts)
    first = [*spans.begin_s, *taken.time_s, *raised.time_s]
    zero = began_ms / 1000 if began_ms is not None else min(first, default=0.0)
    for frame, columns in (
        (spans, ["begin_s"]),
        (taken, ["time_s"]),
        (raised, ["time_s", "end_s"]),
    ):
        frame[columns] -= zero
    figure = start_figure(theme, title="The run in time")
    rows = _phase_rows(spans, has_alerts=bool(len(raised)))
    merged = _add_phases(figure, spans, rows, theme)
    _add_alerts(figure, raised, rows, theme)
    panels = _panels_of(taken)
    _add_panels(figure, panels, theme)
    _lay_out(figure, theme, rows, panels)
    if not figure.data:
        hide_axes(figure)
        say_nothing_to_show(figure, text="no phase, sample or alert")
    notes = [
        count_of(len(spans), len(spans), "phase"),
        f"of which near ones are drawn as one: {count_of(merged, merged, 'bar')}"
        if merged < len(spans)
        else "",
        count_of(len(taken), len(taken), "sample"),
        count_of(min(len(raised), MOST_ALERTS), len(raised), "alert"),
    ]
    return finish_figure(figure, notes)


def _spans_of(phases: pd.DataFrame) -> pd.DataFrame:
    frame = check_columns(phases, PHASE_COLUMNS, name="phases")
    found = pd.DataFrame(
        {
            "name": [clean(one) for one in frame.name],
            "step": list(frame.step),
            "begin_s": _seconds(frame.begin),
            "seconds": pd.to_numeric(frame.seconds, errors="coerce").to_numpy(dtype="float64"),
            "is_complete": [pd.isna(one) or bool(one) for one in _given(frame, "complete")],
        }
    )
    is_good = found.begin_s.abs().lt(math.inf) & found.seconds.between(0, 1e12)
    return found[is_good].reset_index(drop=True)


def _samples_of(samples: pd.DataFrame) -> pd.DataFrame:
    frame = check_columns(samples, SAMPLE_COLUMNS, name="samples")
    times = pd.to_numeric(frame.timestamp_ms, errors="coerce").to_numpy(dtype="float64") / 1000
    values = pd.to_numeric(frame.value, errors="coerce").to_numpy(dtype="float64")
    found = pd.DataFrame({"key": list(map(str, frame.key)), "time_s": times, "value": values})
    known = {key for _, curves in _PANELS for key in curves}
    is_known = np.array(
        [key in known or bool(_GPU.fullmatch(key)) for key in found.key], dtype=bool
    )
    is_good = found.value.abs().lt(math.inf) & found.time_s.abs().lt(math.inf) & is_known
    return found[is_good].sort_values("time_s", kind="stable", ignore_index=True)


def _alerts_of(alerts: pd.DataFrame | None) -> pd.DataFrame:
    given = pd.DataFrame() if alerts is None else alerts
    frame = check_columns(given, ALERT_COLUMNS, name="alerts")
    severities = [str(one) for one in frame.severity]
    resolved = frame.get("resolved", pd.Series(None, index=frame.index, dtype="object"))
    found = pd.DataFrame(
        {
            "time_s": _seconds(frame.time),
            "end_s": _seconds(resolved),
            "severity": [one if one in _SEVERITIES else "info" for one in severities],
            "name": [clean(one) for one in frame["name"]],
            "message": [clean(one) if isinstance(one, str) else "" for one in frame.message],
            "phase": [clean(one) if isinstance(one, str) else "" for one in _given(frame, "phase")],
        }
    )
    order = {severity: place for place, severity in enumerate(_SEVERITIES)}
    found = found[found.time_s.abs().lt(math.inf)].assign(rank=found.severity.map(order))
    return found.sort_values(["rank", "time_s"], kind="stable", ignore_index=True)


def _given(frame: pd.DataFrame, name: str) -> list[Any]:
    return list(frame[name]) if name in frame else [None] * len(frame)


def _seconds(moments: pd.Series) -> Any:
    """
    Seconds since 1970; NaN for what is no time.
    """
    times = pd.to_datetime(moments, utc=True, errors="coerce", format="ISO8601")
    zero = pd.Timestamp(0, unit="s", tz="UTC")
    return ((times - zero) / pd.Timedelta(seconds=1)).to_numpy(dtype="float64")


def _phase_rows(spans: pd.DataFrame, *, has_alerts: bool) -> list[str]:
    """
    Names of the rows, the alerts' first, then the phases' as they first begin, the longest kept.
    """
    totals = spans.groupby("name").seconds.sum().sort_values(ascending=False, kind="stable")
    kept = set(totals.index[:MOST_PHASE_ROWS])
    ordered = spans.sort_values("begin_s", kind="stable").name
    names = [name for name in dict.fromkeys(ordered) if name in kept]
    return (["alerts"] if has_alerts else []) + names


def _add_phases(figure: go.Figure, spans: pd.DataFrame, rows: list[str], theme: Theme) -> int:
    """
    The bars of the phases; how many they are.
    """
    bars = merge_spans(spans, near_ratio=_NEAR_RATIO)
    own = rows[1:] if rows[:1] == ["alerts"] else rows
    bars = bars[bars.name.isin(own)]
    if not len(bars):
        return 0
    shift = len(rows) - len(own)
    places = {name: place + shift for place, name in enumerate(own)}
    figure.add_trace(
        go.Bar(
            orientation="h",
            base=numbers(bars.begin_s),
            x=numbers(bars.seconds),
            y=[places[name] for name in bars.name],
            width=0.7,
            name="phase",
            showlegend=False,
            marker={
                "color": [theme.colours[places[name] % 5] for name in bars.name],
                "line": {"width": 0},
                "pattern": {
                    "shape": ["" if whole else "/" for whole in bars.is_complete],
                    "fgcolor": theme.paper,
                    "solidity": 0.4,
                },
            },
            hovertext=[_phase_hover(row) for row in bars.itertuples()],
            hoverinfo="text",
        )
    )
    return len(bars)


def _phase_hover(bar: Any) -> str:
    several = f"{bar.count_of} phases" if bar.count_of > 1 else ""
    step = "" if bar.count_of > 1 or pd.isna(bar.step) else f"step {bar.step}"
    took = f"{write_duration(bar.seconds)} from {write_number(bar.begin_s)} s on"
    return hover(bar.name, several, step, took, "" if bar.is_complete else "not ended")


def _add_alerts(figure: go.Figure, alerts: pd.DataFrame, rows: list[str], theme: Theme) -> None:
    if not len(alerts):
        return
    place = rows.index("alerts")
    drawn = alerts.head(MOST_ALERTS)
    for severity, symbol in _SEVERITIES.items():
        chosen = drawn[drawn.severity == severity]
        if not len(chosen):
            continue
        colour = theme.soft if severity == "info" else theme.failed
        figure.add_trace(
            go.Scatter(
                x=numbers(chosen.time_s),
                y=[place] * len(chosen),
                mode="markers",
                name=f"{severity} alert",
                marker={
                    "symbol": symbol,
                    "size": 11,
                    "color": colour,
                    "line": {"width": 2, "color": colour},
                },
                hovertext=[_alert_hover(one) for one in chosen.itertuples()],
                hoverinfo="text",
            )
        )


def _alert_hover(alert: Any) -> str:
    lasted = alert.end_s - alert.time_s
    words = f"resolved after {write_duration(lasted)}" if lasted >= 0 else "not resolved"
    return hover(
        alert.name,
        alert.severity,
        shorten(alert.message, 160),
        f"at {write_number(alert.time_s)} s, {words}",
        f"phase {shorten(alert.phase, 60)}" if alert.phase else "",
    )


def _panels_of(samples: pd.DataFrame) -> list[_Panel]:
    panels = []
    for title, curves in _PANELS:
        names = dict(curves)
        if title.startswith("GPU"):
            keys = sorted(set(samples.key))
            found = [(key, _GPU.fullmatch(key)) for key in keys]
            names = {key: f"GPU {match[1]}" for key, match in found if match is not None}
        there = {
            name: samples[samples.key == key]
            for key, name in list(names.items())[:8]
            if (samples.key == key).any()
        }
        if there:
            panels.append(_Panel(title, there))
    return panels


def _add_panels(figure: go.Figure, panels: list[_Panel], theme: Theme) -> None:
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "4px,2px", "1px,4px")
    for number, panel in enumerate(panels, 2):
        for place, (name, own) in enumerate(panel.curves.items()):
            kept = own.iloc[thin_peaks(own.value.to_numpy(), MOST_POINTS)]
            figure.add_trace(
                go.Scatter(
                    x=numbers(kept.time_s),
                    y=numbers(kept.value),
                    yaxis=f"y{number}",
                    mode="lines+markers",
                    name=name,
                    line={"color": theme.colours[place], "width": 1.5, "dash": dashes[place]},
                    marker={"size": 4},
                    hovertext=[
                        f"{name}: {write_number(one.value)} at {write_number(one.time_s)} s"
                        for one in kept.itertuples()
                    ],
                    hoverinfo="text",
                )
            )


def _lay_out(figure: go.Figure, theme: Theme, rows: list[str], panels: list[_Panel]) -> None:
    """
    The panels below each other, on one axis of time.
    """
    heights = ([_ROW_PX * max(len(rows), 1) + 20] if rows else []) + [_PANEL_PX] * len(panels)
    whole = sum(heights) + _GAP_PX * max(len(heights) - 1, 0)
    top, domains = float(whole), []
    for height in heights:
        domains.append([max(0.0, (top - height) / whole), min(1.0, top / whole)])
        top -= height + _GAP_PX
    figure.update_layout(
        height=whole + 170,
        barmode="overlay",
        hovermode="closest",
        legend={"yref": "container", "y": 0, "yanchor": "bottom"},
        xaxis={
            "title": {"text": "seconds since the start of the run"},
            "anchor": f"y{len(panels) + 1}" if panels else "y",
            "automargin": True,
        },
        yaxis={
            "domain": domains[0] if rows else [0.0, 0.0],
            "tickmode": "array",
            "tickvals": list(range(len(rows))),
            "ticktext": [as_text(shorten(name, 24)) for name in rows],
            "range": [len(rows) - 0.4 if rows else 1, -0.6],
            "automargin": True,
            "visible": bool(rows),
            "fixedrange": True,
        },
    )
    for number, panel in enumerate(panels, 2):
        figure.update_layout(
            {
                f"yaxis{number}": {
                    "domain": domains[number - 2 + bool(rows)],
                    "title": {
                        "text": panel.title.replace(" (", "<br>("),
                        "standoff": 6,
                        "font": {"size": 12},
                    },
                    "anchor": "x",
                    "rangemode": "tozero",
                    "automargin": True,
                    "gridcolor": theme.faint,
                    "zeroline": False,
                }
            }
        )
