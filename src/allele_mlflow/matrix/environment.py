"""
The environment of a suite: its fingerprint and what two of them allow.

The room `environment` is below this one because the sidecar fingerprints plain runs with it, and
comparisons of any kind judge by it.
"""

from allele_mlflow.environment.comparability import (
    Comparability,
    Difference,
    Verdict,
    compare_environments,
)
from allele_mlflow.environment.fingerprint import Environment, Weight, read_environment
from allele_mlflow.environment.taking import take_environment

__all__ = [
    "Comparability",
    "Difference",
    "Environment",
    "Verdict",
    "Weight",
    "compare_environments",
    "read_environment",
    "take_environment",
]
