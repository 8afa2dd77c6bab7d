"""
Selections of runs against a baseline, as `allele-mlflow compare` does: which is better, how sure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from allele_mlflow.analysis.comparison import Comparison
from allele_mlflow.analysis.comparison_lines import VERDICT_ORDER, comparison_lines
from allele_mlflow.analysis.options import CompareOptions
from allele_mlflow.analysis.selection import Selection, select
from allele_mlflow.analysis.suite_comparison import (
    SuiteComparison,
    compare_selections,
    rank_selections,
)
from allele_mlflow.dashboard.pages.compare_rows import (
    ALL_RUNS,
    DifferenceRow,
    RankedMetric,
    Side,
    difference_rows,
    ranked_metric,
    side_of,
    sort_value,
)
from allele_mlflow.dashboard.pages.executions import read_executions
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import Knobs, Option, Paged, View, page_of, sorted_rows
from allele_mlflow.reports.figures import forest_plot
from allele_mlflow.tracking.frames import Reader

BASE, WITH, METRIC, VERDICT = "base", "with", "metric", "verdict"
MOST_SIDES = 12
#: Runs that are compared here at once, and names that are offered; the command has no such limit.
MOST_RUNS = 2_000
MOST_CHOICES = 300
MOST_METRICS = 300
#: Executions of a suite that are offered, newest first.
_MOST_BACK = 4


class Compare(msgspec.Struct, frozen=True, kw_only=True):
    """
    A comparison; nothing but `choices` where none was asked for. `notes` are of each candidate.
    """

    sides: list[Side]
    rows: Paged[DifferenceRow]
    verdicts: dict[str, int]
    notes: dict[str, list[str]]
    rankings: list[RankedMetric]
    metrics: list[str]
    choices: list[str]
    equivalence_ratio: float
    alpha: float


class _Found(NamedTuple):
    sides: list[Selection]
    compared: list[SuiteComparison]


SIDE_COLUMNS = (
    Column("role", "Side"),
    Column("selection", "Selection", Kind.NAME),
    Column("label", "Runs of", Kind.NAME),
    Column("runs", "Runs", Kind.COUNT),
    Column("failed", "Failed", Kind.COUNT),
    Column("running", "Going on", Kind.COUNT),
    Column("environments", "Environments", Kind.COUNT),
)
_COLUMNS = (
    Column("quantity", "Metric", Kind.NAME),
    Column("verdict", "Verdict, and why", Kind.STATUS, below="reason"),
    Column("change", "Change", Kind.WORDS),
    Column("baseline", "Baseline", Kind.NUMBER),
    Column("candidate", "Candidate", Kind.NUMBER),
    Column("difference", "Difference", Kind.NUMBER),
    Column("difference_low", "95 % from", Kind.NUMBER, can_sort=False),
    Column("difference_high", "to", Kind.NUMBER, can_sort=False),
    Column("a12", "A12", Kind.NUMBER),
    Column("p_holm", "p after Holm", Kind.NUMBER),
    Column("runs", "Runs", Kind.WORDS, can_sort=False),
)
_CELL = Column("cell", "Cell", Kind.NAME)
_CANDIDATE = Column("candidate_name", "Candidate", Kind.NAME)
RANK_COLUMNS = (
    Column("configuration", "Configuration", Kind.NAME),
    Column("mean_rank", "Mean rank", Kind.NUMBER),
    Column("iqm", "Interquartile mean", Kind.NUMBER),
    Column("iqm_low", "95 % from", Kind.NUMBER),
    Column("iqm_high", "to", Kind.NUMBER),
    Column("improvement", "P(better than the baseline)", Kind.NUMBER),
    Column("improvement_low", "95 % from", Kind.NUMBER),
    Column("improvement_high", "to", Kind.NUMBER),
)


def query(ask: Ask) -> Compare:
    """
    The comparison that the view asks for, what matters most first.

    Raises:
        RefusalError: 400: one selection alone, or too much.
        AnalysisError: a selection means nothing, or nothing can be compared.
        TrackingError: the store does not answer.
    """
    view, options = ask.view, CompareOptions()
    with ask.source.reader() as reader:
        choices = _choices(reader, ask.source.settings.experiment_prefix)
    found = _find(ask, options)
    rows = [row for one in found.compared for row in difference_rows(one)]
    rows = [row for row in rows if _is_wanted(row.metric, row.cell, row.verdict, view)]
    rankings = rank_selections(found.sides, metrics=_metrics(view)) if found.sides[2:] else []
    roles = ["baseline", *("candidate" for _ in found.compared)]
    return Compare(
        sides=[side_of(one, role) for one, role in zip(found.sides, roles, strict=True)]
        if found.sides
        else [],
        rows=page_of(sorted_rows(_by_weight(rows), view, sort_value), view),
        verdicts={one.value: sum(row.verdict is one for row in rows) for one in VERDICT_ORDER},
        notes={one.candidate.target.text: list(comparison_lines(one)) for one in found.compared},
        rankings=[ranked_metric(one) for one in rankings],
        metrics=_known_metrics(found.sides),
        choices=choices,
        equivalence_ratio=options.equivalence_ratio,
        alpha=options.alpha,
    )


def _find(ask: Ask, options: CompareOptions) -> _Found:
    """
    What the view asks for, read once for the page and its figure.
    """
    view = ask.view
    key = ("compare", view.options[BASE], *view.lists[WITH], "by", view.options[METRIC])
    return ask.source.recent.get(key, lambda: _compare(ask, options))


def _compare(ask: Ask, options: CompareOptions) -> _Found:
    base, others = ask.view.options[BASE], ask.view.lists[WITH]
    if not base and not others:
        return _Found([], [])
    if not base or not others:
        raise RefusalError(400, "want base=SELECTION and at least one with=SELECTION")
    if len(others) >= MOST_SIDES:
        raise RefusalError(400, f"{1 + len(others)} selections: want at most {MOST_SIDES}")
    settings = ask.source.settings
    with ask.source.reader() as reader:
        sides = [
            select(reader, settings.tracking_uri, one, prefix=settings.experiment_prefix)
            for one in (base, *others)
        ]
    count = sum(len(one.frames.runs) for one in sides)
    if count > MOST_RUNS:
        raise RefusalError(
            400,
            f"{count:,} runs: want at most {MOST_RUNS:,} here, NAME[EXPRESSION] means fewer; "
            "allele-mlflow compare takes any number",
        )
    metrics = _metrics(ask.view)
    compared = [
        compare_selections(sides[0], other, metrics=metrics, options=options) for other in sides[1:]
    ]
    return _Found(sides, compared)


def _metrics(view: View) -> list[str]:
    return [view.options[METRIC]] if view.options[METRIC] else []


def _is_wanted(metric: str, cell: str, verdict: str, view: View) -> bool:
    wanted = view.find.casefold()
    is_found = wanted in metric.casefold() or wanted in cell.casefold()
    return is_found and view.options[VERDICT] in ("", verdict)


def _by_weight(rows: Iterable[DifferenceRow]) -> list[DifferenceRow]:
    return sorted(rows, key=lambda row: VERDICT_ORDER.index(row.verdict))


def _known_metrics(sides: Iterable[Selection]) -> list[str]:
    told = [name for one in sides for name in one.facts.metrics]
    logged = [str(name) for one in sides for name in one.frames.metrics["key"].unique()]
    return list(dict.fromkeys([*told, *sorted(logged)]))[:MOST_METRICS]


def _choices(reader: Reader, prefix: str) -> list[str]:
    """
    What may be compared: experiments, and of suites the executions before the newest.
    """
    experiments = reader.experiments()
    active = experiments[experiments["lifecycle"] == "active"]
    counts: dict[str, int] = {}
    for one in read_executions(reader):
        counts[one.experiment_id] = counts.get(one.experiment_id, 0) + 1
    found = []
    for experiment_id, name in zip(active["experiment_id"], active["name"], strict=True):
        plain = name.removeprefix(prefix)
        found.append(plain)
        found += [f"{plain}~{back}" for back in range(1, counts.get(experiment_id, 0))][:_MOST_BACK]
    return found[:MOST_CHOICES]


def _differences_figure(ask: Ask, is_dark: bool) -> Any:
    options = CompareOptions()
    found = _find(ask, options)
    frames = []
    for one in found.compared:
        name = one.candidate.target.text if found.compared[1:] else ""
        frames.append(_frame(one, name, ask.view))
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if not len(rows):
        return None
    metrics = list(rows["metric"].unique())
    is_one = len(metrics) == 1
    return forest_plot(
        rows,
        metric=metrics[0] if is_one else None,
        unit=found.compared[0].units.get(metrics[0], "") if is_one else "",
        margin_ratio=None if is_one else options.equivalence_ratio,
        is_dark=is_dark,
    )


def _frame(compared: SuiteComparison, name: str, view: View) -> pd.DataFrame:
    """
    What the figure draws of a candidate; its name is before those of the cells where it has one.
    """
    if compared.found is None:
        return pd.DataFrame()

    def is_wanted(row: Comparison) -> bool:
        return _is_wanted(row.metric, row.cell or ALL_RUNS, row.verdict, view)

    rows = tuple(filter(is_wanted, compared.found.rows))
    frame = replace(compared.found, rows=rows).frame()
    if name and len(frame):
        frame["cell"] = [f"{name}: {cell}" if cell else name for cell in frame["cell"]]
    return frame


def _columns(content: Compare) -> tuple[Column, ...]:
    """
    Without the candidate where there is one alone.
    """
    return (_CELL, *([_CANDIDATE] if len(content.sides) > 2 else []), *_COLUMNS)


PAGE = Page(
    name="compare",
    path="/compare",
    title="Compare",
    summary="Selections of runs against a baseline: differences, intervals, verdicts, ranks.",
    query=query,
    content=Compare,
    template="compare.html",
    columns={"rows": _columns, "sides": SIDE_COLUMNS, "ranks": RANK_COLUMNS},
    knobs=Knobs(
        sorts=tuple(one.name for one in (_CELL, _CANDIDATE, *_COLUMNS) if one.can_sort),
        has_find=True,
        has_pages=True,
        options=(
            Option(BASE, "Baseline"),
            Option(WITH, "Candidate", is_repeated=True),
            Option(METRIC, "Metric"),
            Option(VERDICT, "Verdict", ("", *(one.value for one in VERDICT_ORDER))),
        ),
    ),
    figures={"differences": _differences_figure},
    instances=lambda source: [],
)
