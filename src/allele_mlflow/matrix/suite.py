"""
What a suite is: its fields, their limits, and the checks that need more than one of them.

A suite comes from a TOML file (`suite_file`), from Python (`Suite(...)`, `@benchmark`) or from
another tool (`importers`). Nothing here reads a file or imports the benchmark.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.expressions import parse_expression
from allele_mlflow.failures import Category
from allele_mlflow.units import Direction

#: Anything that JSON and TOML both know; passed to the benchmark as it is.
Value = Any
Axis = Annotated[list[Value], Meta(min_length=1)]

#: What an exclusive suite needs and every other default: one cell at a time.
DEFAULT_EXECUTOR = "process:1"
_REFERENCE = re.compile(r"[^:\s][^:]*:[A-Za-z_][A-Za-z0-9_.]*")
#: What MLflow takes as the name of a model, and what `name/3` and `name@stage` can be told from.
_MODEL = re.compile(r"[^/:@'\s]([^/:@'\n]*[^/:@'\s])?")


class MetricFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What is known of a metric: which way is better, its unit, whether the suite is about it.
    """

    direction: Direction = Direction.NONE
    unit: str = ""
    objective: bool = False


class Adaptive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Repeat each cell until its objective is known well enough.

    Attributes:
        metric: An objective; the first one by default.
        half_width_ratio: Wanted half width of the interval of its mean, as a part of the mean.
        confidence: Of that interval.
        most_repeats: Never more than so many.
    """

    metric: str | None = None
    half_width_ratio: Annotated[float, Meta(gt=0)] = 0.05
    confidence: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    most_repeats: Annotated[int, Meta(ge=3, le=100_000)] = 30


class GenomeEvaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How a genome that a run has kept is measured again, and what becomes of the best.

    Attributes:
        evaluate: As `benchmark`: called with `genome` (plain data) and, where it asks, a `seed`.
        model: The registered model that the best one becomes a version of; the suite's name by
            default.
        repeats: Fresh seeds.
    """

    evaluate: str
    model: str | None = None
    repeats: Annotated[int, Meta(ge=2, le=100_000)] = 5


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A benchmark, the cells that it is run in, and how.

    Attributes:
        name: Of the MLflow experiment, behind the setting `experiment_prefix`.
        benchmark: `module:function`, or `file.py:function` relative to the suite's folder.
        params: Parameters that are the same in every cell.
        matrix: Values by parameter; the cells are their product.
        zip: Groups of lists of equal length that go together; each multiplies the product.
        include: Cells beside the product, as they are.
        exclude: Cells of the product to leave out: all that agree with every value named.
        constraints: Expressions of parameters that every cell of the product has to fulfil.
        repeats: Measured runs of each cell.
        warm_ups: Calls before each measured one, in the same process; their results are not kept.
        seed: What the seeds of the repeats and the order are derived from.
        timeout_s: Longest run of a cell, warm-ups included; its whole process tree is ended then.
        memory_limit_bytes: Most resident memory of a cell's process tree.
        retries: How often a failed run is tried again, by category of error.
        metrics: By name; those with `objective = true` are what the suite is about.
        adaptive: More repeats where the objective is not known well enough.
        genome: How the best genome is measured again and registered, at the end.
        components: Files, relative to the suite's folder, registered at the end, by name.
        tags: Of every run.
        artifacts: Globs, relative to the `folder` that a benchmark may ask for, of files to keep.
        alerts: Rules as in an alerts file.
        executor: Where cells run: `inline`, `process:N`, `dask:...`, `module:factory`.
        exclusive: One cell at a time, and no other exclusive suite on the machine beside it.
    """

    name: Annotated[str, Meta(min_length=1, max_length=400)]
    benchmark: str
    description: str = ""
    params: dict[str, Value] = {}
    matrix: dict[str, Axis] = {}
    zip: list[dict[str, Axis]] = []
    include: list[dict[str, Value]] = []
    exclude: list[dict[str, Value]] = []
    constraints: list[str] = []
    repeats: Annotated[int, Meta(ge=1, le=100_000)] = 1
    warm_ups: Annotated[int, Meta(ge=0, le=100_000)] = 0
    seed: Annotated[int, Meta(ge=0, le=1 << 62)] = 0
    timeout_s: Annotated[float, Meta(gt=0)] | None = None
    memory_limit_bytes: Annotated[int, Meta(ge=1 << 20)] | None = None
    retries: dict[Category, Annotated[int, Meta(ge=0, le=100)]] = {}
    metrics: dict[str, MetricFacts] = {}
    adaptive: Adaptive | None = None
    genome: GenomeEvaluation | None = None
    components: dict[str, str] = {}
    tags: dict[str, str] = {}
    artifacts: list[str] = []
    alerts: list[dict[str, Value]] = []
    executor: str = DEFAULT_EXECUTOR
    exclusive: bool = False

    def __post_init__(self) -> None:
        """
        Check what belongs together.

        Raises:
            MatrixError: `facts["path"]` is where in the suite, e.g. ("matrix", "rate").
        """
        if not _REFERENCE.fullmatch(self.benchmark):
            raise bad_suite(("benchmark",), f"benchmark={self.benchmark!r}: want 'module:function'")
        _check_names(self)
        _check_zip(self)
        _check_selection(self)
        _check_objectives(self)
        _check_genome(self)

    @property
    def objectives(self) -> dict[str, MetricFacts]:
        """
        The metrics that the suite is about, in order.
        """
        return {name: facts for name, facts in self.metrics.items() if facts.objective}

    @property
    def model(self) -> str:
        """
        The registered model that its genomes are versions of.
        """
        said = self.genome.model if self.genome is not None else None
        return self.name if said is None else said

    @property
    def axes(self) -> list[str]:
        """
        The parameters that vary in the product, in order.
        """
        return [*self.matrix, *(name for group in self.zip for name in group)]


def bad_suite(path: Iterable[str | int], text: str) -> MatrixError:
    """
    An error of a suite, at a place in it.
    """
    return MatrixError(text, kind=ErrorKind.BAD_SUITE, path=tuple(path))


def nearest(name: str, known: Iterable[str]) -> str:
    """
    "; did you mean ...?" where a known name is near, else nothing.
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _check_names(suite: Suite) -> None:
    seen: dict[str, str] = {}
    groups: list[tuple[tuple[str | int, ...], Mapping[str, Any]]] = [
        (("params",), suite.params),
        (("matrix",), suite.matrix),
        *((("zip", number), group) for number, group in enumerate(suite.zip)),
    ]
    for path, group in groups:
        where = ".".join(map(str, path))
        for name in group:
            _check_parameter(name, (*path, name))
            if name in seen:
                raise bad_suite(
                    (*path, name), f"{name!r} stands in {where} and in {seen[name]}: want one place"
                )
            seen[name] = where
    for number, cell in enumerate(suite.include):
        for name in cell:
            _check_parameter(name, ("include", number, name))


