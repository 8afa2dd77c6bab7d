"""
The registry of the settings, as pages and actions ask it.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.references import Stage
from allele_mlflow.registry.gates import Policy
from allele_mlflow.registry.registry import Registry, open_client
from allele_mlflow.settings import Settings, mask_secrets
from allele_mlflow.tracking.registry_client import RegistryClient
from allele_mlflow.tracking.schema import sqlite_path


class RegistrySource:
    """
    Opens registries on one connection. Thread-safe; looking makes no registry where there is none.
    """

    def __init__(self, settings: Settings, policies: Mapping[Stage, Policy] | None = None) -> None:
        """
        Args:
            settings: Where it is.
            policies: What stages ask for; None for what is usual.
        """
        self.policies = policies
        self._settings = settings
        self._client: RegistryClient | None = None
        self._lock = Lock()

    def open(self, *, by: str | None = None) -> Registry:
        """
        The registry, for one thread.

        Args:
            by: Who acts; nobody does where pages only look.
        Raises:
            RefusalError: 404: it is switched off, or there is none yet.
        """
        problem = self.problem()
        if problem is not None:
            raise RefusalError(404, problem)
        with self._lock:
            if self._client is None:
                self._client = open_client(self._settings)
        return Registry(self._client, by=by)

    @property
    def address(self) -> str:
        """
        Where it is, without secrets.
        """
        return mask_secrets(self._settings.model_registry_uri)

    def problem(self) -> str | None:
        """
        Why there is no registry to look into; None where there is one.
        """
        settings = self._settings
        if not settings.model_registry_enabled:
            return "the registry is switched off: the setting model_registry_enabled is false"
        path = sqlite_path(settings.model_registry_uri)
        if path is not None and not path.exists():
            return (
                f"there is no registry at {self.address} yet: allele-mlflow registry register "
                "makes it"
            )
        return None
