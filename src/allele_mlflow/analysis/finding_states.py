"""
What people have said about findings: acknowledged, resolved, or nothing yet (new).

Kept as a tag of the experiment for each finding, so that it is seen from any machine; a finding of
which nothing was said has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from allele_mlflow.analysis.trend_findings import FindingKey, FindingKind

TAG_PREFIX = "allele.finding."
_ID_LENGTH = 12


class State(StrEnum):
    """
    Acknowledged: known and lived with. Resolved: over, and told again if it comes back as another
    finding.
    """

    NEW = "new"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class FindingState(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was said about a finding last.

    Attributes:
        cell, metric, kind, execution: Its key.
        state: What it is now.
        by: Who said so, a name of a user.
        reason: Why.
        time: When, UTC.
    """

    cell: str
    metric: str
    kind: FindingKind
    execution: str
    state: State
    by: str
    reason: str
    time: str

    @property
    def key(self) -> FindingKey:
        """
        That of the finding.
        """
        return FindingKey(self.cell, self.metric, self.kind, self.execution)


def finding_id(key: FindingKey) -> str:
    """
    A short name for a key, the same on every machine.
    """
    text = "\0".join(key)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]


def encode_state(state: FindingState) -> str:
    """
    As the value of a tag.
    """
    return msgspec.json.encode(state).decode()


def decode_states(tags: Mapping[str, str]) -> dict[str, FindingState]:
    """
    The states by id of their findings; a tag that is none of ours is passed over.
    """
    found = {}
    for key, value in tags.items():
        try:
            found[key.removeprefix(TAG_PREFIX)] = msgspec.json.decode(value, type=FindingState)
        except msgspec.MsgspecError:
            continue
    return found
