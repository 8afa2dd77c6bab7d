"""
What all figures share: colours, shapes, layout, and how text from outside becomes plotly's.

Plotly reads every text as HTML of a kind, so names are escaped on their way in. What a page needs
besides the picture, the title, what it leaves out, and names for narrow screens, is plain text in
`layout.meta`.

Colours are those of Okabe and Ito (2008), which eyes of all kinds tell apart; shapes, dashes and
places tell the same once more, for print in grey.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from allele_mlflow.reports.plotted import tell_apart
from allele_mlflow.reports.wording import clean, explain, shorten
from allele_mlflow.units import Direction

WIDE_NAME, NARROW_NAME = 44, 16
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "4px,2px", "1px,4px")
SHAPES = (
    *("circle", "square", "diamond", "triangle-up"),
    *("x", "triangle-down", "star", "cross"),
)
#: Curves that dash, shape and colour can tell apart.
MOST_CURVES = 8
#: Values that span more than this ratio are drawn on a logarithmic axis.
_WIDE_SPAN = 1000.0
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_DIGITS = 10


@dataclass(frozen=True)
class Theme:
    """
    The colours of a figure. `tint` is as strong as text in `ink` can be read on.
    """

    ink: str
    faint: str
    soft: str
    paper: str
    tint: str
    better: str
    worse: str
    failed: str
    colours: tuple[str, ...]


_LIGHT = Theme(
    ink="#1b1e23",
    faint="#dfe2e6",
    soft="#6b7178",
    paper="#ffffff",
    tint="#56b4e9",
    better="#0072b2",
    worse="#d55e00",
    failed="#d55e00",
    colours=(
        *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
        *("#e69f00", "#56b4e9", "#1b1e23", "#7a7f87"),
    ),
)
_DARK = Theme(
    ink="#e6e8eb",
    faint="#343941",
    soft="#a3aab3",
    paper="#16181d",
    tint="#005a8e",
    better="#56b4e9",
    worse="#e69f00",
    failed="#e69f00",
    colours=(
        *("#56b4e9", "#e69f00", "#2fc79b", "#e39ac4"),
        *("#f0e442", "#4f8fd0", "#e6e8eb", "#9aa0a8"),
    ),
)


def theme_of(*, is_dark: bool) -> Theme:
    """
    The colours for a light page, or a dark one.
    """
    return _DARK if is_dark else _LIGHT


def plotly_script() -> str:
    """
    plotly.js of the installed plotly, fit to stand between script tags.

    Raises:
        ValueError: it holds what would end the tag.
    """
    script = str(get_plotlyjs())
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("plotly.js holds the end of a script tag: want another plotly release")
    return script


def as_text(text: str) -> str:
    """
    Text that plotly shows as it is: neither its HTML, nor its templates, which even names can be.
    """
    return html.escape(text, quote=False).replace("%{", "&#37;{")


def axis_title(name: str, unit: str) -> str:
    """
    A metric's name and unit, escaped for plotly.
    """
    return as_text(shorten(clean(name), 80) + explain(unit, Direction.NONE))


def hover(name: object, *parts: str, most_characters: int = WIDE_NAME) -> str:
    """
    A box of lines, escaped: a name from outside, then what is told of it.
    """
    words = [shorten(clean(name), most_characters), *(part for part in parts if part)]
    return "<br>".join(as_text(word) for word in words)


def numbers(values: Iterable[Any]) -> list[float | None]:
    """
    Numbers as a figure's file keeps them; None for what is not finite.
    """
    plain = (float(value) for value in values)
    return [float(f"{one:.{_DIGITS}g}") if math.isfinite(one) else None for one in plain]


def faded(colour: str, part: float = 0.15) -> str:
    """
    The colour, as good as transparent.
    """
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{part:g})"


def is_wide(values: Iterable[float]) -> bool:
    """
    Whether values span decades, and have a logarithm.
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > _WIDE_SPAN * min(finite)


def count_of(shown: int, whole: int, noun: str) -> str:
    """
    In words, how many there are, and how many of them are shown.
    """
    words = f"{whole:,} {noun}{'' if whole == 1 else 's'}"
    return words if shown == whole else f"{shown:,} of {words}"


