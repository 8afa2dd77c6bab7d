"""
The drills as tables: what can be told of them without running one.
"""

from __future__ import annotations

from collections import Counter

from allele_mlflow.drill import interrupts, race_programs, races, scripts
from allele_mlflow.drill.catalogue import DRILLS, choose
from allele_mlflow.drill.programs import CELLS, PROGRAMS
from allele_mlflow.drill.trial import Trial


def test_no_two_drills_share_a_name() -> None:
    """
    A name on the command line, and the folder of that name, are one drill's.
    """
    assert [name for name, count in Counter(d.name for d in DRILLS).items() if count > 1] == []


def test_every_drill_has_repetitions_in_the_full_set() -> None:
    """
    No drill of interruptions and races is in the catalogue and is never run.
    """
    ours = [*interrupts.DRILLS, *races.DRILLS]
    assert all(drill in choose([drill.name]) for drill in ours)
    assert all(drill.full >= 1 for drill in ours)


def test_several_runs_are_one_trial() -> None:
    """
    The counts of several runs add up, and no problem and no end of one is left out.
    """
    one = Trial(accepted=3, delivered=2, lost=1, statuses=("FINISHED",))
    two = Trial(accepted=5, delivered=5, duplicated=1, statuses=("KILLED",), problems=("late",))
    assert scripts.sum_of([one, two]) == Trial(
        accepted=8,
        delivered=7,
        lost=1,
        duplicated=1,
        statuses=("FINISHED", "KILLED"),
        problems=("late",),
    )


def test_programs_of_both_modules_are_told_apart() -> None:
    """
    A program's name says which module runs it, and some cells of the notebook fail.
    """
    assert not set(PROGRAMS) & set(race_programs.PROGRAMS)
    assert sum("raise" in cell or "1 / 0" in cell for cell in CELLS) == 2
