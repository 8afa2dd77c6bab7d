"""
What to try next in an experiment, what came of earlier advice, and how good predictions were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd

from allele_mlflow import suite_tags as tags
from allele_mlflow.analysis.advice_ledger import Calibration, LedgerEntry, calibrate
from allele_mlflow.analysis.experiment_advice import AdviceReader
from allele_mlflow.analysis.factors import Effect
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.own_recommendations import MatrixAdvice, advise
from allele_mlflow.analysis.prediction_scores import PredictionScore, score_predictions
from allele_mlflow.analysis.selection import select
from allele_mlflow.dashboard.pages.executions import read_executions
from allele_mlflow.dashboard.pages.experiment import experiment_instances, experiment_name
from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.views import Knobs, Option, Paged, page_of, sorted_rows
from allele_mlflow.errors import AnalysisError
from allele_mlflow.reports.figures import gain_calibration
from allele_mlflow.tracking.frames import Reader

#: Larger matrices take minutes, which nobody waits for before a page.
MOST_CELLS = 60
#: Runs whose artifacts are looked at for advice and predictions.
MOST_RUNS = 150
NEXT, LEDGER, PREDICTIONS = "next", "ledger", "predictions"


class EffectRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a parameter, or two, do to an objective. `variance_ratio`: part of all scatter.
    """

    metric: str
    parameter: str
    between: str
    effect: float | None
    low: float | None
    high: float | None
    variance_ratio: float | None
    p_holm: float | None
    reason: str


class AdviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A recommendation. Gains are parts of what is there now: 0.1 is ten percent better.
    """

    id: str
    title: str
    source: str
    metric: str | None
    follow_ups: int
    expected_ratio: float | None
    realised_ratio: float | None
    realised_low: float | None
    realised_high: float | None
    verdict: str


class SourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far the word of a source can be relied on.
    """

    source: str
    told: int
    judged: int
    right_way_ratio: float | None
    realised_to_expected_ratio: float | None
    as_expected_ratio: float | None
    verdict: str


class ScoreRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    The predictions of one source, kind and metric.
    """

    predicted: str
    source: str
    told: int
    settled: int
    in_80_ratio: float | None
    in_95_ratio: float | None
    bias: float | None
    skill: float | None
    verdict: str


class Recommendations(msgspec.Struct, frozen=True, kw_only=True):
    """
    One part of the advice on an experiment; the other parts are empty.
    """

    experiment_id: str
    experiment: str
    part: str
    note: str
    effects: list[EffectRow]
    advice: Paged[AdviceRow]
    sources: list[SourceRow]
    scores: list[ScoreRow]


EFFECT_COLUMNS = (
    Column("metric", "Objective", Kind.NAME),
    Column("parameter", "Parameter", Kind.NAME),
    Column("between", "From and to"),
    Column("effect", "Effect", Kind.NUMBER),
    Column("low", "95 % from", Kind.NUMBER),
    Column("high", "to", Kind.NUMBER),
    Column("variance_ratio", "Of the scatter", Kind.RATIO),
    Column("p_holm", "p after Holm", Kind.NUMBER),
    Column("reason", "Why not clear", Kind.SENTENCE),
)
ADVICE_COLUMNS = (
    Column("title", "Recommendation", Kind.SENTENCE),
    Column("source", "Source", Kind.NAME),
    Column("metric", "Metric", Kind.NAME),
    Column("follow_ups", "Runs", Kind.COUNT),
    Column("expected_ratio", "Expected", Kind.RATIO),
    Column("realised_ratio", "Realised", Kind.RATIO),
    Column("realised_low", "95 % from", Kind.RATIO),
    Column("realised_high", "to", Kind.RATIO),
    Column("verdict", "Verdict"),
    Column("id", "Id", Kind.CODE),
)
SOURCE_COLUMNS = (
    Column("source", "Source", Kind.NAME),
    Column("told", "Told", Kind.COUNT),
    Column("judged", "Judged", Kind.COUNT),
    Column("right_way_ratio", "Right way", Kind.RATIO),
    Column("realised_to_expected_ratio", "Realised / expected", Kind.NUMBER),
    Column("as_expected_ratio", "As expected", Kind.RATIO),
    Column("verdict", "Verdict"),
)
SCORE_COLUMNS = (
    Column("predicted", "Predicted", Kind.NAME),
    Column("source", "Source", Kind.NAME),
    Column("told", "Told", Kind.COUNT),
    Column("settled", "Settled", Kind.COUNT),
    Column("in_80_ratio", "In 80 %", Kind.RATIO),
    Column("in_95_ratio", "In 95 %", Kind.RATIO),
    Column("bias", "Bias", Kind.NUMBER),
    Column("skill", "Skill", Kind.NUMBER),
    Column("verdict", "Verdict"),
)


def query(ask: Ask) -> Recommendations:
    """
    The part of the advice that the view names.

    Raises:
        RefusalError: 404: there is no such experiment.
        TrackingError: the store does not answer.
    """
    experiment_id, part = ask.params["experiment_id"], ask.view.options["part"]
    effects: list[EffectRow] = []
    advice: list[AdviceRow] = []
    sources: list[SourceRow] = []
    scores: list[ScoreRow] = []
    note = f"Looked for in the files of the newest {MOST_RUNS} runs."
    with ask.source.reader() as reader:
        name = experiment_name(reader, experiment_id)
        if part == NEXT:
            effects, advice, note = _next(ask, reader, name)
        elif part == PREDICTIONS:
            told = AdviceReader(reader, ask.source.tracking_uri, experiment_id, MOST_RUNS)
            scores = [_score(one) for one in score_predictions(told.predictions())]
    if part == LEDGER:
        entries = _entries(ask)
        advice = [_entry(one) for one in entries]
        sources = [_source(one) for one in calibrate(entries)]
    return Recommendations(
        experiment_id=experiment_id,
        experiment=name,
        part=part,
        note=note,
        effects=effects,
        advice=page_of(sorted_rows(advice, ask.view, getattr), ask.view),
        sources=sources,
        scores=scores,
    )


def _next(
    ask: Ask, reader: Reader, experiment: str
) -> tuple[list[EffectRow], list[AdviceRow], str]:
    """
    What the newest execution that is over says of its parameters, and a note on what it is of.
    """
    experiment_id = ask.params["experiment_id"]
    over = [one for one in read_executions(reader, [experiment_id]) if one.status != "RUNNING"]
    if not over:
        return [], [], "No execution of a suite is over here."
    newest = over[0]
    keys = reader.runs(
        [experiment_id],
        with_tags={tags.EXECUTION: newest.run_uid or "", tags.KIND: tags.RunKind.CELL},
        tag_keys=[tags.CELL_KEY],
        param_keys=[],
        metric_keys=[],
    ).tags["value"]
    count = keys.nunique()
    if count > MOST_CELLS:
        return [], [], f"The newest execution has {count:,} cells: allele-mlflow recommendations."
    try:
        selection = select(reader, ask.source.tracking_uri, newest.run_id)
        metric = ask.view.options["metric"]
        made = advise(selection, metrics=[metric] if metric else [])
    except AnalysisError as exc:
        return [], [], f"No advice on {experiment}: {exc}"
    return [_effect(one) for one in made.effects], _proposed(made), f"Of {selection.label}."


def _entries(ask: Ask) -> list[LedgerEntry]:
    experiment_id = ask.params["experiment_id"]

    def read() -> list[LedgerEntry]:
        with ask.source.reader() as reader:
            experiment_name(reader, experiment_id)  # there is one
            return AdviceReader(reader, ask.source.tracking_uri, experiment_id, MOST_RUNS).ledger()

    return ask.source.recent.get(("ledger", experiment_id), read)


def _effect(one: Effect) -> EffectRow:
    value, low, high = _parts(one.size)
    return EffectRow(
        metric=one.metric,
        parameter=" x ".join(one.term),
        between=", ".join(f"{first} to {last}" for first, last in one.between),
        effect=value,
        low=low,
        high=high,
        variance_ratio=_known(one.variance_ratio),
        p_holm=_known(one.p_holm),
        reason=one.reason,
    )


def _proposed(made: MatrixAdvice) -> list[AdviceRow]:
    found = []
    for one in made.documents():
        percent = one["expected_improvement"]
        found.append(
            AdviceRow(
                id=one["id"],
                title=f"{one['title']}: {one['description']}",
                source=one["source"],
                metric=one["metric"],
                follow_ups=0,
                expected_ratio=None if percent is None else percent / 100,
                realised_ratio=None,
                realised_low=None,
                realised_high=None,
                verdict="",
            )
        )
    return found


def _entry(one: LedgerEntry) -> AdviceRow:
    told = one.recommendation
    value, low, high = _parts(one.gain)
    return AdviceRow(
        id=told.recommendation_id,
        title=told.title,
        source=told.source,
        metric=one.metric,
        follow_ups=len(one.follow_ups),
        expected_ratio=_known(told.expected),
        realised_ratio=value,
        realised_low=low,
        realised_high=high,
        verdict=one.reason if one.found is None else one.found.verdict.value,
    )


def _source(one: Calibration) -> SourceRow:
    return SourceRow(
        source=one.source,
        told=one.told,
        judged=one.judged,
        right_way_ratio=_parts(one.direction_right)[0],
        realised_to_expected_ratio=_known(one.realised_ratio),
        as_expected_ratio=_parts(one.coverage)[0],
        verdict=one.verdict,
    )


def _score(one: PredictionScore) -> ScoreRow:
    return ScoreRow(
        predicted=f"{one.kind} of {one.metric}",
        source=one.source,
        told=one.told,
        settled=one.settled,
        in_80_ratio=_parts(one.coverage_80)[0],
        in_95_ratio=_parts(one.coverage_95)[0],
        bias=_parts(one.bias)[0],
        skill=_known(one.skill),
        verdict=one.verdict,
    )


def _parts(one: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if one is None else (_known(one.value), one.low, one.high)


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _calibration_figure(ask: Ask, is_dark: bool) -> Any:
    if ask.view.options["part"] != LEDGER:
        return None
    rows = [_gain(one) for one in _entries(ask) if one.gain is not None]
    return gain_calibration(pd.DataFrame(rows), is_dark=is_dark) if _has_both(rows) else None


def _gain(one: LedgerEntry) -> dict[str, Any]:
    told = one.recommendation
    value, low, high = _parts(one.gain)
    return {
        "source": told.source,
        "title": told.title,
        "verdict": one.found.verdict.value if one.found is not None else "",
        "expected": told.expected,
        "expected_low": told.expected_low,
        "expected_high": told.expected_high,
        "gain": value,
        "gain_low": low,
        "gain_high": high,
    }


def _has_both(rows: Sequence[dict[str, Any]]) -> bool:
    return any(one["expected"] is not None and one["gain"] is not None for one in rows)


PAGE = Page(
    name="recommendations",
    path="/experiments/{experiment_id}/recommendations",
    tab="Recommendations",
    summary="What to try next, what came of earlier advice, and how good predictions were.",
    query=query,
    content=Recommendations,
    template="recommendations.html",
    columns={
        "effects": EFFECT_COLUMNS,
        "advice": ADVICE_COLUMNS,
        "sources": SOURCE_COLUMNS,
        "scores": SCORE_COLUMNS,
    },
    knobs=Knobs(
        sorts=tuple(column.name for column in ADVICE_COLUMNS),
        has_pages=True,
        options=(
            Option("part", "Show", (NEXT, LEDGER, PREDICTIONS), NEXT),
            Option("metric", "Metric"),
        ),
    ),
    figures={"calibration": _calibration_figure},
    instances=experiment_instances,
)
