"""
The one place that reads the environment: every setting, its default, its origin.

Precedence: argument > `ALLELE_MLFLOW_*` > `MLFLOW_*` > config file (`allele-mlflow.toml`, or
`[tool.allele-mlflow]` in pyproject.toml) > default. An unknown `ALLELE_MLFLOW_*` name is an error
that names the nearest right one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.settings_table import (
    DEFAULTS,
    LOCAL_BATCH_SIZE,
    MAY_BE_EMPTY,
    PREFIX,
    REMOTE_BATCH_SIZE,
    SETTING_NAMES,
    SettingFacts,
    Settings,
    convert_setting,
    describe,
    field_types,
)
from allele_mlflow.uris import (
    MODEL_REGISTRY,
    SERVER_WORDS,
    TRACKING_STORE,
    absolute_path,
    absolute_uri,
    check_store_uri,
    is_remote_uri,
    mask_secrets,
)

__all__ = [
    "DEFAULTS",
    "HANDLE_VARIABLE",
    "INTERNAL_VARIABLES",
    "LOCAL_BATCH_SIZE",
    "MLFLOW_VARIABLES",
    "PREFIX",
    "REMOTE_BATCH_SIZE",
    "SETTING_NAMES",
    "THREAD_VARIABLES",
    "SettingFacts",
    "Settings",
    "describe",
    "environment",
    "field_types",
    "is_remote_uri",
    "load",
    "mask_secrets",
    "publish_variable",
    "thread_limits",
    "variable",
]

HANDLE_VARIABLE = "ALLELE_MLFLOW_RUN"
#: Variables of ours that are not settings: the handle of a run that `attach()` looks for.
INTERNAL_VARIABLES = frozenset({HANDLE_VARIABLE})
#: Variables that limit the threads of numeric libraries; no setting of ours.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_VARIABLE_LENGTH = 100
#: MLflow's own variables that we honour, below ours.
MLFLOW_VARIABLES = {
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "model_registry_uri": "MLFLOW_REGISTRY_URI",
}
_STORE_KINDS = {"tracking_uri": TRACKING_STORE, "model_registry_uri": MODEL_REGISTRY}
#: Our table in a pyproject.toml, below `tool`.
_TABLE = "allele-mlflow"


def load(
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    forgive_unknown: bool = False,
) -> Settings:
    """
    All settings, resolved by precedence, URIs made absolute.

    Args:
        overrides: Settings by their lower-case names, as `start_logger` takes them; None leaves
            one as it would be without.
        environ: The environment; the process's own by default.
        folder: Where the config file is looked for and what relative paths are relative to; the
            working folder by default.
        forgive_unknown: Leave unknown names alone, in the environment and the file, and unknown
            schemes of addresses (the sidecar and `attach`, which must not fail for what a newer
            version set, or for a plugin that only their parent finds).
    Raises:
        SettingsError: an unknown name, or a value that its setting cannot have.

    Cost: an address that needs a plugin of MLflow has all installed packages looked through.
    """
    environ = os.environ if environ is None else environ
    folder = _working_folder() if folder is None else folder.absolute()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(name: str, value: Any, origin: str, *, label: str) -> None:
        values[name] = convert_setting(name, value, label=label)
        origins[name] = origin

    for name, value, path in _from_files(folder, forgive_unknown=forgive_unknown):
        take(name, value, path, label=f"{name} in {path}")
    for name, variable in MLFLOW_VARIABLES.items():
        if environ.get(variable, "").strip():
            take(name, environ[variable], variable, label=variable)
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in INTERNAL_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in DEFAULTS or variable != PREFIX + name.upper():
            if forgive_unknown:
                continue
            near = _nearest(variable.removeprefix(PREFIX))
            raise _unknown(variable, near and PREFIX + near.upper())
        # As OpenTelemetry's and most tools': an empty variable says no more than none.
        if value.strip() or name in MAY_BE_EMPTY:
            take(name, value, variable, label=variable)
    for name, value in (overrides or {}).items():
        if name not in DEFAULTS:
            raise _unknown(name, _nearest(name))
        if value is not None:
            take(name, value, "argument", label=name)

    if "idle_timeout_s" not in origins and environ.get("CI", "").lower() in {"true", "1"}:
        values["idle_timeout_s"] = 0.0
        origins["idle_timeout_s"] = "CI"
    settings = Settings(**values, origins=origins)
    if not forgive_unknown:
        _check_stores(settings)
    return _resolve(settings, folder)


def environment() -> dict[str, str]:
    """
    A copy of the process's environment, for the sidecar to be started in.
    """
    return dict(os.environ)


def variable(name: str) -> str | None:
    """
    One environment variable that is not a setting of ours, or None.
    """
    return os.environ.get(name)


def thread_limits() -> dict[str, str]:
    """
    The variables that limit threads of numeric libraries, those that are set.
    """
    return {
        name: value[:_VARIABLE_LENGTH]
        for name in THREAD_VARIABLES
        if (value := os.environ.get(name))
    }


def publish_variable(name: str, value: str | None) -> None:
    """
    Set (or with None remove) a variable that child processes inherit.
    """
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as exc:
        raise SettingsError(
            "the working folder was deleted: want one that is there, for relative paths",
            kind=ErrorKind.BAD_SETTING,
            name="folder",
        ) from exc


def _nearest(name: str) -> str | None:
    """
    The setting that a wrong name means, in any case and without what all names have in common.
    """
    name = name.lower()
    if name in DEFAULTS:
        return name
    import difflib  # only for a mistake: 5 ms

    words = set(name.split("_"))
    near = difflib.get_close_matches(name, DEFAULTS, n=1, cutoff=0.5)
    near += [known for known in DEFAULTS if words <= set(known.split("_"))]
    return near[0] if near else None


def _unknown(given: str, nearest: str | None) -> SettingsError:
    hint = f"; did you mean {nearest}?" if nearest else ""
    return SettingsError(
        f"unknown setting {given}{hint}",
        kind=ErrorKind.UNKNOWN_SETTING,
        name=given,
        nearest=nearest,
    )


def _from_files(folder: Path, *, forgive_unknown: bool) -> list[tuple[str, Any, str]]:
    own, shared = folder / "allele-mlflow.toml", folder / "pyproject.toml"
    path = own if own.is_file() else shared if shared.is_file() else None
    if path is None:
        return []
    import tomllib  # only where there is a file to read: 5 ms

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:  # ValueError: not TOML, or not UTF-8
        if path is shared:  # somebody else's file, and perhaps in the middle of an edit
            return []
        raise SettingsError(
            f"{path}: not a TOML file that can be read ({exc})",
            kind=ErrorKind.BAD_SETTING,
            name=str(path),
        ) from exc
    if path is shared:
        table = _our_table(table, path, forgive_unknown=forgive_unknown)
    for name, value in table.items():
        if name in DEFAULTS or forgive_unknown:
            continue
        if path is own and isinstance(value, dict):
            raise SettingsError(
                f"{name} in {path}: got a table; in this file settings stand at the top, "
                "e.g. strict = true",
                kind=ErrorKind.UNKNOWN_SETTING,
                name=f"{name} in {path}",
                nearest=None,
            )
        near = _nearest(name)
        raise _unknown(f"{name} in {path}", near and f"{near} in {path}")
    return [(name, value, str(path)) for name, value in table.items() if name in DEFAULTS]


def _our_table(content: dict[str, Any], path: Path, *, forgive_unknown: bool) -> dict[str, Any]:
    """
    What `[tool.allele-mlflow]` of a pyproject.toml holds; empty where there is none.
    """
    tools = content.get("tool")
    if not isinstance(tools, dict):
        return {}
    for name in tools:
        is_meant = name.lower().replace("_", "-") == _TABLE
        if is_meant and name != _TABLE and not forgive_unknown:
            raise SettingsError(
                f"{path}: [tool.{name}]: want [tool.{_TABLE}]",
                kind=ErrorKind.UNKNOWN_SETTING,
                name=f"tool.{name} in {path}",
                nearest=f"tool.{_TABLE} in {path}",
            )
    table = tools.get(_TABLE, {})
    if not isinstance(table, dict):
        raise SettingsError(
            f"{path}: tool.{_TABLE}={mask_secrets(repr(table))}: want a table of settings",
            kind=ErrorKind.BAD_SETTING,
            name=str(path),
        )
    return table


def _label(name: str, origin: str) -> str:
    if origin in {PREFIX + name.upper(), MLFLOW_VARIABLES.get(name)}:
        return origin
    return name if origin == "argument" else f"{name} in {origin}"


def _check_stores(settings: Settings) -> None:
    """
    Refuse addresses that MLflow has no store for; artifacts may lie anywhere.
    """
    for name, kind in _STORE_KINDS.items():
        uri = getattr(settings, name)
        if name in settings.origins and (name, uri.lower()) != ("tracking_uri", "offline"):
            label = _label(name, settings.origins[name])
            check_store_uri(uri, kind, label=label, plugin_schemes=_plugin_schemes)


def _plugin_schemes(group: str) -> frozenset[str]:
    # only for a scheme that MLflow itself does not have: 22 ms
    from importlib.metadata import entry_points

    return frozenset(point.name for point in entry_points(group=group))


def _resolve(settings: Settings, folder: Path) -> Settings:
    labels = {name: _label(name, settings.origins.get(name, "argument")) for name in SETTING_NAMES}
    tracking_uri = absolute_uri(
        settings.tracking_uri,
        folder,
        label=labels["tracking_uri"],
        words=SERVER_WORDS | {"offline"},
    )
    is_remote = is_remote_uri(tracking_uri)
    if is_remote and "model_registry_uri" not in settings.origins:
        model_registry_uri = tracking_uri
    else:
        model_registry_uri = absolute_uri(
            settings.model_registry_uri,
            folder,
            label=labels["model_registry_uri"],
            words=SERVER_WORDS,
        )
    artifact_location = settings.artifact_location
    if not is_remote or "artifact_location" in settings.origins:
        artifact_location = absolute_uri(
            artifact_location, folder, label=labels["artifact_location"]
        )
    alerts = settings.alerts
    if alerts:
        alerts = str(absolute_path(alerts, folder, label=labels["alerts"]))
    return msgspec.structs.replace(
        settings,
        tracking_uri=tracking_uri,
        model_registry_uri=model_registry_uri,
        artifact_location=artifact_location,
        spool_dir=str(absolute_path(settings.spool_dir, folder, label=labels["spool_dir"])),
        alerts=alerts,
    )
