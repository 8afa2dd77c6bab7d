"""
Suites out of Allele's own configurations, by the names of their fields: objects or plain data.

    BenchmarkConfig         a cell for each of its parameter sets
    BenchmarkSuite          the same, of one of its benchmarks
    MatrixBenchmarkConfig   the product of the axes of one component

Nothing of Allele's is imported. The cells are made here: what upstream's own
`generate_parameter_combinations` gives is not a product, and holds combinations twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from itertools import product
from typing import Any

from allele_mlflow.matrix.suite import Suite, bad_suite, nearest
from allele_mlflow.matrix.suite_file import suite_of
from allele_mlflow.records import canonical_json

#: Fields of a MatrixBenchmarkConfig by the component that they are of, and what a cell calls them.
MATRIX_AXES: dict[str, dict[str, str]] = {
    "evolution": {"population_sizes": "population_size", "mutation_rates": "mutation_rate"},
    "kraken": {"reservoir_sizes": "reservoir_size"},
    "agent": {
        "temperatures": "temperature",
        "llm_providers": "llm_provider",
        "llm_models": "llm_model",
    },
}
_MISSING = object()


def suite_from_allele(
    source: Any,
    *,
    benchmark: str,
    benchmark_id: str | None = None,
    component: str = "evolution",
    axes: Sequence[str] | None = None,
) -> Suite:
    """
    The suite that a configuration of Allele's describes.

    Args:
        source: A BenchmarkConfig, BenchmarkSuite or MatrixBenchmarkConfig, or plain data with their
            fields.
        benchmark: What is run, `module:function`: Allele's configurations name none.
        benchmark_id: Which one of a BenchmarkSuite's benchmarks, where it has several.
        component: Whose axes of a MatrixBenchmarkConfig: evolution, kraken or agent.
        axes: Or these fields of it; a parameter is called as its field, without the plural's s.
    Raises:
        MatrixError: it is none of the three, or cannot be meant.
    """
    if _has(source, "benchmarks"):
        return _suite_of_several(source, benchmark, benchmark_id)
    if _has(source, "parameter_sets"):
        return suite_of(_config_fields(source, benchmark))
    if any(_has(source, field) for group in MATRIX_AXES.values() for field in group):
        return suite_of(_matrix_fields(source, benchmark, component, axes))
    raise bad_suite(
        (),
        f"{type(source).__name__}: want a BenchmarkConfig (with parameter_sets), a BenchmarkSuite "
        "(with benchmarks) or a MatrixBenchmarkConfig (with population_sizes, ...)",
    )


def _suite_of_several(source: Any, benchmark: str, benchmark_id: str | None) -> Suite:
    configs = {str(_plain(_field(one, "benchmark_id", ""))): one for one in _benchmarks_of(source)}
    if benchmark_id is None and len(configs) == 1:
        (benchmark_id,) = configs
    if benchmark_id not in configs:
        known = ", ".join(configs) or "none"
        wanted = f"want benchmark_id= one of its benchmarks: {known}"
        given = "" if benchmark_id is None else f"; got {benchmark_id!r}"
        raise bad_suite(("benchmark_id",), wanted + given + nearest(benchmark_id or "", configs))
    fields = _config_fields(configs[benchmark_id], benchmark)
    name = _text(source, "name")
    if name and len(configs) == 1:
        fields["name"] = name
    fields["description"] = _text(source, "description")
    labels = [str(_plain(one)) for one in _field(source, "tags", None) or ()]
    more = {"allele.labels": ", ".join(labels), "allele.suite_version": _text(source, "version")}
    fields["tags"] |= {key: value for key, value in more.items() if value}
    return suite_of(fields)


def _benchmarks_of(source: Any) -> list[Any]:
    """
    The benchmarks of a BenchmarkSuite.
    """
    found = _field(source, "benchmarks", None)
    if isinstance(found, (str, bytes, Mapping)) or not isinstance(found, Iterable):
        raise bad_suite(("benchmarks",), f"benchmarks: want a list, got {type(found).__name__}")
    return list(found)


def _config_fields(source: Any, benchmark: str) -> dict[str, Any]:
    cells = _distinct(_cells_of_sets(source))
    if not cells:
        raise bad_suite(("parameter_sets",), "parameter_sets: there is none, so no cell")
    tags = {
        f"allele.{name}": text
        for name in ("benchmark_type", "component")
        if (text := _text(source, name))
    }
    fields = _common_fields(source, benchmark)
    fields["name"] = _text(source, "benchmark_id") or "benchmark"
    fields["tags"] = tags
    return fields | _as_matrix(cells)


def _cells_of_sets(source: Any) -> Iterable[dict[str, Any]]:
    for number, one in enumerate(_field(source, "parameter_sets", None) or ()):
        parameters = _field(one, "parameters", None)
        if not isinstance(parameters, Mapping):
            path = ("parameter_sets", number, "parameters")
            got = type(parameters).__name__
            raise bad_suite(path, f"{'.'.join(map(str, path))}: want values by name, got {got}")
        yield {str(_plain(name)): _plain(value) for name, value in parameters.items()}


def _matrix_fields(
    source: Any, benchmark: str, component: str, axes: Sequence[str] | None
) -> dict[str, Any]:
    if axes is not None:
        wanted = {field: field.removesuffix("s") for field in axes}
    elif component in MATRIX_AXES:
        wanted = {name: one for name, one in MATRIX_AXES[component].items() if _has(source, name)}
    else:
        known = ", ".join(MATRIX_AXES)
        hint = nearest(component, MATRIX_AXES)
        raise bad_suite(("component",), f"component={component!r}: want one of {known}{hint}")
    matrix = {}
    for field, name in wanted.items():
        values = _plain(_field(source, field, _MISSING))
        if not isinstance(values, list) or not values:
            raise bad_suite((field,), f"{field}: want a list of values, got {_shown(values)}")
        matrix[name] = [one[name] for one in _distinct({name: value} for value in values)]
    fields = _common_fields(source, benchmark)
    return fields | {"name": f"matrix_{component}" if axes is None else "matrix", "matrix": matrix}


def _common_fields(source: Any, benchmark: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"benchmark": benchmark}
    for theirs, ours in (
        ("runs_per_config", "repeats"),
        ("warmup_runs", "warm_ups"),
        ("timeout_seconds", "timeout_s"),
    ):
        value = _plain(_field(source, theirs, None))
        if value is not None:
            fields[ours] = value
    return fields


def _as_matrix(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """
    The cells as what is the same in all, and a matrix where they are a whole product, else each by
    itself.
    """
    names = list(cells[0])
    if any(cell.keys() != cells[0].keys() for cell in cells):
        return {"include": cells}
    values = {name: _distinct({name: cell[name]} for cell in cells) for name in names}
    params = {name: one[0][name] for name, one in values.items() if len(one) == 1}
    matrix = {name: [value[name] for value in one] for name, one in values.items() if len(one) > 1}
    points = [dict(zip(matrix, point, strict=True)) for point in product(*matrix.values())]
    varying = [{name: cell[name] for name in matrix} for cell in cells]
    if len(points) == len(cells) and len(_distinct([*points, *varying])) == len(points):
        return {"params": params, "matrix": matrix}
    return {"params": params, "include": varying}


def _distinct(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[bytes, dict[str, Any]] = {}
    for cell in cells:
        try:
            found.setdefault(canonical_json(cell), cell)
        except TypeError as exc:
            raise bad_suite((), f"{_shown(cell)}: want what JSON can hold: {exc}") from exc
    return list(found.values())


def _has(source: Any, name: str) -> bool:
    return _field(source, name, _MISSING) is not _MISSING


def _field(source: Any, name: str, default: Any) -> Any:
    if isinstance(source, Mapping):
        return source.get(name, default)
    return getattr(source, name, default)


def _text(source: Any, name: str) -> str:
    value = _plain(_field(source, name, None))
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """
    The value as JSON knows it: enums and NumPy's scalars as what they hold, tuples as lists.
    """
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):  # NumPy's, without importing it
        return value.tolist()
    return value


def _shown(value: Any) -> str:
    text = "nothing" if value is _MISSING else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
