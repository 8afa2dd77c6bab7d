"""
Selections of runs compared: which metrics, by which direction, and whether timings may be.

Timings and memory from environments that do not allow it are not compared, and not in the family
that Holm corrects for: they are told apart from what was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pandas as pd

from allele_mlflow.analysis.aggregates import aggregate_scores, probability_of_improvement
from allele_mlflow.analysis.comparison import Comparisons, compare
from allele_mlflow.analysis.intervals import Estimate
from allele_mlflow.analysis.options import CompareOptions
from allele_mlflow.analysis.ranking import FEWEST_PROBLEMS, Ranking, rank_configurations
from allele_mlflow.analysis.selection import Selection, side_table
from allele_mlflow.analysis.sides import CELL, IS_FAILED, SEED
from allele_mlflow.environment.comparability import Comparability, Verdict, compare_environments
from allele_mlflow.errors import AnalysisError, ErrorKind
from allele_mlflow.units import Direction, describe

#: What is compared of a suite beside the metrics that it names, of other runs beside all but these.
OF_EVERY_RUN = ("trial/seconds", "phase/*/seconds")
_NOT_THEIRS = ("system/*", "phase/*", "trial/*", "allele/*")
#: Units of what depends on the machine.
_MACHINE_UNITS = frozenset(
    (
        *("s", "ms", "us", "ns", "second", "seconds", "milliseconds", "microseconds"),
        *("minutes", "hours", "percent", "%", "bytes", "kb", "mb", "mib", "gb", "gib"),
        *("megabytes", "watts", "joules"),
    )
)


@dataclass(frozen=True)
class SuiteComparison:
    """
    One candidate against the baseline.

    Attributes:
        baseline, candidate: What was compared.
        found: The verdicts; None where nothing was left to compare.
        units: Of the metrics, as far as they are known.
        comparability: Of the environments; None where one is not known.
        not_compared: Metrics left out because the environments do not allow it.
        notes: What a reader has to know besides.
    """

    baseline: Selection
    candidate: Selection
    found: Comparisons | None
    units: dict[str, str]
    comparability: Comparability | None
    not_compared: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Aggregate:
    """
    A configuration over all cells: the interquartile mean of a metric, and how likely a run of it
    is better than one of the baseline (None for the baseline itself).
    """

    label: str
    iqm: Estimate
    improvement: Estimate | None


@dataclass(frozen=True)
class SuiteRanking:
    """
    Several configurations by one metric: over cells that all of them finished.
    """

    metric: str
    direction: Direction
    cells: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    ranking: Ranking | None
    note: str


def compare_selections(
    baseline: Selection,
    candidate: Selection,
    *,
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    options: CompareOptions | None = None,
    across_environments: bool = False,
) -> SuiteComparison:
    """
    Whether the candidate is better than the baseline.

    Args:
        baseline: Runs.
        candidate: Others.
        metrics: Names or globs; by default what the suite names, the length of trials and phases;
            of runs of no suite every metric of theirs.
        by: Parameters that name the cells of runs of no suite.
        options: Its directions go before the suite's.
        across_environments: Compare timings whatever the environments are.
    Raises:
        AnalysisError: nothing of the two can be compared.
    """
    tables = _tables([baseline, candidate], by)
    names = _chosen(tables, [baseline, candidate], metrics)
    chosen = _with_directions(options or CompareOptions(), [baseline, candidate])
    comparability = _comparability(baseline, candidate)
    is_barred = (
        comparability is not None
        and comparability.verdict is Verdict.DIFFERENT
        and not across_environments
    )
    units = _units(names, [baseline, candidate])
    barred = [name for name in names if is_barred and _is_of_machine(name, units.get(name, ""))]
    left = [name for name in names if name not in barred]
    found = compare(*tables, metrics=left, options=chosen) if left else None
    return SuiteComparison(
        baseline,
        candidate,
        found,
        units,
        comparability,
        tuple(barred),
        tuple(_notes(baseline, candidate, comparability, chosen, left, by)),
    )


def rank_selections(
    selections: Sequence[Selection],
    *,
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    options: CompareOptions | None = None,
) -> list[SuiteRanking]:
    """
    Three or more configurations by each objective (or named metric) that is better in a direction.

    Raises:
        AnalysisError: they have no cell in common.
    """
    chosen = _with_directions(options or CompareOptions(), selections)
    tables = _tables(selections, by)
    objectives = {
        name
        for one in selections
        for name, facts in one.facts.metrics.items()
        if facts.is_objective
    }
    wanted = list(metrics) or sorted(objectives)
    names = [
        name
        for name in _chosen(tables, selections, wanted)
        if chosen.direction_of(name) is not Direction.NONE
    ]
    return [_rank(name, selections, tables, chosen) for name in names]


def _rank(
    metric: str,
    selections: Sequence[Selection],
    tables: Sequence[pd.DataFrame],
    options: CompareOptions,
) -> SuiteRanking:
    values = [_values_by_cell(table, metric) for table in tables]
    cells = [cell for cell in values[0] if all(cell in one for one in values)]
    direction = options.direction_of(metric)
    if not cells:
        return SuiteRanking(metric, direction, (), (), None, "no cell that all have finished")
    how = {"resamples": options.resamples, "seed": options.seed, "confidence": options.confidence}
    sides = [[one[cell] for cell in cells] for one in values]
    aggregates = tuple(
        Aggregate(
            selection.target.text,
            aggregate_scores(side, **how),  # type: ignore[arg-type]
            None if number == 0 else probability_of_improvement(sides[0], side, direction, **how),  # type: ignore[arg-type]
        )
        for number, (selection, side) in enumerate(zip(selections, sides, strict=True))
    )
    ranking, note = None, f"over {len(cells)} cells that all have finished"
    if len(cells) >= FEWEST_PROBLEMS:
        scores = [[sum(side[i]) / len(side[i]) for side in sides] for i in range(len(cells))]
        labels = [selection.target.text for selection in selections]
        ranking = rank_configurations(scores, labels, direction, alpha=options.alpha)
    else:
        note = f"one cell ({cells[0] or 'all runs'}): ranks want {FEWEST_PROBLEMS} or more"
    return SuiteRanking(metric, direction, tuple(cells), aggregates, ranking, note)


def _values_by_cell(table: pd.DataFrame, metric: str) -> dict[str, list[float]]:
    if metric not in table:
        return {}
    good = table[~table[IS_FAILED]].dropna(subset=[metric])
    return {str(cell): list(group[metric]) for cell, group in good.groupby(CELL, sort=False)}


def _tables(selections: Sequence[Selection], by: Sequence[str]) -> list[pd.DataFrame]:
    """
    A table a side. Parameters in which the sides were told to differ do not name a cell.
    """
    named = _named_in(selections)
    return [side_table(one, without=named, by=by) for one in selections]


def _named_in(selections: Sequence[Selection]) -> set[str]:
    return {
        name
        for one in selections
        for name in (one.target.wanted.names if one.target.wanted is not None else ())
    }


def _pooled(selection: Selection, named: Collection[str]) -> list[str]:
    """
    Axes of the suite that name no cell, and of which the side has several values.
    """
    params = selection.frames.params
    counts = params.groupby("key")["value"].nunique()
    axes = [name for name in selection.facts.axes if name in named]
    return [name for name in axes if counts.get(name, 1) > 1]


def _chosen(
    tables: Sequence[pd.DataFrame], selections: Sequence[Selection], metrics: Sequence[str]
) -> list[str]:
    there = dict.fromkeys(
        name for table in tables for name in table if name not in (CELL, SEED, IS_FAILED)
    )
    patterns = list(metrics)
    if not patterns:
        told = dict.fromkeys(name for one in selections for name in one.facts.metrics)
        patterns = [*told, *OF_EVERY_RUN] if told else []
    if patterns:
        found = [name for one in patterns for name in there if fnmatchcase(name, one)]
    else:
        others = [name for name in there if not _is_like(name, _NOT_THEIRS)]
        found = others + [name for name in there if _is_like(name, OF_EVERY_RUN)]
    if not found:
        raise AnalysisError(
            f"no metric like {', '.join(patterns) or 'any'}; there are "
            f"{', '.join(sorted(there)[:20]) or 'none'}",
            kind=ErrorKind.BAD_DATA,
        )
    return list(dict.fromkeys(found))


def _is_like(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, one) for one in patterns)


def _with_directions(options: CompareOptions, selections: Sequence[Selection]) -> CompareOptions:
    told = {
        name: facts.direction
        for one in reversed(selections)
        for name, facts in one.facts.metrics.items()
        if facts.direction is not Direction.NONE
    }
    return replace(options, directions={**told, **options.directions})


def _units(names: Sequence[str], selections: Sequence[Selection]) -> dict[str, str]:
    units = {}
    for name in names:
        told = [one.facts.metrics[name].unit for one in selections if name in one.facts.metrics]
        known = describe(name)
        unit = next((unit for unit in told if unit), known.unit if known else "")
        if unit:
            units[name] = unit
    return units


def _is_of_machine(name: str, unit: str) -> bool:
    return describe(name) is not None or unit.lower() in _MACHINE_UNITS


def _comparability(baseline: Selection, candidate: Selection) -> Comparability | None:
    if baseline.environment is None or candidate.environment is None:
        return None
    return compare_environments(baseline.environment, candidate.environment)


def _notes(
    baseline: Selection,
    candidate: Selection,
    comparability: Comparability | None,
    options: CompareOptions,
    names: Sequence[str],
    by: Sequence[str],
) -> Iterator[str]:
    named = _named_in([baseline, candidate])
    for name, one in (("baseline", baseline), ("candidate", candidate)):
        if one.running_count:
            if one.running_count == 1:
                yield f"1 run of the {name} goes on and is left out"
            else:
                yield f"{one.running_count} runs of the {name} go on and are left out"
        pooled = _pooled(one, named)
        if pooled and not by:
            yield f"the runs of the {name} are of several {', '.join(pooled)}, and taken together"
        if len(one.environment_ids) > 1:
            yield f"the {name} ran in {len(one.environment_ids)} environments"
    if comparability is None:
        yield "the environment of a side is not known: whether timings may be compared is yours"
    unknown = [name for name in names if options.direction_of(name) is Direction.NONE]
    if unknown:
        shown = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        yield f"which way is better is not known of {shown}: --higher, --lower"
