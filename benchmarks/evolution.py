"""
The real workload: Allele's genetic algorithm, logged generation by generation.

    python benchmarks/evolution.py --smoke    two tiny cells, then compares with what MLflow holds
    allele-mlflow run config/evolution.toml   a grid of it, as `make demo` does

Needs `pip install 'allele-mlflow[demo]'` (the package allele 1.0.1, MIT). The file stands alone: a
copy of it runs the smoke against an installed package. Nothing of Allele's is patched; the taps are
a subclass that overrides `_create_next_generation` and a wrapper around the fitness function.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from allele_mlflow import DeliveryReport, RunLogger, start_logger

try:
    import allele
except ImportError:
    sys.exit("this benchmark evolves Allele's genomes: pip install 'allele-mlflow[demo]'")

T = TypeVar("T")
Fitness = Callable[[Any], float]
PhaseCall = Callable[[str, int], contextlib.AbstractContextManager[Any]]
MetricCall = Callable[[str, float, int], object]
GenerationCall = Callable[["Generation"], None]

EXPERIMENT = "evolution"
TRAITS = tuple(allele.ConversationalGenome.DEFAULT_TRAITS)
#: The persona that the evolution looks for: a patient technical tutor.
WANTED = dict(zip(TRAITS, (0.75, 0.65, 0.9, 0.45, 0.55, 0.85, 0.7, 0.6), strict=True))
#: Traits that are worth more together than alone.
SYNERGIES = (
    ("empathy", "context_awareness"),
    ("technical_knowledge", "conciseness"),
    ("creativity", "adaptability"),
    ("engagement", "personability"),
)
SITUATIONS = 48
#: Of the situations that the search is measured in.
SEARCH_SITUATIONS_SEED = 20_240


@dataclass(frozen=True)
class Cell:
    """
    One point of the grid: what a run's parameters say.
    """

    population_size: int
    mutation_rate: float
    generations: int
    seed: int

    @property
    def name(self) -> str:
        """
        The run's name.
        """
        return f"pop-{self.population_size} mut-{self.mutation_rate:g}"


@dataclass(frozen=True)
class Generation:
    """
    One generation after its evaluation: the best so far, the mean and the diversity of this one.

    Shapes: `scores` (population,), in order of evaluation.
    """

    step: int
    best: float
    mean: float
    diversity: float
    scores: np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class CellResult:
    """
    What came out of a cell, and how many readings of each key were logged.
    """

    cell: Cell
    best: float
    mean: float
    elapsed_s: float
    genome_id: str | None
    genome: Mapping[str, Any]
    is_verified: bool
    logged_counts: Mapping[str, int]


class PersonaFitness:
    """
    How near a genome's behaviour comes to the wanted persona: 0 to 1, deterministic.

    The genome answers 48 situations (a linear response through tanh); the mean distance to the
    persona's own answers counts 85 %, the synergy of pairs of traits 15 %. A call takes some tens
    of microseconds, in NumPy and plain Python, as a small surrogate model does.

    Args:
        seed: Of the situations: the search meets always the same.
    """

    def __init__(self, seed: int = SEARCH_SITUATIONS_SEED) -> None:
        # a generator of its own: the engine draws from the global one
        self._situations = np.random.default_rng(seed).normal(size=(SITUATIONS, len(TRAITS)))
        self._answers = self._answer(WANTED)

    def _answer(self, traits: Mapping[str, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        centred = np.array([traits[name] for name in TRAITS]) * 2.0 - 1.0
        answers: np.ndarray[Any, np.dtype[np.float64]] = np.tanh(self._situations @ centred)
        return answers

    def __call__(self, genome: Any) -> float:
        """
        The fitness of one genome.
        """
        traits = genome.traits
        distance = float(np.abs(self._answer(traits) - self._answers).mean())
        synergy = sum(math.sqrt(traits[a] * traits[b]) for a, b in SYNERGIES) / len(SYNERGIES)
        return 0.85 * (1.0 - distance / 2.0) + 0.15 * synergy


class BestSnapshot:
    """
    A fitness function that keeps a copy of the best genome as it was when it was evaluated.

    `engine.best_genome` is a live reference: the engine mutates clones in place, so by the end it
    may not have the traits that earned its score any more.
    """

    def __init__(self, fitness: Fitness) -> None:
        self._fitness = fitness
        self.best = -math.inf
        self.snapshot: dict[str, Any] = {}

    def __call__(self, genome: Any) -> float:
        """
        The fitness of one genome.
        """
        score = self._fitness(genome)
        if score > self.best:
            self.best = score
            self.snapshot = snapshot_genome(genome, score)
        return score


class TrackedEngine(allele.EvolutionEngine):  # type: ignore[misc]  # allele has no types
    """
    Allele's engine with phases evaluate, select and vary, and a call after each evaluation.

    Selection and variation are Allele's own operators; only here all parents are drawn first, so
    that the two can be told apart. Clones are mutated in place as in `EvolutionEngine`.
    """

    def __init__(
        self,
        config: Any,
        *,
        phase: PhaseCall | None = None,
        on_generation: GenerationCall | None = None,
    ) -> None:
        super().__init__(config)
        self._phase = phase or no_phase
        self._on_generation = on_generation
        self._evaluation = contextlib.ExitStack()
        self._best = -math.inf

    async def evolve(self, population: list[Any], fitness_function: Fitness) -> Any:
        """
        Evolve for `config.generations`; the engine's best genome, which may have changed since.
        """
        with self._evaluation:  # also where the fitness function raises
            self._evaluation.enter_context(self._phase("evaluate", self.generation))
            return await super().evolve(population, fitness_function)

    def _create_next_generation(self, population: list[Any]) -> list[Any]:
        step = self.generation
        self._evaluation.close()
        if self._on_generation is not None:
            scores = np.array([genome.fitness_score for genome in population], dtype=np.float64)
            # not the history's "best_fitness": it is read off `best_genome`, which changes later
            self._best = max(self._best, float(scores.max()))
            row = self.evolution_history[-1]
            mean, diversity = float(row["avg_fitness"]), float(row["diversity"])
            self._on_generation(Generation(step, self._best, mean, diversity, scores))
        with self._phase("select", step):
            elite, parents = self._select(population)
        with self._phase("vary", step):
            following = elite + [self._vary(one, other) for one, other in parents]
        if step + 1 < self.config.generations:
            self._evaluation.enter_context(self._phase("evaluate", step + 1))
        return following

    def _select(self, population: list[Any]) -> tuple[list[Any], list[tuple[Any, Any]]]:
        config = self.config
        population.sort(key=lambda genome: genome.fitness_score, reverse=True)
        kept = int(config.population_size * config.selection_pressure)
        elite = population[:kept] if config.elitism_enabled else []
        draw = allele.GeneticOperators.tournament_selection
        size = config.tournament_size
        missing = config.population_size - len(elite)
        return elite, [(draw(population, size), draw(population, size)) for _ in range(missing)]

    def _vary(self, one: Any, other: Any) -> Any:
        operators = allele.GeneticOperators
        is_crossed = np.random.random() < self.config.crossover_rate
        offspring = operators.crossover(one, other) if is_crossed else one
        operators.mutate(offspring, self.config.mutation_rate)
        return offspring


def no_phase(name: str, step: int) -> contextlib.AbstractContextManager[Any]:
    """
    A phase that nobody logs.
    """
    return _NO_PHASE


_NO_PHASE = contextlib.nullcontext()


def snapshot_genome(genome: Any, score: float) -> dict[str, Any]:
    """
    A deep, plain copy of a genome, without wall-clock times: one seed, one content hash.
    """
    return {
        "genome_id": genome.genome_id,
        "traits": {name: float(value) for name, value in genome.traits.items()},
        "fitness_score": score,
        "generation": genome.generation,
        "metadata": {"parent_ids": list(genome.metadata.parent_ids or [])},
    }


def build_engine(
    cell: Cell, *, phase: PhaseCall | None = None, on_generation: GenerationCall | None = None
) -> tuple[TrackedEngine, list[Any]]:
    """
    A seeded engine and its first population. Seeds NumPy's global generator, which Allele uses.
    """
    np.random.seed(cell.seed)
    config = allele.EvolutionConfig(
        population_size=cell.population_size,
        generations=cell.generations,
        mutation_rate=cell.mutation_rate,
    )
    engine = TrackedEngine(config, phase=phase, on_generation=on_generation)
    return engine, engine.initialize_population()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """
    The result of a coroutine that never waits, as `evolve` is, without an event loop.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("evolve waited for something: allele is not 1.0.1")