def start_figure(theme: Theme, *, title: str) -> go.Figure:
    """
    A figure without data, in these colours; `title` is plain text.
    """
    axis = {
        "gridcolor": theme.faint,
        "linecolor": theme.faint,
        "zeroline": False,
        "title": {"standoff": 10},
    }
    figure = go.Figure()
    figure.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},
        font={"family": _FONT, "size": 13, "color": theme.ink},
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        margin={"l": 10, "r": 10, "t": 85, "b": 10},
        hoverlabel={"bgcolor": theme.paper, "font": {"color": theme.ink}, "align": "left"},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
        showlegend=True,
        meta={"title": title, "note": ""},
    )
    return figure


def finish_figure(figure: go.Figure, notes: Sequence[str]) -> go.Figure:
    """
    The figure with its title, and below it what it shows and leaves out.
    """
    figure.layout.meta["note"] = ", ".join(note for note in notes if note)
    title, note = (as_text(figure.layout.meta[part]) for part in ("title", "note"))
    figure.update_layout(
        title={
            "text": f"{title}<br><span style='font-size:12px'>{note}</span>",
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 22},
            "font": {"size": 16},
        }
    )
    return figure


def lay_out_below(figure: go.Figure, *, height_px: int) -> None:
    """
    A plot of that height, and below it the legend, two names a line.
    """
    named = sum(trace.showlegend is not False for trace in figure.data)
    figure.update_layout(
        height=height_px + 18 * math.ceil(named / 2),
        hovermode="closest",
        legend={"yref": "container", "y": 0, "yanchor": "bottom"},
    )


def lay_out_rows(figure: go.Figure, names: Sequence[str]) -> None:
    """
    The axis of rows: places are numbers, for names may be equal, or look like numbers or dates.

    Args:
        figure: Its height becomes that of the rows.
        names: Plain text, the topmost first.
    """
    count = len(names)
    wide = tell_apart([shorten(name, WIDE_NAME) for name in names])
    lines = 2 if count <= 50 else 1
    narrow = tell_apart([shorten(name, NARROW_NAME * lines) for name in names])
    figure.update_layout(
        height=130 + round(count * (34 if count <= 12 else 24 if count <= 50 else 16)),
        yaxis={
            "tickmode": "array",
            "tickvals": list(range(count)),
            "ticktext": [as_text(name) for name in wide],
            "tickfont": {"size": 12 if count <= 50 else 10},
            "range": [count - 0.4 if count else 0.5, -0.6],
            "automargin": True,
            "showgrid": True,
            "visible": bool(count),
        },
    )
    figure.layout.meta["narrow_names"] = [
        "<br>".join(as_text(line) for line in _break(name, lines)) for name in narrow
    ]


def _break(name: str, lines: int) -> list[str]:
    broken = textwrap.wrap(name, NARROW_NAME + 4) if lines > 1 else [name]
    return [*broken[: lines - 1], " ".join(broken[lines - 1 :])]


def lay_out_values(figure: go.Figure, title: str, values: Iterable[float]) -> None:
    """
    The horizontal axis of values; logarithmic, and so named, where they span decades.

    Args:
        figure: Its axis is laid out.
        title: Escaped.
        values: All that are drawn.
    """
    drawn = list(values)
    is_log = is_wide(drawn)
    figure.update_layout(
        xaxis={
            "title": {"text": f"{title}, logarithmic" if is_log else title},
            "type": "log" if is_log else "linear",
            "automargin": True,
            "visible": bool(drawn),
        }
    )


def say_nothing_to_show(
    figure: go.Figure, x: float = 0.5, *, text: str = "no repeat has a value"
) -> None:
    """
    A word in the place of data.
    """
    figure.add_annotation(text=text, x=x, y=0.5, xref="paper", yref="paper", showarrow=False)


def hide_axes(figure: go.Figure, *, height_px: int = 160) -> None:
    """
    A small figure without axes, for there is nothing to show.
    """
    figure.update_layout(
        height=height_px, xaxis={"visible": False}, yaxis={"visible": False}, showlegend=False
    )
