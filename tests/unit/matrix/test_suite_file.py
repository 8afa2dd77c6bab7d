"""
Suite files: what is accepted, and how mistakes are told.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.errors import MatrixError
from allele_mlflow.failures import Category
from allele_mlflow.matrix.suite_file import find_line, parse_suite, read_suite, suite_of, suite_text
from allele_mlflow.units import Direction

FULL = """
name = "evolution"
benchmark = "evolution.py:evolve"
description = "a grid"
constraints = ["population * rate < 50"]
repeats = 3
warm_ups = 1
seed = 7
timeout_s = 30
memory_limit_bytes = 1_000_000_000
artifacts = ["*.json"]
executor = "process:2"

[params]
generations = 10

[matrix]
population = [50, 100]
rate = [0.1, 0.3]

[[zip]]
mode = ["a", "b"]
depth = [1, 2]

[[include]]
population = 500
rate = 0.5

[[exclude]]
population = 100
mode = "b"

[retries]
infrastructure = 2

[metrics."fitness/best"]
direction = "higher"
unit = "fitness"
objective = true

[adaptive]
half_width_ratio = 0.1
most_repeats = 9

[genome]
evaluate = "evolution.py:measure"
model = "persona"
repeats = 7

[components]
prompt = "prompts/tutor.json"

[tags]
team = "x"
"""


def test_every_field_is_read() -> None:
    """What a suite file can say arrives, with its types."""
    suite = parse_suite(FULL, Path("s.toml"))
    assert suite.matrix == {"population": [50, 100], "rate": [0.1, 0.3]}
    assert suite.zip == [{"mode": ["a", "b"], "depth": [1, 2]}]
    assert suite.retries == {Category.INFRASTRUCTURE: 2}
    assert suite.metrics["fitness/best"].direction is Direction.HIGHER
    assert list(suite.objectives) == ["fitness/best"]
    assert suite.timeout_s == 30
    assert suite.adaptive is not None
    assert suite.adaptive.most_repeats == 9
    assert suite.genome is not None
    assert (suite.genome.evaluate, suite.genome.repeats) == ("evolution.py:measure", 7)
    assert suite.model == "persona"
    assert suite.components == {"prompt": "prompts/tutor.json"}


def test_written_as_text_it_is_the_same_suite() -> None:
    """`suite_text` and `parse_suite` are each other's inverse."""
    suite = parse_suite(FULL, Path("s.toml"))
    assert parse_suite(suite_text(suite), Path("s.toml")) == suite


