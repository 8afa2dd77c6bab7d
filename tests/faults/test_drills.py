"""
The short fault drills: each promise of docs/understanding/guarantees.md, attacked a few times.

`make drill` runs the full set of the same drills.
"""

from __future__ import annotations

import pytest

from allele_mlflow.drill.catalogue import DRILLS, Runner
from allele_mlflow.drill.trial import Drill, Verdict

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(240)]
SEED = 20261125
MINUTE_S = 3.0


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """
    One scratch folder for all, so that MLflow's tables are made once.
    """
    return Runner(
        tmp_path_factory.mktemp("drills"), tracking_uri=None, seed=SEED, minute_s=MINUTE_S
    )


def name_of(drill: Drill) -> str:
    """
    What the command line calls it.
    """
    return drill.name


@pytest.mark.parametrize("drill", [d for d in DRILLS if d.short], ids=name_of)
def test_promise_holds_under_attack(runner: Runner, drill: Drill) -> None:
    """What the drill promises (see its line in `allele-mlflow drill --list`) holds."""
    tally = runner.run_one(drill, drill.short)
    if tally.not_run is not None:  # the machine lacks what it attacks; in CI a skip is a failure
        pytest.skip(tally.not_run)
    assert (tally.verdict, tally.problems) == (Verdict.HELD, [])
    assert tally.repetitions == drill.short
    assert not (runner.folder / drill.name).exists(), "a drill left its place behind"
