"""
What a report of a suite is made of, and the numbers of its tables. Pure.

A repeat is one cell measured once more. It may take several attempts, each a run of its own; what
counts is the last attempt that finished, else the last one. A value that is missing, NaN or
infinite is no value: it is counted, and in no median.

Quartiles are interpolated linearly between values (type 7 of Hyndman and Fan 1996), as pandas and
NumPy do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from allele_mlflow.reports.wording import clean, write_number
from allele_mlflow.units import Direction

#: Columns of `results` that a report reads, beside `param.<name>` and `metric.<name>`.
RESULT_COLUMNS = ("cell", "cell_key", "repeat", "attempt", "status", "category", "seconds")
HISTORY_COLUMNS = ("cell", "cell_key", "repeat", "key", "step", "value")
FINISHED = "finished"
_QUANTILES = [0.0, 0.25, 0.5, 0.75, 1.0]
_SHOWN_VALUES = 12


@dataclass(frozen=True)
class Objective:
    """
    A returned metric by which cells are compared: its name, unit and better direction.
    """

    name: str
    unit: str = ""
    direction: Direction = Direction.NONE


@dataclass(frozen=True)
class FailureGroup:
    """
    Failures with one fingerprint. `cells` are names, `message` that of one of them.
    """

    category: str
    fingerprint: str
    count: int
    message: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Link:
    """
    Where more is to be found. Shown as text: a report opens no address.
    """

    text: str
    address: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PastComparison:
    """
    An execution against the one before it.

    Attributes:
        baseline: The one before, for people.
        rows: A row a cell and metric, as `figures.forest.COMPARISON_COLUMNS` has them.
        units: Of the metrics, as far as they are known.
        margin_ratio: Up to this part of the baseline a difference makes none in practice.
        notes: What was left out, and what a reader has to know besides.
    """

    baseline: str
    rows: pd.DataFrame
    units: Mapping[str, str] = field(default_factory=dict)
    margin_ratio: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Searches:
    """
    How soon the searches for an objective reached their targets, in evaluations.

    Attributes:
        objective: Its name.
        cells: All that searched.
        runtimes: Columns cell, evaluations, reached_ratio.
        running_times: Columns cell, target, runs, reached, expected_evaluations,
            median_evaluations.
    """

    objective: str
    cells: tuple[str, ...]
    runtimes: pd.DataFrame
    running_times: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteSummary:
    """
    All that a report says of one execution of a suite.

    Attributes:
        suite: Its name.
        execution: Which execution of it.
        started_at: With its time zone.
        ended_at: With its time zone; None where it has not ended.
        where: Host, or whatever tells machines apart.
        objectives: What cells are compared by; the first one orders them.
        results: Tidy, one row a run: `RESULT_COLUMNS`, `seed`, `run_id`, `run_uid`, and a column
            `param.<name>` for each parameter, `metric.<name>` for each returned metric. `status` is
            `finished` or `failed`, `category` that of the error, or None.
        history: `HISTORY_COLUMNS`, the readings of the objectives; may be empty.
        failures: Largest group first.
        planned_count: Repeats that were to be run; None where all of them have a row.
        settings: Of the suite: repeats, warm-ups, seed, time-out.
        environment: Of the machine and its software, in few lines.
        links: To MLflow and the like.
        notes: What a reader must know before the numbers: interrupted, machine busy.
        comparison: With the execution before; None where there is none.
        searches: Of the objectives that were logged step by step.
    """

    suite: str
    execution: str
    started_at: datetime
    ended_at: datetime | None
    where: str
    objectives: tuple[Objective, ...]
    results: pd.DataFrame
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    failures: tuple[FailureGroup, ...] = ()
    planned_count: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    notes: tuple[str, ...] = ()
    comparison: PastComparison | None = None
    searches: tuple[Searches, ...] = ()


@dataclass(frozen=True)
class Spread:
    """
    Five numbers of `count` finite values.
    """

    count: int
    low: float
    first_quartile: float
    median: float
    third_quartile: float
    high: float


@dataclass(frozen=True)
class CellRow:
    """
    One cell of the table. `spreads` follows the objectives, None where no repeat has a value.
    """

    cell: str
    cell_key: str
    repeat_count: int
    finished_count: int
    spreads: tuple[Spread | None, ...]
    seconds: Spread | None


@dataclass(frozen=True)
class ParameterRow:
    """
    A parameter and the values it took, in words.
    """

    name: str
    values: str
    is_varied: bool


def check_columns(frame: pd.DataFrame, wanted: Sequence[str], *, name: str) -> pd.DataFrame:
    """
    The frame itself; one without rows gets the columns that it lacks.

    Raises:
        ValueError: a column is missing.
    """
    missing = [column for column in wanted if column not in frame.columns]
    if missing and len(frame):
        raise ValueError(
            f"{name} without {', '.join(missing)}: want columns {', '.join(wanted)}"
            f" (got {', '.join(map(str, frame.columns))})"
        )
    return frame.reindex(columns=[*frame.columns, *missing]) if missing else frame


def outcomes_of(results: pd.DataFrame) -> pd.DataFrame:
    """
    One row a repeat: of its attempts the last that finished, else the last. In the order of cells
    as they first appear, with `is_finished`, and with a name for each cell.

    Raises:
        ValueError: a column is missing.
    """
    frame = check_columns(results, RESULT_COLUMNS, name="results")
    names = frame.cell.where(frame.cell.notna(), frame.cell_key)
    frame = frame.assign(
        cell=[clean(name) for name in names],
        is_finished=frame.status == FINISHED,
        place=pd.factorize(frame.cell_key)[0],
    )
    order = ["place", "repeat", "is_finished", "attempt"]
    return frame.sort_values(order, kind="stable").drop_duplicates(
        ["cell_key", "repeat"], keep="last", ignore_index=True
    )


def values_of(outcomes: pd.DataFrame, column: str) -> pd.Series:
    """
    The finite values of a column for the repeats that finished, NaN for all other rows.
    """
    if column not in outcomes.columns:
        return pd.Series(math.nan, index=outcomes.index, dtype="float64")
    values = pd.to_numeric(outcomes[column], errors="coerce").astype("float64")
    is_finite = values.abs() < math.inf
    return values.where(is_finite & outcomes.is_finished.astype(bool))


def medians_by(values: pd.Series, keys: pd.Series) -> pd.Series:
    """
    The median of each group. Halves are added up, for two values may be too large for a sum.
    """
    return 2.0 * (values / 2.0).groupby(keys).median()


def quantiles_by(values: pd.Series, keys: pd.Series, parts: Sequence[float]) -> pd.DataFrame:
    """
    A row a group, a column a quantile, of halves as `medians_by`.
    """
    return 2.0 * (values / 2.0).groupby(keys).quantile(list(parts)).unstack()


def ordered_cells(outcomes: pd.DataFrame, objective: str, direction: Direction) -> list[str]:
    """
    Keys of all cells, the best median first, those without a value last. Where no direction is
    better, and among equals, as they first appear.
    """
    keys = list(dict.fromkeys(outcomes.cell_key))
    if direction is Direction.NONE:
        return keys
    values = values_of(outcomes, f"metric.{objective}")
    medians = medians_by(values, outcomes.cell_key).to_dict()
    sign = -1 if direction is Direction.HIGHER else 1

    def rank(key: str) -> float:
        median = medians.get(key, math.nan)
        return math.inf if math.isnan(median) else sign * median

    return sorted(keys, key=rank)


def cell_rows(results: pd.DataFrame, objectives: Sequence[Objective]) -> list[CellRow]:
    """
    The table of a suite, ordered by its first objective.

    Raises:
        ValueError: a column is missing.
    """
    outcomes = outcomes_of(results)
    if not len(outcomes):
        return []
    spreads = [_spreads(outcomes, f"metric.{one.name}") for one in objectives]
    seconds = _spreads(outcomes, "seconds")
    names = dict(zip(outcomes.cell_key, outcomes.cell, strict=True))
    grouped = outcomes.groupby("cell_key").is_finished
    repeats, finished = grouped.size().to_dict(), grouped.sum().to_dict()
    first = objectives[0] if objectives else Objective("")
    return [
        CellRow(
            cell=names[key],
            cell_key=key,
            repeat_count=int(repeats[key]),
            finished_count=int(finished[key]),
            spreads=tuple(one.get(key) for one in spreads),
            seconds=seconds.get(key),
        )
        for key in ordered_cells(outcomes, first.name, first.direction)
    ]


def parameter_rows(results: pd.DataFrame) -> list[ParameterRow]:
    """
    The parameters of all cells, those that vary first.
    """
    rows = []
    for column in map(str, results.columns):
        if not column.startswith("param."):
            continue
        values = [clean(one) for one in results[column].dropna().unique()]
        words = ", ".join(values[:_SHOWN_VALUES])
        if len(values) > _SHOWN_VALUES:
            words += f" … ({len(values)} values)"
        rows.append(ParameterRow(clean(column.removeprefix("param.")), words, len(values) > 1))
    return sorted(rows, key=lambda row: not row.is_varied)


def write_quartiles(spread: Spread | None) -> str:
    """
    First and third quartile; nothing where there are no two values.
    """
    if spread is None or spread.count < 2:
        return ""
    return f"{write_number(spread.first_quartile)} … {write_number(spread.third_quartile)}"


def write_range(spread: Spread | None) -> str:
    """
    Smallest and largest value; nothing where there are no two.
    """
    if spread is None or spread.count < 2:
        return ""
    return f"{write_number(spread.low)} … {write_number(spread.high)}"


def _spreads(outcomes: pd.DataFrame, column: str) -> dict[str, Spread]:
    values = values_of(outcomes, column).dropna()
    if not len(values):
        return {}
    keys = outcomes.cell_key[values.index]
    counts = values.groupby(keys).size()
    numbers = quantiles_by(values, keys, _QUANTILES)
    return {
        key: Spread(int(counts[key]), *(float(one) for one in numbers.loc[key]))
        for key in counts.index
    }
