"""
Suites out of Allele's own configurations, by look-alikes: Allele's package has none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import pytest

from allele_mlflow.errors import MatrixError
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.importers import suite_from_allele
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_file import parse_suite, suite_text
from tests.docs.pages import ROOT

FUNCTION = "benchmarks.evolution:run"


class Component(str, Enum):  # noqa: UP042 - as Allele's are
    """
    As Allele's.
    """

    ENGINE = "evolution_engine"


@dataclass
class ParameterSet:
    """
    As Allele's.
    """

    name: str
    parameters: dict[str, Any]


@dataclass
class BenchmarkConfig:
    """
    As Allele's.
    """

    benchmark_id: str
    parameter_sets: list[ParameterSet]
    component: Component = Component.ENGINE
    benchmark_type: str = "evolution"
    runs_per_config: int = 3
    timeout_seconds: int = 300
    warmup_runs: int = 1


@dataclass
class BenchmarkSuite:
    """
    As Allele's.
    """

    suite_id: str
    name: str
    description: str
    benchmarks: list[BenchmarkConfig]
    tags: list[str] = field(default_factory=list)
    version: str = "1.0.0"


@dataclass
class MatrixBenchmarkConfig:
    """
    As Allele's.
    """

    population_sizes: list[int] = field(default_factory=lambda: [50, 100, 200, 500, 1000])
    mutation_rates: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.3])
    reservoir_sizes: list[int] = field(default_factory=lambda: [50, 100])
    temperatures: list[float] = field(default_factory=lambda: [0.1, 0.7])
    llm_providers: tuple[str, ...] = ("ollama",)
    runs_per_config: int = 3
    timeout_seconds: int = 300
    warmup_runs: int = 1
    parallel_workers: int = 1


def config(*cells: dict[str, Any], **more: Any) -> BenchmarkConfig:
    return BenchmarkConfig(
        "evo", [ParameterSet(f"set {n}", cell) for n, cell in enumerate(cells)], **more
    )


def cells_of(suite: Suite) -> list[dict[str, Any]]:
    return [dict(cell.params) for cell in make_cells(suite, version="1")]


def test_each_parameter_set_is_a_cell() -> None:
    """
    Not what upstream's own combinations are: each set once, and none that nobody wrote.
    """
    sets = [{"population": 50, "rate": 0.1}, {"population": 100, "rate": 0.3}]
    suite = suite_from_allele(config(*sets, sets[0]), benchmark=FUNCTION)
    assert cells_of(suite) == sets
    assert (suite.name, suite.repeats, suite.warm_ups, suite.timeout_s) == ("evo", 3, 1, 300.0)
    assert suite.tags == {
        "allele.benchmark_type": "evolution",
        "allele.component": "evolution_engine",
    }


def test_a_whole_product_becomes_a_matrix() -> None:
    """
    Twenty sets that are a grid are written as one, with what never varies apart.
    """
    sets = [
        {"population": size, "rate": rate, "generations": 50}
        for size in (50, 100)
        for rate in (0.05, 0.1, 0.2)
    ]
    suite = suite_from_allele(config(*sets), benchmark=FUNCTION)
    assert suite.matrix == {"population": [50, 100], "rate": [0.05, 0.1, 0.2]}
    assert suite.params == {"generations": 50}
    assert suite.include == []
    assert sorted(map(str, cells_of(suite))) == sorted(
        str({"generations": 50} | {k: one[k] for k in ("population", "rate")}) for one in sets
    )


def test_sets_with_different_names_stay_apart() -> None:
    """
    A cell has the parameters of its set, and no other's.
    """
    sets: list[dict[str, Any]] = [{"a": 1}, {"b": [1, 2]}, {"a": 1, "b": [1, 2]}]
    assert cells_of(suite_from_allele(config(*sets), benchmark=FUNCTION)) == sets


def test_values_become_plain() -> None:
    """
    NumPy's numbers, enums and tuples are what they hold; 1 and 1.0 stay two values.
    """
    sets = [
        {"size": np.int64(3), "rate": np.float64(0.5), "kind": Component.ENGINE, "x": (1, 2)},
        {"size": 3, "rate": 0.5, "kind": "evolution_engine", "x": [1, 2]},
    ]
    (cell,) = cells_of(suite_from_allele(config(*sets), benchmark=FUNCTION))
    assert cell == sets[1]
    assert type(cell["size"]) is int
    assert len(cells_of(suite_from_allele(config({"a": 1}, {"a": 1.0}), benchmark=FUNCTION))) == 2


def test_plain_data_is_as_good_as_objects() -> None:
    """
    What was stored as JSON gives the same suite; and the suite survives its own file.
    """
    source = config({"a": 1, "b": 2}, {"a": 2, "b": 1})
    suite = suite_from_allele(source, benchmark=FUNCTION)
    assert suite_from_allele(asdict(source), benchmark=FUNCTION) == suite
    assert parse_suite(suite_text(suite), ROOT / "suite.toml") == suite


def test_suite_of_one_benchmark() -> None:
    """
    Has the suite's name, description, labels and version.
    """
    source = BenchmarkSuite("s1", "Nightly", "All of it", [config({"a": 1})], ["slow", "evo"])
    suite = suite_from_allele(source, benchmark=FUNCTION)
    assert (suite.name, suite.description) == ("Nightly", "All of it")
    assert suite.tags["allele.labels"] == "slow, evo"
    assert suite.tags["allele.suite_version"] == "1.0.0"


def test_one_of_several_benchmarks_must_be_named() -> None:
    """
    Each needs a function of its own, so one of them becomes a suite; the error names them.
    """
    other = BenchmarkConfig("kraken", [ParameterSet("x", {"reservoir": 5})])
    source = BenchmarkSuite("s1", "Nightly", "", [config({"a": 1}), other])
    suite = suite_from_allele(source, benchmark=FUNCTION, benchmark_id="kraken")
    assert (suite.name, cells_of(suite)) == ("kraken", [{"reservoir": 5}])
    for wrong in (None, "kraken2"):
        with pytest.raises(MatrixError, match="one of its benchmarks: evo, kraken"):
            suite_from_allele(source, benchmark=FUNCTION, benchmark_id=wrong)


def test_matrix_config_is_a_product() -> None:
    """
    The default matrix: 5 populations times 4 mutation rates, three runs each.
    """
    suite = suite_from_allele(MatrixBenchmarkConfig(), benchmark=FUNCTION)
    assert suite.name == "matrix_evolution"
    assert list(suite.matrix) == ["population_size", "mutation_rate"]
    assert len(cells_of(suite)) == 20
    assert (suite.repeats, suite.warm_ups, suite.timeout_s) == (3, 1, 300.0)
    agent = suite_from_allele(MatrixBenchmarkConfig(), benchmark=FUNCTION, component="agent")
    assert agent.matrix == {"temperature": [0.1, 0.7], "llm_provider": ["ollama"]}
    chosen = suite_from_allele(
        MatrixBenchmarkConfig(), benchmark=FUNCTION, axes=["reservoir_sizes", "temperatures"]
    )
    assert chosen.matrix == {"reservoir_size": [50, 100], "temperature": [0.1, 0.7]}


@pytest.mark.parametrize(
    ("source", "options", "text"),
    [
        ({"name": "x"}, {}, "dict: want a BenchmarkConfig"),
        (config(), {}, "there is none, so no cell"),
        ({"parameter_sets": [{"parameters": 3}]}, {}, "parameter_sets.0.parameters: want values"),
        ({"parameter_sets": [{"parameters": {"a": object()}}]}, {}, "want what JSON can hold"),
        (config({"not a name": 1}), {}, "want a name that Python takes"),
        (config({"a": 1}, runs_per_config=0), {}, "repeats"),
        ({"benchmarks": "abc"}, {}, "benchmarks: want a list, got str"),
        (MatrixBenchmarkConfig(), {"component": "krakn"}, "did you mean 'kraken'"),
        (MatrixBenchmarkConfig(), {"axes": ["sizes"]}, "sizes: want a list of values, got nothing"),
        (MatrixBenchmarkConfig(), {"axes": ["parallel_workers"]}, "want a list of values, got 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(source: Any, options: dict[str, Any], text: str) -> None:
    """
    The error says what was got and what is wanted.
    """
    with pytest.raises(MatrixError, match=text):
        suite_from_allele(source, benchmark=FUNCTION, **options)
