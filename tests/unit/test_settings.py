"""
What a setting may be, where it comes from, and what a mistake says.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from allele_mlflow import settings as settings_module
from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.settings import (
    DEFAULTS,
    SETTING_NAMES,
    Settings,
    describe,
    field_types,
    load,
)

SPECIFIED_DEFAULTS = {
    "enabled": True,
    "tracking_uri": "sqlite:///mlflow.db",
    "experiment_prefix": "allele_benchmark_",
    "artifact_location": "./mlflow_artifacts",
    "model_registry_enabled": True,
    "model_registry_uri": "sqlite:///mlflow_registry.db",
    "auto_register_models": True,
    "auto_experiment_tracking": True,
    "metrics_batch_size": 100,
    "artifact_retention_days": 30,
}

#: For each setting: a text and the value it must become, and a text that must be refused.
EXAMPLES: dict[str, tuple[str, Any, str | None]] = {
    "enabled": ("false", False, "maybe"),
    "tracking_uri": ("http://h:5000", "http://h:5000", "sqlite://"),
    "experiment_prefix": ("mine - ", "mine - ", None),
    "artifact_location": ("s3://bucket/a", "s3://bucket/a", "file://elsewhere/a"),
    "model_registry_enabled": ("no", False, "2"),
    "model_registry_uri": ("https://h", "https://h", "sqlite:///:memory:"),
    "auto_register_models": ("OFF", False, "never"),
    "auto_experiment_tracking": ("0", False, "nil"),
    "metrics_batch_size": ("500", 500, "1001"),
    "artifact_retention_days": ("7", 7, "-1"),
    "spool_dir": ("/var/tmp/spool", "/var/tmp/spool", "~no-such-user-here/spool"),
    "spool_quota_bytes": ("1000000", 1_000_000, "1GB"),
    "idle_timeout_s": ("0.5", 0.5, "-1"),
    "sidecar_cpu_percent": ("100", 100.0, "101"),
    "delivery": ("Quiet", "quiet", "loud"),
    "flush_interval_s": ("0.25", 0.25, "5m"),
    "sample_interval_s": ("2", 2.0, "0"),
    "exit": ("detach", "detach", "run"),
    "exit_timeout_s": ("inf", math.inf, "-inf"),
    "worker": ("thread", "thread", "fiber"),
    "strict": ("on", True, ""),
    "sampling": ("*/loss: every 10", "*/loss: every 10", "loss=1/10"),
    "alerts": ("/etc/alerts.toml", "/etc/alerts.toml", "~no-such-user-here/alerts.toml"),
    "overhead_budget_percent": ("1.5", 1.5, "inf"),
    "durability": ("power", "power", "disk"),
    "max_lag_s": ("60", 60.0, "nan"),
    "artifact_copy_max_bytes": ("0", 0, "64M"),
    "bulk_store": ("off", "off", "on"),
    "log_level": ("ERROR", "error", "silent"),
}


def variable_of(name: str) -> str:
    return f"ALLELE_MLFLOW_{name.upper()}"


def load_in(folder: Path, environ: Mapping[str, str] = {}, /, **overrides: Any) -> Settings:
    return load(overrides, environ=environ, folder=folder)


def test_defaults_are_the_specification(tmp_path: Path) -> None:
    """
    Nothing set: the specification's ten settings have the specification's values.
    """
    assert {name: DEFAULTS[name] for name in SPECIFIED_DEFAULTS} == SPECIFIED_DEFAULTS
    assert load_in(tmp_path).origins == {}


def test_every_setting_has_an_example_here() -> None:
    """
    A new setting cannot be added without a test of what it takes and what it refuses.
    """
    assert set(EXAMPLES) == set(SETTING_NAMES) == set(field_types())


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_variable_is_read(tmp_path: Path, name: str) -> None:
    """
    Each setting can be given as a variable, and `origins` names that variable.
    """
    text, value, _ = EXAMPLES[name]
    loaded = load_in(tmp_path, {variable_of(name): text})
    assert getattr(loaded, name) == value
    assert loaded.origins == {name: variable_of(name)}


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_argument_and_file_take_the_same(tmp_path: Path, name: str) -> None:
    """
    A value given as an argument or in a file, as text or as itself, is the value of the variable.
    """
    text, value, _ = EXAMPLES[name]
    assert getattr(load_in(tmp_path, **{name: text}), name) == value
    assert getattr(load_in(tmp_path, **{name: value}), name) == value
    (tmp_path / "allele-mlflow.toml").write_text(f"{name} = {text!r}\n")
    loaded = load_in(tmp_path)
    assert getattr(loaded, name) == value
    assert loaded.origins == {name: str(tmp_path / "allele-mlflow.toml")}


@pytest.mark.parametrize("name", [name for name in SETTING_NAMES if EXAMPLES[name][2] is not None])
def test_bad_value_is_refused(tmp_path: Path, name: str) -> None:
    """
    A value that a setting cannot have is an error with the name, the value and what is wanted.
    """
    bad = str(EXAMPLES[name][2])
    label = variable_of(name) if bad else name
    with pytest.raises(SettingsError) as caught:
        load_in(tmp_path, {label: bad}) if bad else load_in(tmp_path, **{name: bad})
    assert caught.value.kind is ErrorKind.BAD_SETTING
    assert str(caught.value).startswith(f"{label}={bad!r}: want ") or "database" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"ALLELE_MLFLOW_FLUSH_INTERVAL_S": "5m"},
            "ALLELE_MLFLOW_FLUSH_INTERVAL_S='5m': want a number, in seconds (above 0), e.g. 1",
        ),
        (
            {"ALLELE_MLFLOW_METRICS_BATCH_SIZE": "0"},
            "ALLELE_MLFLOW_METRICS_BATCH_SIZE='0': want a whole number (at least 1, at most 1000),"
            " e.g. 100",
        ),
        (
            {"ALLELE_MLFLOW_DELIVERY": "loud"},
            "ALLELE_MLFLOW_DELIVERY='loud': want one of live, quiet",
        ),
        ({"ALLELE_MLFLOW_STRICT": "maybe"}, "ALLELE_MLFLOW_STRICT='maybe': want true or false"),
        (
            {"ALLELE_MLFLOW_EXIT_TIMEOUT_S": "nan"},
            "ALLELE_MLFLOW_EXIT_TIMEOUT_S='nan': want a number, in seconds (at least 0, or inf),"
            " e.g. 30",
        ),
        (
            {"MLFLOW_TRACKING_URI": "sqlite://mlflow.db"},
            "MLFLOW_TRACKING_URI='sqlite://mlflow.db': want three slashes before a relative file,"
            " e.g. sqlite:///mlflow.db",
        ),
        (
            {"MLFLOW_TRACKING_URI": "localhost:5000"},
            "MLFLOW_TRACKING_URI='localhost:5000': want http://localhost:5000",
        ),
        (
            {"ALLELE_MLFLOW_TRACKING_URI": "sqllite:///x.db"},
            "ALLELE_MLFLOW_TRACKING_URI='sqllite:///x.db': no tracking store of MLflow has the"
            " scheme sqllite; want sqlite:///x.db",
        ),
        (
            {"ALLELE_MLFLOW_MODEL_REGISTRY_URI": "htp://h"},
            "ALLELE_MLFLOW_MODEL_REGISTRY_URI='htp://h': no model registry of MLflow has the"
            " scheme htp; want http://h",
        ),
        (
            {"ALLELE_MLFLOW_TRACKING_URI": "sqlite:///:memory:"},
            "ALLELE_MLFLOW_TRACKING_URI='sqlite:///:memory:': a database in memory would be the"
            " sidecar's own; want a file, e.g. sqlite:///mlflow.db",
        ),
    ],
)
def test_error_text_says_what_got_wanted(
    tmp_path: Path, environ: dict[str, str], text: str
) -> None:
    """
    The message alone is enough to mend the setting.
    """
    with pytest.raises(SettingsError) as caught:
        load_in(tmp_path, environ)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "value", [True, 3.5, [], b"100", "1e3x"], ids=["bool", "part", "list", "bytes", "text"]
)
def test_wrong_type_is_refused(tmp_path: Path, value: object) -> None:
    """
    A whole number is asked for: nothing that merely resembles one is taken.
    """
    with pytest.raises(SettingsError, match="want a whole number"):
        load_in(tmp_path, metrics_batch_size=value)


def test_none_is_not_given(tmp_path: Path) -> None:
    """
    None as an argument leaves a setting as it would be without, so that callers can pass one on.
    """
    environ = {"ALLELE_MLFLOW_METRICS_BATCH_SIZE": "7"}
    assert load_in(tmp_path, metrics_batch_size=None).origins == {}
    assert load_in(tmp_path, environ, metrics_batch_size=None).metrics_batch_size == 7


@pytest.mark.parametrize("text", ["true", "TRUE", "yes", "On", " 1 "])
def test_true_words(tmp_path: Path, text: str) -> None:
    """
    The usual words for true are true, in any case.
    """
    assert load_in(tmp_path, {"ALLELE_MLFLOW_STRICT": text}).strict is True


@pytest.mark.parametrize("text", ["false", "False", "no", "OFF", "0"])
def test_false_words(tmp_path: Path, text: str) -> None:
    """
    The usual words for false are false, in any case.
    """
    assert load_in(tmp_path, {"ALLELE_MLFLOW_ENABLED": text}).enabled is False


def test_precedence(tmp_path: Path) -> None:
    """
    Argument over our variable over MLflow's variable over the file over the default.
    """
    file = tmp_path / "allele-mlflow.toml"
    ours, theirs = "ALLELE_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"
    seen = [load_in(tmp_path).tracking_uri]
    file.write_text('tracking_uri = "http://file"\n')
    environ: dict[str, str] = {}
    seen.append(load_in(tmp_path, environ).tracking_uri)
    environ[theirs] = "http://mlflow"
    seen.append(load_in(tmp_path, environ).tracking_uri)
    environ[ours] = "http://ours"
    seen.append(load_in(tmp_path, environ).tracking_uri)
    seen.append(load_in(tmp_path, environ, tracking_uri="http://argument").tracking_uri)
    assert seen == [
        f"sqlite:///{tmp_path}/mlflow.db",
        "http://file",
        "http://mlflow",
        "http://ours",
        "http://argument",
    ]


def test_order_of_variables_does_not_matter(tmp_path: Path) -> None:
    """
    Our variable wins over MLflow's wherever it stands in the environment.
    """
    pairs = [
        ("ALLELE_MLFLOW_TRACKING_URI", "http://ours"),
        ("MLFLOW_TRACKING_URI", "http://theirs"),
    ]
    for ordered in (pairs, pairs[::-1]):
        assert load_in(tmp_path, dict(ordered)).tracking_uri == "http://ours"


def test_own_file_wins_over_pyproject(tmp_path: Path) -> None:
    """
    `[tool.allele-mlflow]` of pyproject.toml is read where there is no allele-mlflow.toml.
    """
    (tmp_path / "pyproject.toml").write_text("[tool.allele-mlflow]\nmetrics_batch_size = 7\n")
    assert load_in(tmp_path).metrics_batch_size == 7
    (tmp_path / "allele-mlflow.toml").write_text("metrics_batch_size = 8\n")
    assert load_in(tmp_path).metrics_batch_size == 8


@pytest.mark.parametrize("text", ["", "tool = 3\n", "[tool.other]\nx = 1\n", "not toml", "\xff"])
def test_foreign_pyproject_is_left_alone(tmp_path: Path, text: str) -> None:
    """
    A pyproject.toml that has nothing for us, or cannot be read, is somebody else's matter.
    """
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    assert load_in(tmp_path).origins == {}


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("allele-mlflow.toml", "not toml", "not a TOML file"),
        ("allele-mlflow.toml", "traking_uri = 'x'", "did you mean tracking_uri in "),
        ("allele-mlflow.toml", "strict = 'perhaps'", "strict in "),
        ("pyproject.toml", "[tool]\nallele-mlflow = 3", "want a table"),
        ("pyproject.toml", "[tool.allele-mlflow]\nstrict = 1", "want true or false"),
        ("pyproject.toml", "[tool.allele_mlflow]", r"want \[tool\.allele-mlflow\]"),
        ("pyproject.toml", "[tool.allele_mlflow]\nx = 1\n[tool.allele-mlflow]", "allele_mlflow"),
        ("pyproject.toml", "[tool.Allele-MLflow]\nstrict = true", "Allele-MLflow"),
        ("allele-mlflow.toml", "[tool.allele-mlflow]\nstrict = true", "stand at the top"),
        ("allele-mlflow.toml", "[allele-mlflow]\nstrict = true", "stand at the top"),
    ],
)
def test_mistake_in_our_part_of_a_file_is_an_error(
    tmp_path: Path, file: str, text: str, told: str
) -> None:
    """
    A mistake in a file is an error that names the file.
    """
    (tmp_path / file).write_text(text)
    with pytest.raises(SettingsError, match=told) as caught:
        load_in(tmp_path)
    assert str(tmp_path / file) in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ALLELE_MLFLOW_TRAKING_URI", "ALLELE_MLFLOW_TRACKING_URI"),
        ("ALLELE_MLFLOW_BATCH_SIZE", "ALLELE_MLFLOW_METRICS_BATCH_SIZE"),
        ("ALLELE_MLFLOW_FLUSH_INTERVAL", "ALLELE_MLFLOW_FLUSH_INTERVAL_S"),
        ("ALLELE_MLFLOW_Strict", "ALLELE_MLFLOW_STRICT"),
        ("ALLELE_MLFLOW_exit_timeout_s", "ALLELE_MLFLOW_EXIT_TIMEOUT_S"),
        ("ALLELE_MLFLOW_exit_timeout", "ALLELE_MLFLOW_EXIT_TIMEOUT_S"),
        ("ALLELE_MLFLOW_QUOTA", "ALLELE_MLFLOW_SPOOL_QUOTA_BYTES"),
    ],
)
def test_unknown_variable_names_the_nearest(tmp_path: Path, wrong: str, right: str) -> None:
    """
    A misspelt variable is an error that names the right one, even when it is empty.
    """
    for value in ("1", ""):
        with pytest.raises(SettingsError) as caught:
            load_in(tmp_path, {wrong: value})
        assert caught.value.kind is ErrorKind.UNKNOWN_SETTING
        assert str(caught.value) == f"unknown setting {wrong}; did you mean {right}?"
        assert caught.value.facts["nearest"] == right


def test_name_like_no_other_names_none(tmp_path: Path) -> None:
    """
    What all names have in common, a prefix or a file, makes no name resemble another.
    """
    with pytest.raises(SettingsError) as caught:
        load_in(tmp_path, {"ALLELE_MLFLOW_DEBUG": "1"})
    assert str(caught.value) == "unknown setting ALLELE_MLFLOW_DEBUG"
    assert caught.value.facts["nearest"] is None


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_other_case_names_the_setting(tmp_path: Path, name: str) -> None:
    """
    A name in the other case is an error that names the setting itself, wherever it was written.
    """
    with pytest.raises(SettingsError, match=rf"did you mean {variable_of(name)}\?$"):
        load_in(tmp_path, {f"ALLELE_MLFLOW_{name}": "1"})
    with pytest.raises(SettingsError, match=rf"did you mean {name}\?$"):
        load_in(tmp_path, **{name.upper(): 1})
    file = tmp_path / "allele-mlflow.toml"
    file.write_text(f"{name.upper()} = 1\n")
    with pytest.raises(SettingsError) as caught:
        load_in(tmp_path)
    assert str(caught.value) == (
        f"unknown setting {name.upper()} in {file}; did you mean {name} in {file}?"
    )


def test_unknown_argument_names_the_nearest(tmp_path: Path) -> None:
    """
    A misspelt argument is an error that names the right one; one like nothing else names none.
    """
    with pytest.raises(
        SettingsError, match=r"unknown setting exit_timeout; did you mean exit_time"
    ):
        load_in(tmp_path, exit_timeout=1)
    with pytest.raises(SettingsError, match=r"unknown setting zzz$"):
        load_in(tmp_path, zzz=1)


def test_forgiving_reader_leaves_unknown_names_alone(tmp_path: Path) -> None:
    """
    The sidecar and `attach` do not fail for what a newer version set, in variables or the file.
    """
    (tmp_path / "allele-mlflow.toml").write_text("of_the_future = 1\nstrict = true\n")
    environ = {"ALLELE_MLFLOW_OF_THE_FUTURE": "1", "ALLELE_MLFLOW_DELIVERY": "quiet"}
    loaded = load(environ=environ, folder=tmp_path, forgive_unknown=True)
    assert (loaded.strict, loaded.delivery) == (True, "quiet")
    assert set(loaded.origins) == {"strict", "delivery"}


def test_forgiving_reader_leaves_unknown_tables_alone(tmp_path: Path) -> None:
    """
    Nor do they fail for a table that is in the wrong place or has the wrong name.
    """
    (tmp_path / "pyproject.toml").write_text("[tool.allele_mlflow]\nstrict = true\n")
    assert load(environ={}, folder=tmp_path, forgive_unknown=True).origins == {}
    (tmp_path / "allele-mlflow.toml").write_text("[tool.allele-mlflow]\nstrict = true\n")
    assert load(environ={}, folder=tmp_path, forgive_unknown=True).origins == {}


def test_run_handle_is_no_setting(tmp_path: Path) -> None:
    """
    The variable through which a child process finds its run is not taken for a setting.
    """
    assert load_in(tmp_path, {settings_module.HANDLE_VARIABLE: "abc"}).origins == {}


@pytest.mark.parametrize("name", SETTING_NAMES)
@pytest.mark.parametrize("text", ["", "  "])
def test_empty_variable_counts_as_unset(tmp_path: Path, name: str, text: str) -> None:
    """
    An empty variable leaves a setting at its default, except where an empty text is a value.
    """
    origins = load_in(tmp_path, {variable_of(name): text}).origins
    assert set(origins) == (
        {name} if name in {"experiment_prefix", "sampling", "alerts"} else set()
    )


@pytest.mark.parametrize("name", ["tracking_uri", "model_registry_uri", "artifact_location"])
def test_spaces_around_an_address_are_no_part_of_it(tmp_path: Path, name: str) -> None:
    """
    A space left in front of or behind an address does not make it another one.
    """
    assert getattr(load_in(tmp_path, {variable_of(name): "  http://h \n"}), name) == "http://h"


def test_empty_prefix_is_a_value(tmp_path: Path) -> None:
    """
    An experiment can be had without any prefix.
    """
    assert load_in(tmp_path, {"ALLELE_MLFLOW_EXPERIMENT_PREFIX": ""}).experiment_prefix == ""
    assert load_in(tmp_path, experiment_prefix="").experiment_prefix == ""


@pytest.mark.parametrize("name", ["tracking_uri", "spool_dir", "artifact_location"])
def test_empty_argument_is_an_error(tmp_path: Path, name: str) -> None:
    """
    An address given as an empty text in a call is a mistake, not a wish for the default.
    """
    with pytest.raises(SettingsError, match=f"{name}='': want text, not empty"):
        load_in(tmp_path, **{name: ""})


def test_empty_mlflow_variable_counts_as_unset(tmp_path: Path) -> None:
    """
    MLFLOW_TRACKING_URI= is what MLflow itself takes for "not set".
    """
    assert load_in(tmp_path, {"MLFLOW_TRACKING_URI": ""}).origins == {}


def test_path_objects_are_taken(tmp_path: Path) -> None:
    """
    Folders may be given as paths.
    """
    loaded = load_in(tmp_path, spool_dir=Path("spool"), artifact_location=tmp_path / "art")
    assert loaded.spool_dir == str(tmp_path / "spool")
    assert loaded.artifact_location == str(tmp_path / "art")


def test_spool_dir_is_absolute(tmp_path: Path) -> None:
    """
    The sidecar has another working folder, so the spool's folder is absolute; `~` is the home.
    """
    assert load_in(tmp_path).spool_dir == str(tmp_path / ".allele_mlflow" / "spool")
    assert load_in(tmp_path, spool_dir="~/s").spool_dir == str(Path.home() / "s")


def test_relative_folder_argument_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A relative `folder` means one below the working folder.
    """
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={}, folder=Path("sub"))
    assert loaded.tracking_uri == f"sqlite:///{tmp_path}/sub/mlflow.db"


