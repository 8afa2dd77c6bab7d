"""
The gate in tests/conftest.py: a test that did not run is no test that passed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent.parent / "conftest.py"

TESTS = {
    "plain": "import pytest\ndef test_a():\n    pytest.skip('no time')",
    "marked": "import pytest\n@pytest.mark.skip(reason='no time')\ndef test_a(): pass",
    "module": "import pytest\npytest.importorskip('no_such_module')\ndef test_a(): pass",
    "hardware": "import pytest\ndef test_a():\n    pytest.skip('hardware: no GPU')",
    "expected": "import pytest\n@pytest.mark.xfail\ndef test_a():\n    assert False",
}


@pytest.mark.process
@pytest.mark.parametrize(
    ("ci", "outcomes"),
    [
        (
            "true",
            {
                "plain": "FAILED",
                "marked": "ERROR",
                "module": "ERROR",
                "hardware": "SKIPPED",
                "expected": "XFAIL",
            },
        ),
        ("", dict.fromkeys(TESTS, "SKIPPED") | {"expected": "XFAIL"}),
    ],
)
def test_skip_fails_in_ci_unless_hardware_is_missing(
    tmp_path: Path, ci: str, outcomes: dict[str, str]
) -> None:
    """
    With CI=true a skipped test or module fails the run, except where a device is missing.
    """
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, text in TESTS.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rA",
            "--no-fold-skipped",
            "--continue-on-collection-errors",
        ],
        cwd=tmp_path,
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r"^(FAILED|ERROR|SKIPPED|XFAIL) .*?test_(\w+)\.py", done.stdout, re.MULTILINE)
    assert {name: outcome for outcome, name in told} == outcomes, done.stdout + done.stderr
    assert (done.returncode != 0) == bool(ci)
