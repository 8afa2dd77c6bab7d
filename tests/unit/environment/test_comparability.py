"""
What two fingerprints allow, and what an identity holds.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from allele_mlflow.environment.comparability import Verdict, compare_environments
from allele_mlflow.environment.fingerprint import (
    ASPECTS,
    Environment,
    Gpu,
    ThreadPool,
    Weight,
    read_environment,
)
from allele_mlflow.errors import RecordError

GIB = 1 << 30
KNOWN = Environment(
    host="bench-1",
    system="Linux",
    kernel="6.8.0-45-generic",
    machine="x86_64",
    cpu_model="Xeon Gold 6338",
    cpu_count=64,
    usable_cpu_count=32,
    cpu_governor="performance",
    cpu_limit_count=64.0,
    memory_bytes=251 * GIB,
    memory_limit_bytes=251 * GIB,
    python="3.12.4",
    implementation="CPython",
    python_flags="",
    packages={"numpy": "2.1.0", "deap": "1.4.1", "tinylib": "0.4.2", "pytest": "9.0.1"},
    thread_limits={"OMP_NUM_THREADS": "1"},
    blas=[ThreadPool(library="openblas", version="0.3.27", thread_count=1)],
    gpus=[Gpu(name="NVIDIA A100", memory_bytes=80 * GIB)],
    gpu_driver="550.54.14",
    commit="a" * 40,
    branch="main",
    is_dirty=False,
    diff_hash="",
)


def changed(**fields: Any) -> Environment:
    """
    The known environment with some fields others.
    """
    return msgspec.structs.replace(KNOWN, **fields)


def packages(**versions: str | None) -> dict[str, str]:
    """
    Its packages with some versions others; None: not installed.
    """
    known = {**(KNOWN.packages or {}), **versions}
    return {name: version for name, version in known.items() if version is not None}


DECISIVE: dict[str, dict[str, Any]] = {
    "system": {"system": "Darwin"},
    "machine": {"machine": "aarch64"},
    "cpu_model": {"cpu_model": "EPYC 7763"},
    "cpu_count": {"cpu_count": 32},
    "usable_cpu_count": {"usable_cpu_count": 2},
    "cpu_limit_count": {"cpu_limit_count": 1.5},
    "cpu_governor": {"cpu_governor": "powersave"},
    "implementation": {"implementation": "PyPy"},
    "python": {"python": "3.13.0"},
    "python_flags": {"python_flags": "t"},
    "thread_limits": {"thread_limits": {}},
    "gpus": {"gpus": []},
    "blas": {"blas": [ThreadPool(library="mkl", version="2024.1", thread_count=1)]},
    "packages.numpy": {"packages": packages(numpy="1.26.4")},
    "packages.torch": {"packages": packages(torch="2.4.0")},
}
MINOR: dict[str, dict[str, Any]] = {
    "kernel": {"kernel": "6.11.0"},
    "python": {"python": "3.12.5"},
    "memory_bytes": {"memory_bytes": 125 * GIB, "memory_limit_bytes": 125 * GIB},
    "memory_limit_bytes": {"memory_limit_bytes": 4 * GIB},
    "gpu_driver": {"gpu_driver": "560.28"},
    "packages.numpy": {"packages": packages(numpy="2.1.1")},
    "packages.deap": {"packages": packages(deap="2.0.0")},
    "packages.tinylib": {"packages": packages(tinylib=None)},
}
WITHOUT_EFFECT: dict[str, dict[str, Any]] = {
    "host": {"host": "bench-2"},
    "kernel": {"kernel": "6.8.0-48-generic"},
    "gpu_driver": {"gpu_driver": "550.90.07"},
    "packages.pytest": {"packages": packages(pytest="8.0.0")},
}
CODE: dict[str, dict[str, Any]] = {
    "commit": {"commit": "b" * 40},
    "branch": {"branch": "faster"},
    "is_dirty": {"is_dirty": True},
    "diff_hash": {"diff_hash": "0123456789abcdef"},
}


@pytest.mark.parametrize(
    ("changes", "weight", "verdict"),
    [
        (DECISIVE, Weight.DECISIVE, Verdict.DIFFERENT),
        (MINOR, Weight.MINOR, Verdict.COMPARABLE),
        (CODE, Weight.CODE, Verdict.SAME),
        (WITHOUT_EFFECT, Weight.NOTE, Verdict.SAME),
    ],
    ids=["decisive", "minor", "code", "note"],
)
def test_verdict_follows_what_differs(
    changes: dict[str, dict[str, Any]], weight: Weight, verdict: Verdict
) -> None:
    """
    Each thing of a table has the weight that the rule gives it, is named, and decides from either
    side.
    """
    for field, change in changes.items():
        other = changed(**change)
        for found in (compare_environments(KNOWN, other), compare_environments(other, KNOWN)):
            assert found.verdict is verdict, field
            assert [one.field for one in found.of_weight(weight)] == [field]


def test_an_environment_is_the_same_as_itself() -> None:
    """
    Nothing differs, also where nothing is known.
    """
    for one in (KNOWN, Environment()):
        assert compare_environments(one, one).verdict is Verdict.SAME
        assert compare_environments(one, one).differences == ()


@pytest.mark.parametrize("field", sorted({aspect.field for aspect in ASPECTS} | {"packages"}))
def test_what_one_side_does_not_know_makes_it_comparable(field: str) -> None:
    """
    Unknown is neither equal nor different: the verdict is the middle one, and says what is missing.
    """
    found = compare_environments(KNOWN, changed(**{field: None}))
    assert found.verdict is Verdict.COMPARABLE
    assert field in [one.field for one in found.of_weight(Weight.MINOR)]
    (told,) = (one for one in found.differences if one.field == field)
    assert told.b is None


def test_blas_seen_by_one_side_says_nothing() -> None:
    """
    A process that has not loaded NumPy yet has no BLAS, and runs on the same machine.
    """
    found = compare_environments(KNOWN, changed(blas=None))
    assert found.verdict is Verdict.SAME
    assert [one.field for one in found.differences] == ["blas"]


def test_what_is_decisive_stands_first_and_in_the_line() -> None:
    """
    The line says why, in a table's width, and the code is told apart.
    """
    other = changed(cpu_count=32, python="3.12.5", commit="b" * 40)
    found = compare_environments(KNOWN, other)
    assert found.line() == "different: cpu_count 64 / 32; python 3.12.4 / 3.12.5"
    assert found.is_other_code
    assert not compare_environments(KNOWN, changed(cpu_count=32)).is_other_code
    many = changed(packages={f"p{number}": "1" for number in range(20)})
    assert "; and 18 more" in compare_environments(KNOWN, many).line()


@pytest.mark.parametrize("changes", [DECISIVE, MINOR, CODE, WITHOUT_EFFECT])
def test_identity_is_that_of_the_same_environments(changes: dict[str, dict[str, Any]]) -> None:
    """
    Two environments have one identity if and only if they are the same; BLAS apart, which only
    some processes can see.
    """
    for field, change in changes.items():
        if field == "blas":
            continue
        other = changed(**change)
        is_same = compare_environments(KNOWN, other).verdict is Verdict.SAME
        assert (other.identity == KNOWN.identity) is is_same, field


def test_memory_may_change_a_little() -> None:
    """
    A kernel's update keeps some megabytes more for itself: still the same machine.
    """
    bytes_after = 251 * GIB - 300 * (1 << 20)
    after = changed(memory_bytes=bytes_after, memory_limit_bytes=bytes_after)
    assert compare_environments(KNOWN, after).verdict is Verdict.SAME


def test_json_round_trip() -> None:
    """
    What was written is read back whole; a newer version's fields are ignored, an older version's
    missing ones are unknown.
    """
    assert read_environment(KNOWN.to_json()) == KNOWN
    assert read_environment(Environment().to_json()) == Environment()
    newer = msgspec.json.encode({**msgspec.to_builtins(KNOWN), "format": 2, "turbo": True})
    assert read_environment(newer).cpu_model == KNOWN.cpu_model
    older = read_environment(b'{"format":1,"host":"h","python":"3.11.1","executable":"/bin/py"}')
    assert (older.python, older.cpu_model) == ("3.11.1", None)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b'{"cpu_count":"many"}'])
def test_what_is_no_environment_is_refused(data: bytes) -> None:
    """
    The error says what is wrong and what is wanted.
    """
    with pytest.raises(RecordError, match=r"no environment: .*want the JSON"):
        read_environment(data)


def test_tags_name_what_is_known() -> None:
    """
    A run is found by its environment, its commit (under MLflow's own name) and its changes.
    """
    assert KNOWN.tags == {
        "allele.environment": KNOWN.identity,
        "mlflow.source.git.commit": "a" * 40,
        "mlflow.source.git.branch": "main",
    }
    assert changed(diff_hash="12ab").tags["allele.diff_hash"] == "12ab"
    assert set(Environment().tags) == {"allele.environment"}
