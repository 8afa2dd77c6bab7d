"""
What the doctor says of settings.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow.cli.checks.configuration import check_settings
from allele_mlflow.cli.checks.findings import Level, worst_exit_code
from allele_mlflow.cli.exit_codes import ExitCode

SECRET = "hunter2"


def test_defaults_are_said_in_one_line(tmp_path: Path) -> None:
    """
    Where nothing is set, that is what there is to say.
    """
    settings, (found,) = check_settings({}, tmp_path)
    assert settings is not None
    assert "at their defaults" in found.text


def test_each_setting_names_its_origin(tmp_path: Path) -> None:
    """
    What is not at its default is shown with the place that it was set in, secrets masked.
    """
    (tmp_path / "allele-mlflow.toml").write_text("flush_interval_s = 3", encoding="ascii")
    environ = {
        "MLFLOW_TRACKING_URI": f"https://me:{SECRET}@host",
        "ALLELE_MLFLOW_SAMPLE_INTERVAL_S": "2",
        "CI": "true",
    }
    settings, findings = check_settings(environ, tmp_path)
    assert settings is not None
    assert settings.flush_interval_s == 3.0
    texts = [finding.text for finding in findings]
    assert "sample_interval_s = 2.0 (from ALLELE_MLFLOW_SAMPLE_INTERVAL_S)" in texts
    assert f"flush_interval_s = 3.0 (from {tmp_path / 'allele-mlflow.toml'})" in texts
    assert "tracking_uri = https://***@host (from MLFLOW_TRACKING_URI)" in texts
    assert "idle_timeout_s = 0.0 (from CI=true)" in texts
    assert SECRET not in repr(findings)
    assert worst_exit_code(findings) is ExitCode.FINE


def test_every_mistake_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    """
    Two misspelt names and a bad value are three findings, and what is right is still in force.
    """
    environ = {
        "ALLELE_MLFLOW_STRCT": "true",
        "ALLELE_MLFLOW_SPOOL_DIRECTORY": "x",
        "ALLELE_MLFLOW_FLUSH_INTERVAL_S": "5m",
        "ALLELE_MLFLOW_LOG_LEVEL": "error",
        "ALLELE_MLFLOW_RUN": "a handle, and no setting",
    }
    settings, findings = check_settings(environ, tmp_path)
    assert settings is not None
    assert (settings.log_level, settings.flush_interval_s) == ("error", 1.0)
    remedies = {one.facts["setting"]: one.remedy for one in findings if one.level is Level.PROBLEM}
    assert set(remedies) == set(environ) - {"ALLELE_MLFLOW_LOG_LEVEL", "ALLELE_MLFLOW_RUN"}
    assert "ALLELE_MLFLOW_STRICT" in remedies["ALLELE_MLFLOW_STRCT"]
    assert "ALLELE_MLFLOW_SPOOL_DIR" in remedies["ALLELE_MLFLOW_SPOOL_DIRECTORY"]
    assert worst_exit_code(findings) is ExitCode.USAGE


@pytest.mark.parametrize(
    ("content", "has_settings", "text"),
    [
        ("strct = true", True, "unknown setting strct"),
        ("strict = 'perhaps'", False, "want true or false"),
        ("strict = [", False, "not a TOML file"),
    ],
)
def test_mistake_in_the_file_is_a_finding(
    tmp_path: Path, content: str, has_settings: bool, text: str
) -> None:
    """
    A file that nobody can read ends no check; where its values are unknown, that is said.
    """
    (tmp_path / "allele-mlflow.toml").write_text(content, encoding="ascii")
    settings, findings = check_settings({}, tmp_path)
    assert (settings is not None) is has_settings
    assert any(text in one.text for one in findings)
    assert has_settings or any("not checked" in one.text for one in findings)
    assert worst_exit_code(findings) is ExitCode.USAGE


def test_store_of_the_command_line_wins(tmp_path: Path) -> None:
    """
    `--tracking-uri` is what is checked, and a bad one is a finding, not a crash.
    """
    environ = {"ALLELE_MLFLOW_TRACKING_URI": "http://there"}
    settings, _ = check_settings(environ, tmp_path, tracking_uri="http://here")
    assert settings is not None
    assert settings.tracking_uri == "http://here"
    settings, findings = check_settings({}, tmp_path, tracking_uri="htp://here")
    assert worst_exit_code(findings) is ExitCode.USAGE
    assert any("--tracking-uri" in one.remedy for one in findings)


def test_logging_that_is_off_is_noted(tmp_path: Path) -> None:
    """
    What makes everything do nothing is worth a note.
    """
    _, findings = check_settings({"ALLELE_MLFLOW_ENABLED": "false"}, tmp_path)
    assert any("switched off" in one.text and one.level is Level.NOTE for one in findings)