def run_cell(
    log: RunLogger, cell: Cell, *, on_progress: GenerationCall | None = None
) -> CellResult:
    """
    Evolve one cell and log all of it: each generation, each genome's fitness, the best genome.
    """

    def note(generation: Generation) -> None:
        step = generation.step
        summary = {"fitness/best": generation.best, "fitness/mean": generation.mean}
        log.metrics(summary | {"diversity": generation.diversity}, step=step)
        log.series("fitness/genome", generation.scores, first_step=step * cell.population_size)
        if on_progress is not None:
            on_progress(generation)

    fitness = PersonaFitness()
    evaluate = BestSnapshot(fitness)
    engine, population = build_engine(cell, phase=log.phase, on_generation=note)
    before_s = time.monotonic()
    drive(engine.evolve(population, evaluate))
    elapsed_s = time.monotonic() - before_s

    again = fitness(allele.ConversationalGenome.from_dict(evaluate.snapshot))
    is_verified = again == evaluate.best
    genome_id = log.genome(evaluate.snapshot, name="best")
    log.metric("fitness/best_verified", again, step=cell.generations - 1)
    log.tag("allele.genome.best.verified", str(is_verified).lower())
    counts = dict.fromkeys(("fitness/best", "fitness/mean", "diversity"), cell.generations)
    counts["fitness/genome"] = cell.generations * cell.population_size
    counts["fitness/best_verified"] = 1
    mean = float(engine.evolution_history[-1]["avg_fitness"])
    return CellResult(
        cell, evaluate.best, mean, elapsed_s, genome_id, evaluate.snapshot, is_verified, counts
    )


