"""
Registry: genomes and components in MLflow's own registry, who put them where, and on what evidence.
"""

from __future__ import annotations

from allele_mlflow.registry.components import Component
from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.journal import Entry, Stage, Standing
from allele_mlflow.registry.loading import load_component, load_genome
from allele_mlflow.registry.registration import Registered
from allele_mlflow.registry.registry import Listed, Registry, open_registry
from allele_mlflow.registry.verification import Findings

__all__ = [
    "Component",
    "Entry",
    "Findings",
    "Genome",
    "Listed",
    "Registered",
    "Registry",
    "Stage",
    "Standing",
    "load_component",
    "load_genome",
    "open_registry",
]
