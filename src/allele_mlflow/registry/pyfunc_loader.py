"""
What MLflow's `pyfunc.load_model` calls for a genome's version: a model that answers with its
traits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allele_mlflow.registry.genomes import GENOME_FILE, decode_genome


class GenomeModel:
    """
    A genome behind MLflow's interface of models.
    """

    def __init__(self, traits: dict[str, float]) -> None:
        self._traits = traits

    def predict(self, model_input: Any = None, params: Any = None) -> Any:
        """
        One row: a column for each trait, whatever the input.
        """
        import pandas as pd

        return pd.DataFrame([self._traits])


def _load_pyfunc(path: str) -> GenomeModel:
    file = Path(path)
    file = file / GENOME_FILE if file.is_dir() else file
    return GenomeModel(dict(decode_genome(file.read_bytes()).traits))
