"""
One genome or component from the registry of the settings, in a call.
"""

from __future__ import annotations

from allele_mlflow import settings as settings_module
from allele_mlflow.registry.components import Component
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.registry import open_registry
from allele_mlflow.settings import Settings


def load_genome(where: str, *, settings: Settings | None = None) -> Genome:
    """
    The genome of `name@stage` or `name/version`, every hash checked.

    Args:
        where: Which one; `log.uses` takes what comes back.
        settings: By default those of the environment and the files.
    Raises:
        NotFoundError: there is no such version.
        RegistryError: a file or the journal was changed, it is a component, or the registry is
            disabled.
        TrackingError: the store does not answer.
    """
    return open_registry(settings or settings_module.load()).load(where)


def load_component(where: str, *, settings: Settings | None = None) -> Component:
    """
    The component of `name@stage` or `name/version`, every hash checked; otherwise as `load_genome`.
    """
    return open_registry(settings or settings_module.load()).load_component(where)
