"""
The map of the specification is complete, and what it names exists.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import click
import pytest

from allele_mlflow.cli.main import commands
from allele_mlflow.settings import PREFIX, SETTING_NAMES
from allele_mlflow.units import PHASE_UNITS, RESOURCE_UNITS, TRIAL_UNITS, MetricUnit
from tests.docs.pages import ROOT, code_spans, functions_in, table_rows

PAGE = ROOT / "docs" / "reference" / "specification.md"
METRICS_PAGE = ROOT / "docs" / "reference" / "metrics.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

#: The specification, item by item, in its own words.
SPECIFICATION = {
    "objectives": (
        "experiment tracking for matrix benchmarking",
        "model registry for genome and component versions",
        "automated metrics logging during runtime",
        "reproducible experiment workflows",
        "performance comparison dashboards",
        "anomaly detection from experiment trends",
        "cross-experiment analysis",
        "integration with the existing observability",
    ),
    "features": (
        "each benchmark run tracked",
        "all matrix parameters logged",
        "metrics correlated with parameters",
        "artifacts (reports, plots, configuration)",
        "genome versioning",
        "component models",
        "promotion from development to production",
        "statistical comparison of versions",
        "real-time metrics in long runs",
        "alerts linked to experiment phases",
        "memory, CPU, GPU per experiment step",
        "failures captured and categorised",
    ),
    "links": (
        "optimisation recommendations linked to outcomes",
        "anomaly results linked to outcomes",
        "predictions linked to performance",
        "suites create experiments automatically",
        "suites store reports and visualisations",
        "suites compare across experiments",
    ),
    "variables": (
        "ALLELE_MLFLOW_ENABLED",
        "ALLELE_MLFLOW_TRACKING_URI",
        "ALLELE_MLFLOW_EXPERIMENT_PREFIX",
        "ALLELE_MLFLOW_ARTIFACT_LOCATION",
        "ALLELE_MLFLOW_MODEL_REGISTRY_ENABLED",
        "ALLELE_MLFLOW_MODEL_REGISTRY_URI",
        "ALLELE_MLFLOW_AUTO_REGISTER_MODELS",
        "ALLELE_MLFLOW_AUTO_EXPERIMENT_TRACKING",
        "ALLELE_MLFLOW_METRICS_BATCH_SIZE",
        "ALLELE_MLFLOW_ARTIFACT_RETENTION_DAYS",
    ),
    "files": ("files under src/allele/observability",),
    "libraries": ("mlflow-skinny>=2.10", "pandas>=1.5", "plotly>=5", "optionally full mlflow"),
    "criteria": (
        "experiments created for every benchmark run",
        "all parameters logged",
        "artifacts stored and retrievable",
        "registry operations without errors",
        "tracking costs under 5 %",
        "real-time logging in long experiments",
        "alert correlation",
        "MLflow UI usable",
        "comparison intuitive",
        "registry operations discoverable",
        "setup under 30 minutes",
        "no tracking failure in production",
        "MLflow concerns apart from core logic",
    ),
    "mitigations": (
        "asynchronous batch logging",
        "configurable sampling rates",
        "optional logging",
        "fallback modes",
        "an abstract MLflow interface",
        "graceful degradation",
    ),
}
ITEMS = [item for items in SPECIFICATION.values() for item in items]
#: What comes later may be put off to one of these, and to nothing else.
LATER = {
    "Throughput: from MLflow's speed to the database's speed",
    "Matrix suites: experiment tracking for benchmarks that a team can rely on",
    "Analysis: comparison, change, anomalies, recommendations that are held to account",
    "Registry: genomes and components, promoted on evidence",
    "Reports and dashboard: look instead of read",
}


class Row:
    """
    One row of the map: the item, where it is, and what shows it.
    """

    def __init__(self, cells: list[str]) -> None:
        self.item, self.where, self.proof = cells
        self.item = self.item.strip("`")
        self.later = {name for name in LATER if name in self.where + self.proof}

    @property
    def targets(self) -> list[str]:
        """
        What it says exists.
        """
        return code_spans(self.where) + code_spans(self.proof)


ROWS = {row.item: row for row in map(Row, table_rows(PAGE))}


def is_there(target: str) -> bool:
    """
    Whether the test, make target, command, setting, name or path exists.
    """
    if "::" in target:
        path, _, function = target.partition("::")
        return (ROOT / path).is_file() and function in functions_in(ROOT / path)
    if target.startswith("make "):
        return re.search(rf"^{re.escape(target[5:])}:", MAKEFILE, re.MULTILINE) is not None
    if target.startswith("allele-mlflow "):
        return target.split()[1] in commands.list_commands(click.Context(commands))
    if target.startswith(PREFIX):
        return target.removeprefix(PREFIX).lower() in SETTING_NAMES
    if target.startswith("allele_mlflow."):
        return _is_importable(target)
    return (ROOT / target).exists()


def _is_importable(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            # the three metric methods are bound when a logger is made, and only announced before
            if part in getattr(found, "__annotations__", {}):
                return True
            found = getattr(found, part, None)
        return found is not None
    return False


def test_every_item_is_on_the_map() -> None:
    """
    Objective, feature, link, variable, file, library, criterion, mitigation: none is left out.
    """
    assert [item for item in ITEMS if item not in ROWS] == []
    assert sorted(set(ROWS) - set(ITEMS)) == []


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.item)
def test_what_the_map_names_exists(row: Row) -> None:
    """
    Every test, command, target, setting, name and path in a row is there.
    """
    assert [target for target in row.targets if not is_there(target)] == []


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.item)
def test_every_item_is_shown_or_put_off(row: Row) -> None:
    """
    A row ends in a test or a make target that shows it, or names what brings it later.
    """
    shown = [span for span in code_spans(row.proof) if "::" in span or span.startswith("make ")]
    assert shown or row.later
    assert ("later: " in row.where + row.proof) == bool(row.later)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tests/docs/test_specification.py::test_every_item_is_on_the_map", True),
        ("tests/docs/test_specification.py::test_nothing", False),
        ("make demo", True),
        ("make dem", False),
        ("allele-mlflow sync", True),
        ("allele-mlflow sing", False),
        ("ALLELE_MLFLOW_ENABLED", True),
        ("ALLELE_MLFLOW_ENABLE", False),
        ("allele_mlflow.RunLogger.series", True),
        ("allele_mlflow.RunLogger.serious", False),
        ("allele_mlflow.sidecar.plan.RunPlan", True),
        ("allele_mlflow.nothing", False),
        ("src/allele_mlflow", True),
        ("src/allele", False),
    ],
)
def test_absent_things_are_seen(target: str, expected: bool) -> None:
    """
    The check of a row's targets can fail, for each kind of target.
    """
    assert is_there(target) is expected


def _facts_of(row: MetricUnit) -> tuple[str, str]:
    return row.unit, {"none": "", "higher": "higher", "lower": "lower"}[row.direction]


@pytest.mark.parametrize(
    "units", [RESOURCE_UNITS, PHASE_UNITS, TRIAL_UNITS], ids=["resources", "phases", "trials"]
)
def test_metrics_page_has_every_metric(units: tuple[MetricUnit, ...]) -> None:
    """
    Each name that the sidecar writes stands on its page once, with its unit and better direction.
    """
    rows = [cells for cells in table_rows(METRICS_PAGE) if len(cells) == 4]
    names = [cells[0].strip("`") for cells in rows]
    assert len(names) == len(set(names))
    told = {name: (cells[1], cells[2]) for name, cells in zip(names, rows, strict=True)}
    assert {row.pattern: told.get(row.pattern) for row in units} == {
        row.pattern: _facts_of(row) for row in units
    }


def test_metrics_page_makes_none_up() -> None:
    """
    The page names no metric that the sidecar does not know.
    """
    known = {row.pattern for row in RESOURCE_UNITS + PHASE_UNITS + TRIAL_UNITS}
    rows = [cells for cells in table_rows(METRICS_PAGE) if len(cells) == 4]
    assert {cells[0].strip("`") for cells in rows} <= known