def _check_parameter(name: str, path: tuple[str | int, ...]) -> None:
    if not name.isidentifier():
        raise bad_suite(path, f"parameter {name!r}: want a name that Python takes as an argument")
    if name in ("seed", "log", "folder"):
        raise bad_suite(
            path, f"parameter {name!r}: the runner passes that one itself; want another name"
        )


def _check_zip(suite: Suite) -> None:
    for name, axis in suite.matrix.items():
        _check_distinct(axis, ("matrix", name))
    for number, group in enumerate(suite.zip):
        lengths = {name: len(axis) for name, axis in group.items()}
        if not lengths:
            raise bad_suite(("zip", number), "an empty zip group: want lists of equal length")
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise bad_suite(("zip", number), f"zip: want lists of equal length, got {told}")


def _check_distinct(axis: list[Value], path: tuple[str | int, ...]) -> None:
    for number, value in enumerate(axis):
        # 1 and True are equal in Python, and not in a file
        if any(value == other and type(value) is type(other) for other in axis[:number]):
            raise bad_suite(path, f"{path[-1]}: {value!r} stands there twice")


def _check_selection(suite: Suite) -> None:
    axes = suite.axes
    for number, entry in enumerate(suite.exclude):
        if not entry:
            raise bad_suite(("exclude", number), "an empty exclude would leave out every cell")
        for name in entry:
            if name not in axes:
                raise bad_suite(
                    ("exclude", number, name),
                    f"exclude: {name!r} is no parameter of the matrix{nearest(name, axes)}",
                )
    for number, text in enumerate(suite.constraints):
        path = ("constraints", number)
        try:
            expression = parse_expression(text)
        except MatrixError as exc:
            raise bad_suite(path, exc.message) from exc
        known = [*axes, *suite.params]
        for name in sorted(expression.names - set(known)):
            raise bad_suite(
                path, f"constraint {text!r}: {name!r} is no parameter{nearest(name, known)}"
            )


def _check_objectives(suite: Suite) -> None:
    for name, facts in suite.metrics.items():
        if facts.objective and facts.direction is Direction.NONE:
            raise bad_suite(
                ("metrics", name),
                f"objective {name!r}: want direction = 'higher' or 'lower', "
                "else nobody knows which cell is better",
            )
    if suite.adaptive is None:
        return
    wanted = suite.adaptive.metric
    if not suite.objectives:
        raise bad_suite(("adaptive",), "adaptive: want a metric with objective = true")
    if wanted is not None and wanted not in suite.objectives:
        hint = nearest(wanted, suite.objectives)
        raise bad_suite(("adaptive", "metric"), f"adaptive: {wanted!r} is no objective{hint}")
    if suite.adaptive.most_repeats < suite.repeats:
        raise bad_suite(
            ("adaptive", "most_repeats"),
            f"most_repeats={suite.adaptive.most_repeats}: want at least repeats={suite.repeats}",
        )


def _check_genome(suite: Suite) -> None:
    told = suite.genome
    if told is None:
        return
    if not _REFERENCE.fullmatch(told.evaluate):
        raise bad_suite(
            ("genome", "evaluate"), f"genome: evaluate={told.evaluate!r}: want 'module:function'"
        )
    if not suite.objectives:
        raise bad_suite(("genome",), "genome: want a metric with objective = true: it is measured")
    if not _MODEL.fullmatch(suite.model):
        place = ("genome",) if told.model is None else ("genome", "model")
        raise bad_suite(
            place, f"genome: model={suite.model!r}: want a name, not empty, without any of / : @ '"
        )