MINIMAL = 'name = "s"\nbenchmark = "m:f"\n'
OBJECTIVE = "[metrics.m]\ndirection = 'higher'\nobjective = true\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('nmae = "s"\n', 1, ["'nmae'", "did you mean 'name'"]),
        ('name = "s"\n', None, ["benchmark is missing"]),
        (MINIMAL + "repeats = 0\n", 3, ["repeats", ">= 1"]),
        (MINIMAL + 'repeats = "three"\n', 3, ["repeats", "int"]),
        (MINIMAL + "\n[matrix]\nsize = 3\n", 5, ["matrix", "array"]),
        (MINIMAL + "[matrix]\nsize = []\n", 4, ["length"]),
        (MINIMAL + "[matrix]\na = [1, 2, 1]\n", 4, ["a", "1 stands there twice"]),
        (MINIMAL + "[matrix]\nb-c = [1]\n", 4, ["'b-c'", "argument"]),
        (MINIMAL + "[matrix]\nseed = [1]\n", 4, ["'seed'", "runner passes"]),
        (MINIMAL + "[params]\na = 1\n[matrix]\na = [1]\n", 6, ["'a'", "params", "one place"]),
        (MINIMAL + "[[zip]]\na = [1, 2]\nb = [1]\n", 3, ["equal length", "a has 2", "b has 1"]),
        (
            MINIMAL + "[matrix]\nsize = [1]\n[[exclude]]\nsiez = 1\n",
            6,
            ["'siez'", "did you mean 'size'"],
        ),
        (
            MINIMAL + 'constraints = ["siez > 1"]\n[matrix]\nsize = [1]\n',
            3,
            ["'siez' is no parameter", "'size'"],
        ),
        (MINIMAL + 'constraints = ["__import__(1)"]\n', 3, ["not allowed"]),
        (MINIMAL + "[metrics.m]\ndirecton = 'higher'\n", 4, ["'directon'", "'direction'"]),
        (MINIMAL + "[metrics.m]\ndirection = 'up'\n", 4, ["direction", "up"]),
        (MINIMAL + "[metrics.m]\nobjective = true\n", 3, ["'m'", "higher"]),
        (MINIMAL + "[retries]\ntimeuot = 1\n", 4, ["'timeuot'", "did you mean 'timeout'"]),
        (MINIMAL + "[retries]\ntimeout = -1\n", 3, ["retries", ">= 0"]),
        (MINIMAL + "[adaptive]\nmost_repeats = 5\n", 3, ["objective = true"]),
        (MINIMAL + "[genome]\nevaluat = 'm:f'\n", 4, ["'evaluat'", "did you mean 'evaluate'"]),
        (MINIMAL + "[genome]\nrepeats = 3\n", 3, ["genome", "evaluate"]),
        (MINIMAL + "[genome]\nevaluate = 'm:f'\n", 3, ["genome", "objective = true"]),
        (
            MINIMAL + OBJECTIVE + "[genome]\nevaluate = 'f'\n",
            7,
            ["evaluate='f'", "module:function"],
        ),
        (
            MINIMAL + OBJECTIVE + "[genome]\nevaluate = 'm:f'\nrepeats = 1\n",
            8,
            ["genome.repeats", ">= 2"],
        ),
        (
            MINIMAL + OBJECTIVE + "[genome]\nevaluate = 'm:f'\nmodel = 'a/b'\n",
            8,
            ["model='a/b'", "/ : @"],
        ),
        (MINIMAL + OBJECTIVE + "[genome]\nevaluate = 'm:f'\nmodel = ''\n", 8, ["model=''"]),
        (MINIMAL + "[components]\nprompt = 3\n", 4, ["components.prompt", "str"]),
        ('name = "s"\nbenchmark = "f"\n', 2, ["'f'", "module:function"]),
        ("name = \n", 1, ["not TOML"]),
    ],
)
def test_mistakes_are_told_with_file_line_and_nearest_name(
    text: str, line: int | None, words: list[str]
) -> None:
    """The message begins with the file and the line, and says what was wrong and what is near."""
    with pytest.raises(MatrixError) as caught:
        parse_suite(text, Path("suite.toml"))
    message = str(caught.value)
    assert message.startswith(f"suite.toml:{line}: " if line is not None else "suite.toml: ")
    for word in words:
        assert word in message


def test_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no UTF-8 are told as such."""
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")
    for path, words in (
        (tmp_path / "no.toml", "No such file"),
        (tmp_path, "directory"),
        (binary, "UTF-8"),
    ):
        with pytest.raises(MatrixError, match=words):
            read_suite(path)


def test_lines_of_quoted_and_dotted_keys_are_found() -> None:
    """A key with an equals sign in quotes, a dotted one, the second table of an array."""
    text = '[a]\n"x=y" = 1\n[[b]]\nc = 1\n[[b]]\nc.d = 2\n'
    assert find_line(text, ("a", "x=y")) == 2
    assert find_line(text, ("b", 1, "c", "d")) == 6
    assert find_line(text, ("b", 0, "c")) == 4
    assert find_line(text, ("b", 0, "nothing")) == 3
    assert find_line(text, ("q",)) is None


def test_suite_of_plain_data_has_the_same_checks() -> None:
    """What Python hands over is checked as a file is, and tells where in it the mistake is."""
    with pytest.raises(MatrixError) as caught:
        suite_of({"name": "s", "benchmark": "m:f", "matrix": {"a": 1}})
    assert caught.value.facts["path"][:1] == ("matrix",)
