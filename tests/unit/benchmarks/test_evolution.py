"""
The workload itself: deterministic, and honest about which genome was the best.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("allele", reason="the extra demo is not installed")

import allele

from benchmarks.evolution import (
    TRAITS,
    WANTED,
    BestSnapshot,
    Cell,
    Generation,
    PersonaFitness,
    build_engine,
    drive,
    snapshot_genome,
)

CELL = Cell(population_size=12, mutation_rate=0.3, generations=8, seed=3)


def evolve(cell: Cell) -> tuple[BestSnapshot, list[Generation], list[tuple[str, int]]]:
    seen: list[Generation] = []
    phases: list[tuple[str, int]] = []

    class Phase:
        def __init__(self, name: str, step: int) -> None:
            self.edge = (name, step)

        def __enter__(self) -> None:
            phases.append(self.edge)

        def __exit__(self, *exc: object) -> None:
            phases.append(("/" + self.edge[0], self.edge[1]))

    evaluate = BestSnapshot(PersonaFitness())
    engine, population = build_engine(cell, phase=Phase, on_generation=seen.append)
    drive(engine.evolve(population, evaluate))
    return evaluate, seen, phases


def test_equal_seeds_give_equal_evolutions() -> None:
    """
    A cell can be run again: same best genome, same curve.
    """
    first, second = evolve(CELL), evolve(CELL)
    assert first[0].snapshot == second[0].snapshot
    assert [one.mean for one in first[1]] == [one.mean for one in second[1]]
    other = evolve(Cell(12, 0.3, 8, seed=4))
    assert other[0].snapshot != first[0].snapshot


@pytest.mark.parametrize("seed", range(8))
def test_snapshot_keeps_the_fitness_that_it_was_chosen_for(seed: int) -> None:
    """
    Evaluated again, the snapshot has its score, although the engine mutates genomes in place.
    """
    evaluate, seen, _ = evolve(Cell(12, 0.3, 8, seed))
    genome = allele.ConversationalGenome.from_dict(evaluate.snapshot)
    assert PersonaFitness()(genome) == evaluate.best == evaluate.snapshot["fitness_score"]
    assert seen[-1].best == evaluate.best


def test_best_so_far_never_falls() -> None:
    """
    The curve that is logged is the best so far, which the engine's own history is not.
    """
    _, seen, _ = evolve(Cell(20, 0.5, 20, seed=1))
    curve = [one.best for one in seen]
    assert curve == sorted(curve)
    assert [one.step for one in seen] == list(range(20))
    assert all(one.scores.shape == (20,) for one in seen)


def test_every_generation_has_its_phases() -> None:
    """
    Evaluate, select and vary follow each other, with the generation as their step, and all close.
    """
    _, _, phases = evolve(CELL)
    names = ("evaluate", "/evaluate", "select", "/select", "vary", "/vary")
    wanted = [(name, step) for step in range(CELL.generations) for name in names]
    assert phases == wanted


def test_failing_fitness_leaves_no_phase_open() -> None:
    """
    An exception in the fitness function closes the phase and reaches the caller.
    """
    phases: list[str] = []

    class Phase:
        def __init__(self, name: str, step: int) -> None:
            self.name = name

        def __enter__(self) -> None:
            phases.append(self.name)

        def __exit__(self, *exc: object) -> None:
            phases.remove(self.name)

    def fail(genome: Any) -> float:
        raise ArithmeticError("no fitness")

    engine, population = build_engine(CELL, phase=Phase)
    with pytest.raises(ArithmeticError, match="no fitness"):
        drive(engine.evolve(population, fail))
    assert phases == []


def test_wanted_persona_is_hard_to_beat() -> None:
    """
    Fitness lies between 0 and 1, and the wanted persona's answers are the best there are.
    """
    fitness = PersonaFitness()
    persona = fitness(allele.ConversationalGenome("wanted", traits=WANTED))
    worst = fitness(allele.ConversationalGenome("zero", traits=dict.fromkeys(TRAITS, 0.0)))
    assert 0.0 <= worst < persona <= 1.0


def test_snapshot_shares_nothing_with_its_genome() -> None:
    """
    What the engine does to a genome later does not reach its snapshot.
    """
    genome = allele.ConversationalGenome("one", traits=WANTED)
    kept = snapshot_genome(genome, 0.5)
    genome.traits["empathy"] = 0.0
    assert kept["traits"] == WANTED
