"""
The generated pages say what the code says, and the shell file does what it says.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from allele_mlflow.settings import DEFAULTS, SETTING_NAMES, describe, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """
    The program docs/generate.py as a module.
    """
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_in_the_tree_are_fresh(generate: ModuleType) -> None:
    """
    What stands in the tree is what the code would write today.
    """
    assert generate.stale_pages(ROOT) == []


def test_check_names_what_is_stale(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    `--check` fails, names each stale or missing file, and writes nothing.
    """
    generate.write_pages(tmp_path, generate.PAGES)
    page = tmp_path / "docs/reference/settings.md"
    page.write_text(page.read_text() + "by hand\n")
    (tmp_path / "config/allele.env").unlink()
    assert generate.main(["--check"], root=tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "docs/reference/settings.md: not what the code says; run `make docs`",
        "config/allele.env: not what the code says; run `make docs`",
    ]
    assert page.read_text().endswith("by hand\n")
    assert not (tmp_path / "config/allele.env").exists()


def test_writing_makes_fresh(generate: ModuleType, tmp_path: Path) -> None:
    """
    After one run without `--check`, `--check` is content.
    """
    assert generate.main([], root=tmp_path) == 0
    assert generate.main(["--check"], root=tmp_path) == 0


def test_reference_has_every_setting_once(generate: ModuleType) -> None:
    """
    Each setting has one row, with its default and meaning.
    """
    rows = [line for line in generate.settings_page().splitlines() if line.startswith("| `ALLELE")]
    assert len(rows) == len(SETTING_NAMES)
    for name in SETTING_NAMES:
        facts = describe(name)
        (row,) = [row for row in rows if row.startswith(f"| `{facts.variable}` ")]
        assert facts.description in row
        assert row.count("|") == 5


def run_shell(script: str, folder: Path) -> dict[str, str]:
    done = subprocess.run(
        ["sh", "-euc", f"{script}; env"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("ALLELE_MLFLOW_")}


def test_shell_file_as_it_stands_sets_nothing(tmp_path: Path) -> None:
    """
    Loading config/allele.env unchanged leaves every setting at its default.
    """
    environ = run_shell(f"set -a; . {ROOT}/config/allele.env", tmp_path)
    assert environ == {}
    assert load(environ=environ, folder=tmp_path) == load(environ={}, folder=tmp_path)


def test_shell_file_with_every_line_switched_on_holds_the_defaults(tmp_path: Path) -> None:
    """
    Every variable of config/allele.env, its # taken away, is accepted and is that default.
    """
    text = (ROOT / "config" / "allele.env").read_text()
    switched_on, count = re.subn(r"^#(?=ALLELE_MLFLOW_)", "", text, flags=re.MULTILINE)
    assert count == len(SETTING_NAMES)
    (tmp_path / "on.env").write_text(switched_on)
    environ = run_shell("set -a; . ./on.env", tmp_path)
    assert len(environ) == len(SETTING_NAMES)
    loaded = load(environ=environ, folder=tmp_path)
    plain = load(environ={}, folder=tmp_path)
    assert {name: getattr(loaded, name) for name in DEFAULTS} == {
        name: getattr(plain, name) for name in DEFAULTS
    }
