"""
Registry: genomes in MLflow's own registry, who put them where, and on what evidence.
"""

from __future__ import annotations

from allele_mlflow.registry.genomes import Genome
from allele_mlflow.registry.journal import Entry, Stage, Standing
from allele_mlflow.registry.registry import Listed, Registered, Registry, open_registry
from allele_mlflow.registry.verification import Findings

__all__ = [
    "Entry",
    "Findings",
    "Genome",
    "Listed",
    "Registered",
    "Registry",
    "Stage",
    "Standing",
    "open_registry",
]
