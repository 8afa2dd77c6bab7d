"""
What the commands of the registry have in common: opening it, evidence, and who used a version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.output import complain, shown
from allele_mlflow.errors import TrackingError
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # pandas is read where it is needed
    from allele_mlflow.registry.registry import Registry
    from allele_mlflow.registry.uses import Use

STAGES = ("development", "candidate", "staging", "production")
HASH_SHOWN = 12


def open_settings_registry() -> tuple[Registry, Settings]:
    """
    The registry of the settings, and these.

    Raises:
        RegistryError: it is disabled.
    """
    from allele_mlflow.registry.registry import open_registry
    from allele_mlflow.tracking.client import prepare_environment

    settings = settings_module.load()
    # else MLflow would repeat, unasked, a call that was done and not answered
    for key, value in prepare_environment(settings_module.environment()).items():
        settings_module.publish_variable(key, value)
    return open_registry(settings), settings


def tags_of_evidence(settings: Settings, evidence: str | None) -> dict[str, str]:
    """
    What a version's tags say of its evidence: nothing where none is named.

    Raises:
        AnalysisError: the evidence means nothing.
        TrackingError: the store does not answer.
    """
    from allele_mlflow.registry.evidence import evidence_tags, select_evidence

    return {} if evidence is None else evidence_tags(select_evidence(settings, evidence))


def set_tags(opened: Registry, name: str, number: int, tags: Mapping[str, str]) -> None:
    """
    Set tags of a version.
    """
    for key, value in tags.items():
        opened.tag(name, number, key, value)


def find_uses(opened: Registry, settings: Settings, name: str, number: int) -> list[Use] | None:
    """
    The runs that used a version, newest first; None, and said so, where their store does not tell.
    """
    from allele_mlflow.registry.uses import read_uses
    from allele_mlflow.tracking.reader import open_reader

    chain = opened.history(name)
    try:
        with contextlib.closing(open_reader(settings.tracking_uri)) as reader:
            return read_uses(reader, chain, name, number)
    except TrackingError as exc:
        complain(shown(f"which runs used it is not known: {exc}"))
        return None
