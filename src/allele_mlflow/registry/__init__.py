"""
Registry: genomes and components in MLflow's own registry, who put them where, and on what evidence.
"""

from __future__ import annotations

from allele_mlflow.registry.components import Component
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.journal import Entry, Stage, Standing
from allele_mlflow.registry.loading import load_component, load_genome
from allele_mlflow.registry.registry import Findings, Registered, Registry, open_registry

__all__ = [
    "Component",
    "Entry",
    "Findings",
    "Genome",
    "Registered",
    "Registry",
    "Stage",
    "Standing",
    "load_component",
    "load_genome",
    "open_registry",
]
