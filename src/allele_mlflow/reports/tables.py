"""
The words and tables of a report, whatever they are written into. Pure.

All is plain text in one line each, bounded in length and number; who writes it escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from allele_mlflow.reports.summary import (
    CellRow,
    FailureGroup,
    Objective,
    SuiteSummary,
    cell_rows,
    parameter_rows,
    write_quartiles,
    write_range,
)
from allele_mlflow.reports.wording import (
    MISSING,
    clean,
    explain,
    shorten,
    write_duration,
    write_number,
    write_ratio,
    write_time,
)

#: Rows of a table, cells named with a failure, characters of a text: at most.
MOST_ROWS = 500
_MOST_NAMED_CELLS = 8
_LONGEST_NAME, _LONGEST_TEXT, _LONGEST_ADDRESS = 200, 600, 2000


@dataclass(frozen=True)
class Column:
    """
    The head of a column; numbers stand to the right.
    """

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """
    Rows of text: of `row_count` things, called `noun`, those that are shown.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    row_count: int
    noun: str

    @property
    def note(self) -> str:
        """
        What was left out; empty where nothing was.
        """
        if len(self.rows) == self.row_count:
            return ""
        return f"The first {len(self.rows)} of {self.row_count} {self.noun}."

    def bounded(self, most_rows: int) -> Table:
        """
        The same with at most so many rows.
        """
        return replace(self, rows=self.rows[:most_rows])


def headline_of(summary: SuiteSummary) -> list[tuple[str, str]]:
    """
    Names and values of what a reader wants first.

    Raises:
        ValueError: a moment without time zone, or results without a column.
    """
    rows = cell_rows(summary.results, summary.objectives)
    started, ended = summary.started_at, summary.ended_at
    # written first: a moment without a zone is refused with words, not in the subtraction
    start = write_time(started)
    end = write_time(ended) if ended is not None else "not ended"
    took = write_duration((ended - started).total_seconds()) if ended is not None else MISSING
    return [
        ("Execution", plain_name(summary.execution)),
        ("Started", start),
        ("Ended", end),
        ("Duration", took),
        ("Where", plain_text(summary.where) or MISSING),
        ("Cells", _count_cells(rows)),
        ("Repeats", _count_repeats(rows, summary.planned_count)),
    ]


def name_of(summary: SuiteSummary) -> str:
    """
    The suite's name.
    """
    return plain_name(summary.suite)


def notes_of(summary: SuiteSummary) -> list[str]:
    """
    What a reader must know first.
    """
    return [plain_text(note) for note in summary.notes]


def title_of(objective: Objective) -> str:
    """
    An objective's name with its unit and better direction.
    """
    return plain_name(objective.name) + explain(objective.unit, objective.direction)


def cells_table(summary: SuiteSummary, *, others: Sequence[Objective] = ()) -> Table:
    """
    One row a cell, the best by the first objective on top: success, duration, medians of the
    objectives and of other metrics.
    """
    metrics = (*summary.objectives, *others)
    rows = cell_rows(summary.results, metrics)
    columns = (
        Column("Cell"),
        *(
            Column(
                f"Median {plain_name(one.name)}{explain(one.unit, one.direction)}", is_number=True
            )
            for one in metrics
        ),
        Column("Finished", is_number=True),
        Column("Success", is_number=True),
        Column("Median (seconds)", is_number=True),
        Column("Quartiles (seconds)", is_number=True),
    )
    return bounded(
        columns,
        [
            (
                plain_name(row.cell),
                *(write_number(one.median if one else None) for one in row.spreads),
                f"{row.finished_count} of {row.repeat_count}",
                write_ratio(row.finished_count, row.repeat_count),
                write_number(row.seconds.median if row.seconds else None),
                write_quartiles(row.seconds) or MISSING,
            )
            for row in rows
        ],
        "cells",
    )