def test_deleted_working_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A working folder that was deleted is an error in words, not a FileNotFoundError.
    """
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SettingsError, match="working folder was deleted"):
        load(environ={})


@pytest.mark.parametrize(
    ("uri", "unset", "set_to_50"),
    [
        ("sqlite:///mlflow.db", 100, 50),
        ("postgresql://u@h/db", 100, 50),
        ("http://h:5000", 1000, 50),
        ("HTTPS://h", 1000, 50),
        ("databricks", 1000, 50),
        ("offline", 100, 50),
    ],
)
def test_batch_size_follows_the_store_until_set(
    tmp_path: Path, uri: str, unset: int, set_to_50: int
) -> None:
    """
    Unset: 100 for local stores, 1000 for servers. Set: a ceiling for every store.
    """
    assert load_in(tmp_path, tracking_uri=uri).batch_size == unset
    assert load_in(tmp_path, tracking_uri=uri, metrics_batch_size=50).batch_size == set_to_50
    assert load_in(tmp_path, tracking_uri=uri, metrics_batch_size=100).batch_size == 100


def test_server_decides_what_was_left_unset(tmp_path: Path) -> None:
    """
    With a server behind the tracking URI, unset artifact location and registry follow the server.
    """
    remote = load_in(tmp_path, tracking_uri="https://h")
    assert remote.is_remote
    assert remote.experiment_artifact_location is None
    assert remote.model_registry_uri == "https://h"
    chosen = load_in(
        tmp_path,
        tracking_uri="https://h",
        artifact_location="./a",
        model_registry_uri="sqlite:///r",
    )
    assert chosen.experiment_artifact_location == str(tmp_path / "a")
    assert chosen.model_registry_uri == f"sqlite:///{tmp_path}/r"


def test_local_store_keeps_artifacts_beside_it(tmp_path: Path) -> None:
    """
    With a local store the artifact location is an absolute folder, set or not.
    """
    assert load_in(tmp_path).experiment_artifact_location == str(tmp_path / "mlflow_artifacts")


def test_offline(tmp_path: Path) -> None:
    """
    `offline` spools only, in any case; as a folder for artifacts it is a folder.
    """
    loaded = load_in(tmp_path, tracking_uri="Offline", artifact_location="offline")
    assert loaded.is_offline
    assert not loaded.is_remote
    assert loaded.artifact_location == str(tmp_path / "offline")
    assert not load_in(tmp_path).is_offline


@pytest.mark.parametrize("name", ["tracking_uri", "model_registry_uri"])
def test_address_that_no_store_has_is_refused_at_start(tmp_path: Path, name: str) -> None:
    """
    A wrong scheme is an error at start, and not a wait for nothing at close; so in a file.
    """
    with pytest.raises(SettingsError, match=f"{name}='foo://x': no .* has the scheme foo"):
        load_in(tmp_path, **{name: "foo://x"})
    (tmp_path / "allele-mlflow.toml").write_text(f"{name} = 'foo://x'\n")
    with pytest.raises(SettingsError, match=r"allele-mlflow\.toml='foo://x': no "):
        load_in(tmp_path)
    assert load_in(tmp_path, **{name: "sqlite:///x.db"}).origins == {name: "argument"}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("tracking_uri", "mlflow.tracking_store"),
        ("model_registry_uri", "mlflow.model_registry_store"),
    ],
)
def test_scheme_of_an_installed_plugin_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, group: str
) -> None:
    """
    What an installed package registers with MLflow is an address like any other.
    """
    package = tmp_path / "plugin_store-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-store\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{group}]\nallele-test = nowhere:Store\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_in(tmp_path, **{name: "Allele-Test://h/x"})
    assert getattr(loaded, name) == "allele-test://h/x"
    other = ({"tracking_uri", "model_registry_uri"} - {name}).pop()
    with pytest.raises(SettingsError, match="has the scheme allele-test"):
        load_in(tmp_path, **{other: "allele-test://h/x"})


@pytest.mark.parametrize(
    "uri", [None, "mlflow.db", "sqlite:///x.db", "http://h:5000", "databricks", "offline"]
)
def test_usual_start_asks_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None
) -> None:
    """
    Installed packages are looked through only for a scheme that MLflow itself does not have.
    """

    def refuse(**_: object) -> None:
        raise AssertionError("looked through the installed packages")

    monkeypatch.setattr("importlib.metadata.entry_points", refuse)
    load_in(tmp_path, tracking_uri=uri, model_registry_uri=None if uri == "offline" else uri)
    with pytest.raises(AssertionError, match="looked through"):
        load_in(tmp_path, tracking_uri="foo://x")


def test_forgiving_reader_takes_any_scheme(tmp_path: Path) -> None:
    """
    The sidecar delivers to what its producer was content with, and `attach` delivers nothing.
    """
    environ = {"ALLELE_MLFLOW_TRACKING_URI": "foo://x", "MLFLOW_REGISTRY_URI": "bar://x"}
    loaded = load(environ=environ, folder=tmp_path, forgive_unknown=True)
    assert (loaded.tracking_uri, loaded.model_registry_uri) == ("foo://x", "bar://x")


@pytest.mark.parametrize(
    "uri",
    ["s3://b/a", "gs://b/a", "abfss://c@h/a", "hdfs://h:9000/a", "mlflow-artifacts:/1", "foo:x"],
)
def test_artifacts_may_lie_anywhere(tmp_path: Path, uri: str) -> None:
    """
    Where artifacts lie is between MLflow and its many artifact stores: every scheme is taken.
    """
    assert load_in(tmp_path, artifact_location=uri).artifact_location == uri


@pytest.mark.parametrize("name", ["tracking_uri", "model_registry_uri", "artifact_location"])
def test_shown_settings_hold_no_password(tmp_path: Path, name: str) -> None:
    """
    Settings are printed with their addresses' secrets masked, and keep the real ones.
    """
    uri = "postgresql://me:pa55word@h/db"
    loaded = load_in(tmp_path, **{name: uri})
    for text in (repr(loaded), str(loaded), f"{[loaded]}", repr(dict(loaded.__rich_repr__()))):
        assert "pa55word" not in text
        assert f"{name}" in text
        assert "postgresql://me:***@h/db" in text
    assert getattr(loaded, name) == uri
    for copy in (
        pickle.loads(pickle.dumps(loaded)),
        msgspec.msgpack.decode(msgspec.msgpack.encode(loaded), type=Settings),
        msgspec.json.decode(msgspec.json.encode(loaded), type=Settings),
    ):
        assert getattr(copy, name) == uri
        assert copy == loaded
    assert loaded != load_in(tmp_path, **{name: "postgresql://me:other@h/db"})


def test_settings_without_secrets_are_shown_as_they_are() -> None:
    """
    Every setting and its origin is in what is printed, and can be made from it again.
    """
    settings = Settings(exit_timeout_s=math.inf, origins={"exit_timeout_s": "argument"})
    shown = repr(settings)
    assert shown.startswith("Settings(enabled=True, tracking_uri='sqlite:///mlflow.db', ")
    assert eval(shown, {"Settings": Settings, "inf": math.inf}) == settings


@pytest.mark.parametrize("ci", ["true", "TRUE", "1"])
def test_sidecar_does_not_idle_in_ci(tmp_path: Path, ci: str) -> None:
    """
    In CI nothing is left running, unless it was asked for.
    """
    assert load_in(tmp_path, {"CI": ci}).idle_timeout_s == 0
    assert load_in(tmp_path, {"CI": ci}, idle_timeout_s=5).idle_timeout_s == 5
    assert load_in(tmp_path, {"CI": "false"}).idle_timeout_s == DEFAULTS["idle_timeout_s"]


def test_sampling_rules_as_a_mapping(tmp_path: Path) -> None:
    """
    Rules may be a mapping, in a call and in a file; one that cannot be read says what is wanted.
    """
    rules = {"loss/*": "every 10", "gpu": "mean per 5 s"}
    assert load_in(tmp_path, sampling=rules).sampling == "loss/*: every 10; gpu: mean per 5 s"
    (tmp_path / "allele-mlflow.toml").write_text('[sampling]\n"a" = "every 3"\n')
    assert load_in(tmp_path).sampling == "a: every 3"
    with pytest.raises(SettingsError, match=r"want `glob: every 10`.*got 'loss: ever 10'"):
        load_in(tmp_path, sampling="a: every 2; loss: ever 10")


@pytest.mark.parametrize("name", SETTING_NAMES)
def test_every_setting_is_described(name: str) -> None:
    """
    Each setting has a sentence of meaning, and says what it takes.
    """
    facts = describe(name)
    assert facts.variable == variable_of(name)
    assert facts.description.endswith(".")
    assert facts.values


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    """
    Resolved settings are frozen, and survive msgpack as the sidecar gets them.
    """
    loaded = load_in(tmp_path, exit_timeout_s="inf")
    with pytest.raises(AttributeError):
        loaded.strict = True  # type: ignore[misc]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(loaded), type=Settings) == loaded


def test_process_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    Without arguments the process's own environment and working folder are read.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALLELE_MLFLOW_LOG_LEVEL", "error")
    assert load().log_level == "error"
    assert load().tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings_module.environment()["ALLELE_MLFLOW_LOG_LEVEL"] == "error"
    assert settings_module.variable("ALLELE_MLFLOW_LOG_LEVEL") == "error"


def test_published_variable_reaches_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A published variable is in the environment that children inherit, until it is taken back.
    """
    monkeypatch.delenv(settings_module.HANDLE_VARIABLE, raising=False)
    settings_module.publish_variable(settings_module.HANDLE_VARIABLE, "abc")
    assert os.environ[settings_module.HANDLE_VARIABLE] == "abc"
    settings_module.publish_variable(settings_module.HANDLE_VARIABLE, None)
    assert settings_module.variable(settings_module.HANDLE_VARIABLE) is None
    settings_module.publish_variable(settings_module.HANDLE_VARIABLE, None)