def evolve(
    population_size: int, mutation_rate: float, generations: int, *, seed: int, log: RunLogger
) -> dict[str, float]:
    """
    One cell as a benchmark of a suite: what `config/evolution.toml` names.
    """
    cell = Cell(population_size, mutation_rate, generations, seed)
    log.params({"allele_version": allele.__version__, "fitness": "persona-48"})
    result = run_cell(log, cell)
    if not result.is_verified:
        raise ArithmeticError("evaluated again, the best genome has not the fitness it had")
    unseen = measure_unseen(result.genome, seed=seed)
    return unseen | {"fitness/best": result.best, "fitness/mean": result.mean}


def measure_unseen(genome: Mapping[str, Any], *, seed: int) -> dict[str, float]:
    """
    The fitness of a kept genome in 48 situations that no search has met; what `[genome]` of
    `config/evolution.toml` names.

    The search makes the most of its own 48, so that `fitness/best` is too good by its nature.
    """
    fitness = PersonaFitness(seed)
    return {"fitness/unseen": fitness(allele.ConversationalGenome.from_dict(dict(genome)))}


def store_settings(folder: Path) -> dict[str, Any]:
    """
    Overrides for `start_logger` that keep everything in one folder.
    """
    return {
        "enabled": True,
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "artifact_location": str(folder / "mlflow_artifacts"),
        "spool_dir": str(folder / ".allele_mlflow" / "spool"),
        "exit": "drain",
        "log_level": "error",  # the closing table says it all
    }


def cell_params(cell: Cell) -> dict[str, Any]:
    """
    The parameters of a cell's run.
    """
    return asdict(cell) | {"allele_version": allele.__version__, "fitness": "persona-48"}


# --- the smoke ------------------------------------------------------------------------------------

INTERRUPTED = "interrupted: open runs are KILLED in MLflow, with what they logged"
SMOKE_CELLS = (Cell(12, 0.1, 6, seed=1), Cell(20, 0.3, 4, seed=2))


def run_smoke(folder: Path) -> int:
    """
    Run two tiny cells and compare with MLflow; the exit code.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[CellResult, DeliveryReport]] = []
    settings = store_settings(folder) | {"exit_timeout_s": 60.0, "idle_timeout_s": 1.0}
    with start_logger(EXPERIMENT, run_name="smoke", **settings) as grid:
        for cell in SMOKE_CELLS:
            with grid.child(cell.name, params=cell_params(cell)) as log:
                result = run_cell(log, cell)
            found.append((result, log.close()))
    problems = [] if grid.close().is_complete else ["the grid's own run was not delivered in time"]
    for result, report in found:
        problems += [f"{result.cell.name}: {text}" for text in differences(folder, result, report)]
    for text in problems:
        print(f"smoke failed: {text}", file=sys.stderr)
    if not problems:
        print("smoke passed")
    return 1 if problems else 0


def differences(folder: Path, result: CellResult, report: DeliveryReport) -> list[str]:
    """
    How what MLflow holds of a run differs from what was logged, in words.
    """
    from mlflow import MlflowClient  # two seconds, and only the smoke needs it

    if not report.is_complete or report.run_id is None or report.ledger.lost:
        return [f"not all was delivered: {report.line()}"]
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run = client.get_run(report.run_id)
    problems = []
    if run.info.status != "FINISHED":
        problems.append(f"its status is {run.info.status}, want FINISHED")
    if not result.is_verified:
        problems.append("the best genome has not the fitness that it was selected for")
    for key, wanted in result.logged_counts.items():
        got = len(client.get_metric_history(report.run_id, key))
        if got != wanted:
            problems.append(f"{got} readings of {key}, want {wanted}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    """
    The command line; the exit code.
    """
    parser = argparse.ArgumentParser(description="Allele's evolution, tracked in MLflow.")
    smoke = "two tiny cells, compared with what MLflow holds"
    parser.add_argument("--smoke", action="store_true", required=True, help=smoke)
    parser.add_argument("--folder", type=Path, help="by default a temporary folder")
    options = parser.parse_args(arguments)
    try:
        if options.folder:
            return run_smoke(options.folder)
        # the sidecar may still be leaving, and writes a last line into its log
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return run_smoke(Path(folder))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