def objective_table(summary: SuiteSummary, objective: Objective) -> Table:
    """
    One row a cell, the best by this objective on top: count, median, quartiles, extremes.
    """
    columns = (
        Column("Cell"),
        *(Column(title, is_number=True) for title in ("n", "Median", "Quartiles", "Min … max")),
    )
    lines = []
    for row in cell_rows(summary.results, [objective]):
        spread = row.spreads[0]
        lines.append(
            (
                plain_name(row.cell),
                str(spread.count if spread else 0),
                write_number(spread.median if spread else None),
                write_quartiles(spread) or MISSING,
                write_range(spread) or MISSING,
            )
        )
    return bounded(columns, lines, "cells")


def failures_table(summary: SuiteSummary) -> Table:
    """
    One row a group of failures, in the order given.
    """
    return groups_table(summary.failures)


def groups_table(groups: Sequence[FailureGroup]) -> Table:
    """
    The same for any failures.
    """
    columns = (
        Column("Category"),
        Column("Count", is_number=True),
        *(Column(title) for title in ("Message", "Cells", "Fingerprint")),
    )
    rows = [
        (
            plain_name(one.category),
            str(one.count),
            plain_text(one.message) or MISSING,
            _cells_in_words(one.cells),
            plain_name(one.fingerprint)[:16],
        )
        for one in groups
    ]
    return bounded(columns, rows, "groups of failures")


def parameters_table(summary: SuiteSummary) -> Table:
    """
    One row a parameter, those that vary first.
    """
    rows = [
        (plain_name(row.name), plain_text(row.values) or MISSING, "yes" if row.is_varied else "no")
        for row in parameter_rows(summary.results)
    ]
    return bounded((Column("Parameter"), Column("Values"), Column("Varies")), rows, "parameters")


def pairs_table(pairs: Mapping[str, object]) -> Table:
    """
    Names and values.
    """
    rows = [(plain_name(name), plain_text(value)) for name, value in pairs.items()]
    return bounded((Column("Name"), Column("Value")), rows, "rows")


def links_table(summary: SuiteSummary) -> Table:
    """
    Names and addresses, as text.
    """
    rows = [
        (plain_name(one.text), shorten(clean(one.address), _LONGEST_ADDRESS))
        for one in summary.links
    ]
    return bounded((Column("What"), Column("Address")), rows, "links")


def _count_cells(rows: Sequence[CellRow]) -> str:
    whole = sum(row.finished_count == row.repeat_count for row in rows)
    none = sum(row.finished_count == 0 for row in rows)
    words = f"{len(rows)}: {whole} finished"
    if len(rows) - whole - none:
        words += f", {len(rows) - whole - none} finished in part"
    return words + (f", {none} failed" if none else "")


def _count_repeats(rows: Sequence[CellRow], planned_count: int | None) -> str:
    count, finished = sum(row.repeat_count for row in rows), sum(row.finished_count for row in rows)
    words = f"{count}: {finished} finished"
    if count - finished:
        words += f", {count - finished} failed"
    if planned_count is not None and planned_count > count:
        words += f"; {planned_count - count} of {planned_count} not run"
    return words


def _cells_in_words(cells: Sequence[str]) -> str:
    named = ", ".join(shorten(clean(one), 80) for one in cells[:_MOST_NAMED_CELLS])
    rest = len(cells) - _MOST_NAMED_CELLS
    return f"{named} and {rest} more" if rest > 0 else named or MISSING


def bounded(columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]], noun: str) -> Table:
    """
    A table of as many rows as one can hold.
    """
    return Table(columns, tuple(rows), len(rows), noun).bounded(MOST_ROWS)


def plain_name(value: object) -> str:
    """
    A name from outside, in one line.
    """
    return shorten(clean(value), _LONGEST_NAME)


def plain_text(value: object) -> str:
    """
    A text from outside, in one line.
    """
    return shorten(clean(value), _LONGEST_TEXT)
