"""
The evidence of a version as it is kept. Light: where no evidence was named, nothing is compared,
and pandas and SciPy are not imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from allele_mlflow.records import canonical_json
from allele_mlflow.registry.gates import Check, Facts

#: Of a version: which runs measured it, as a selection that means the same for ever.
EVIDENCE_TAG = "allele.evidence"


def gather_nothing(holder: int | None) -> tuple[Facts, dict[str, Any]]:
    """
    What is known of a version for which no evidence was named, as `evidence.gather_facts` tells it.
    """
    return Facts(None, holder=holder, compared=None), {"evidence": None}


def evidence_document(document: Mapping[str, Any], checks: list[Check]) -> tuple[bytes, str]:
    """
    The evidence as it is kept, and its SHA-256.
    """
    told = {"format": 1, **document, "checks": [vars(one) for one in checks]}
    data = canonical_json(told) + b"\n"
    return data, hashlib.sha256(data).hexdigest()
