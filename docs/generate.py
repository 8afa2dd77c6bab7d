"""
Writes the pages that are made from the code: those of the settings and of the drills.

    python docs/generate.py            write what is stale
    python docs/generate.py --check    write nothing; exit 1 and name what is stale
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap

from allele_mlflow.drill.catalogue import DRILLS
from allele_mlflow.settings import (
    MLFLOW_VARIABLES,
    SETTING_NAMES,
    SettingFacts,
    describe,
)

ROOT = Path(__file__).resolve().parent.parent

SPECIFIED = (
    "enabled",
    "tracking_uri",
    "experiment_prefix",
    "artifact_location",
    "model_registry_enabled",
    "model_registry_uri",
    "auto_register_models",
    "auto_experiment_tracking",
    "metrics_batch_size",
    "artifact_retention_days",
)
GROUPS = (
    ("From the specification", SPECIFIED),
    ("Ours", tuple(name for name in SETTING_NAMES if name not in SPECIFIED)),
)

SETTINGS_HEAD = """\
# Settings

<!-- Made by docs/generate.py from src/allele_mlflow/settings_table.py; `make docs` renews it. -->

Every setting can be given in four places. The first that names it wins:

1. an argument, by its lower-case name: `start_logger("evolution", exit_timeout_s=5)`;
2. an environment variable: `ALLELE_MLFLOW_EXIT_TIMEOUT_S=5`;
3. MLflow's own variable, where there is one: {mlflow};
4. a file in the working folder: `allele-mlflow.toml`, or `[tool.allele-mlflow]` in `pyproject.toml`
   where the first is missing, with lower-case names: `exit_timeout_s = 5`.

What none of them names has the default below. [config/allele.env](../../config/allele.env) lists
every variable with its default, ready to be copied and changed.

- **A name that does not exist** is an error that suggests the nearest one; a value that the
  setting cannot have, one that says what it wants. `attach()` and the sidecar leave unknown names
  alone.
- **True or false**: `true`, `yes`, `on`, `1` and `false`, `no`, `off`, `0`, in any case.
- **An empty variable** counts as unset, except where an empty text is a value ({empty}).
- **Units** are in the names: `_s` seconds, `_bytes` bytes, `_percent` percent, `_days` days.
- **Relative files and folders** are relative to the working folder at start.
- **Passwords and tokens** in addresses are shown as `***` wherever an address is printed.
"""

ENV_HEAD = """\
# Every setting of allele-mlflow with its default. Made by docs/generate.py: run `make docs`.
#
# Copy this file, take the # away before what you want to change, and load it:
#
#     set -a; . ./allele.env; set +a
#
# As it stands it sets nothing, which is not the same as setting every default: batch size, artifact
# location and registry follow the tracking server as long as they are unset.
"""


DRILLS_HEAD = """\
# Drills

<!-- Made by docs/generate.py from src/allele_mlflow/drill/; `make docs` renews it. -->

What `allele-mlflow drill` tries, by the [guarantee](../understanding/guarantees.md) that it
attacks. Short: repetitions by default and in `make test`
([`test_promise_holds_under_attack`](../../tests/faults/test_drills.py)); full: with `--full`, so in
`make drill`. [Fault drills](../guides/drill.md) says how to run them and to read their table.
"""


def settings_page() -> str:
    """
    The reference page of all settings, in Markdown.
    """
    mlflow = ", ".join(
        f"`{variable}` for `{describe(name).variable}`"
        for name, variable in MLFLOW_VARIABLES.items()
    )
    empty = " and ".join(
        f"`{facts.variable}`" for facts in map(describe, SETTING_NAMES) if facts.values == "text"
    )
    parts = [SETTINGS_HEAD.format(mlflow=mlflow, empty=empty)]
    for title, names in GROUPS:
        parts += [
            f"## {title}\n",
            "| Variable | Default | Takes | Meaning |",
            "|---|---|---|---|",
        ]
        parts += [*(_row(describe(name)) for name in names), ""]
    return "\n".join(parts)


def environment_file() -> str:
    """
    The settings as a shell file in which every line is a comment.
    """
    lines = [ENV_HEAD]
    for title, names in GROUPS:
        lines.append(f"# ---- {title} ----\n")
        for facts in map(describe, names):
            text = f"{facts.description} Takes {facts.values}."
            lines += [f"# {line}" for line in wrap(text.replace("`", ""), 98)]
            lines.append(
                f"#{facts.variable}={shlex.quote(facts.default) if facts.default else ''}\n"
            )
    return "\n".join(lines)


def drills_page() -> str:
    """
    The reference page of all drills by the guarantee that they attack, in Markdown.
    """
    parts = [DRILLS_HEAD]
    for number in sorted({drill.guarantee for drill in DRILLS}):
        parts += [
            f"## Guarantee {number}\n",
            "| Drill | Promise | Short | Full |",
            "|---|---|---|---|",
        ]
        parts += [
            f"| `{drill.name}` | {drill.promise} | {drill.short} | {drill.full} |"
            for drill in DRILLS
            if drill.guarantee == number
        ]
        parts.append("")
    return "\n".join(parts)


PAGES = {
    "docs/reference/settings.md": settings_page,
    "docs/reference/drills.md": drills_page,
    "config/allele.env": environment_file,
}


def stale_pages(root: Path) -> list[str]:
    """
    The generated files below `root` that are missing or are not what the code says.
    """
    return [
        path
        for path, made_by in PAGES.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != made_by()
    ]


def write_pages(root: Path, paths: Iterable[str]) -> None:
    """
    Write these generated files below `root`.
    """
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(PAGES[path](), encoding="utf-8")


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """
    Exit code: 0 when all is fresh or written, 1 when `--check` found something stale.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    is_check = parser.parse_args(arguments).check
    stale = stale_pages(root)
    if is_check:
        for path in stale:
            print(f"{path}: not what the code says; run `make docs`")
        if not stale:
            print(f"generated docs are fresh ({len(PAGES)} files)")
        return 1 if stale else 0
    write_pages(root, stale)
    print("\n".join(f"wrote {path}" for path in stale) or "nothing to write: all fresh")
    return 0


def _row(facts: SettingFacts) -> str:
    default = f"`{facts.default}`" if facts.default else "empty"
    takes = facts.values.replace("|", "\\|")
    return f"| `{facts.variable}` | {default} | {takes} | {facts.description} |"


if __name__ == "__main__":
    sys.exit(main())
