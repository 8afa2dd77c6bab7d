"""
Which settings are in force, where they come from, and which are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.checks.findings import Finding, good, misconfigured, note
from allele_mlflow.errors import ErrorKind, SettingsError
from allele_mlflow.settings import (
    DEFAULTS,
    INTERNAL_VARIABLES,
    MLFLOW_VARIABLES,
    PREFIX,
    SETTING_NAMES,
    Settings,
    mask_secrets,
)

#: No config file can be below it.
_NO_FOLDER = Path("/dev/null")


class Configuration(NamedTuple):
    """
    The settings without those that are wrong; None where nothing can be said without mending them.
    """

    settings: Settings | None
    findings: list[Finding]


def check_settings(
    environ: Mapping[str, str], folder: Path, *, tracking_uri: str | None = None
) -> Configuration:
    """
    All settings that are wrong, each by itself, and all that are not at their default.

    Args:
        environ: The environment.
        folder: The working folder.
        tracking_uri: As given on the command line, or None.
    """
    usable, findings = _sort_out(environ)
    overrides = {"tracking_uri": tracking_uri} if tracking_uri is not None else {}
    try:
        settings_module.load(overrides, environ={}, folder=_NO_FOLDER)
    except SettingsError as exc:
        findings.append(_wrong(exc, "--tracking-uri"))
        overrides = {}
    settings = None
    try:
        settings = settings_module.load(overrides, environ=usable, folder=folder)
    except SettingsError as exc:
        findings.append(_wrong(exc, "the file"))
        try:
            settings = settings_module.load(
                overrides, environ=usable, folder=folder, forgive_unknown=True
            )
        except SettingsError:
            findings.append(
                note("settings", "store and spool are not checked: the settings are not known")
            )
    if settings is not None:
        findings += _describe(settings)
    return Configuration(settings, findings)


def _sort_out(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Finding]]:
    """
    The environment without the variables that are wrong, and why they are.
    """
    usable, findings = dict(environ), []
    for variable in sorted(environ):
        is_ours = variable.startswith(PREFIX) and variable not in INTERNAL_VARIABLES
        if not is_ours and variable not in MLFLOW_VARIABLES.values():
            continue
        try:
            settings_module.load(environ={variable: environ[variable]}, folder=_NO_FOLDER)
        except SettingsError as exc:
            findings.append(_wrong(exc, variable))
            del usable[variable]
    return usable, findings


def _wrong(exc: SettingsError, where: str) -> Finding:
    nearest = exc.facts.get("nearest")
    if exc.kind is not ErrorKind.UNKNOWN_SETTING:
        remedy = f"correct {where}, or remove it: the default is used then"
    elif nearest:
        remedy = f"call it {nearest}, or remove it"
    else:
        remedy = "remove it, or correct its name: docs/reference/settings.md has all of them"
    return misconfigured("settings", mask_secrets(str(exc)), remedy, setting=where)


def _describe(settings: Settings) -> list[Finding]:
    findings = []
    for name in SETTING_NAMES:
        if name not in settings.origins:
            continue
        value = getattr(settings, name)
        shown = mask_secrets(value) if isinstance(value, str) else value
        origin = settings.origins[name]
        text = f"{name} = {shown} (from {_origin_text(origin)})"
        findings.append(good("settings", text, setting=name, origin=origin))
    if not findings:
        findings.append(good("settings", f"all {len(DEFAULTS)} are at their defaults"))
    if not settings.enabled:
        findings.append(
            note("settings", "logging is switched off", f"unset {PREFIX}ENABLED to have it")
        )
    return findings


def _origin_text(origin: str) -> str:
    return {"argument": "the command line", "CI": "CI=true"}.get(origin, origin)
