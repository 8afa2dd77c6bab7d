"""
What the commands of the registry have in common: opening it, and evidence.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from allele_mlflow import settings as settings_module
from allele_mlflow.settings import Settings

if TYPE_CHECKING:
    from allele_mlflow.registry.registry import Registry

STAGES = ("development", "candidate", "staging", "production")
HASH_SHOWN = 12


def open_settings_registry() -> tuple[Registry, Settings]:
    """
    The registry of the settings, and these.

    Raises:
        RegistryError: it is disabled.
    """
    from allele_mlflow.registry.registry import open_registry

    settings = settings_module.load()
    return open_registry(settings), settings


def pin_evidence(settings: Settings, evidence: str) -> str:
    """
    A selection of runs, as one that means the same for ever.

    Raises:
        AnalysisError: it means nothing.
        TrackingError: the store does not answer.
    """
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.registry.evidence import pin_selection
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        return pin_selection(select(reader, uri, evidence, prefix=settings.experiment_prefix))
