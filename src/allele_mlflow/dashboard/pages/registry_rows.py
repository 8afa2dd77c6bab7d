"""
What several pages of the registry show: entries of journals, fitness, checks of gates. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from allele_mlflow.dashboard.pages.page import Column, Kind
from allele_mlflow.registry.fitness import Fitness, decode_fitness
from allele_mlflow.registry.gates import Check
from allele_mlflow.registry.journal import Entry, Stage

#: Where a version can be put.
STAGES = (Stage.DEVELOPMENT, Stage.CANDIDATE, Stage.STAGING, Stage.PRODUCTION)
STAGE_NAMES = tuple(stage.value for stage in STAGES)
HASH_SHOWN = 12
VERSION_PATH = "/registry/{name}/versions/{version}"


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    An entry of a model's journal, and its hash. `holder` held the stage before.
    """

    number: int
    time: str
    name: str
    action: str
    version: int
    stage: Stage
    holder: int | None
    by: str
    reason: str
    evidence: str | None
    hash: str

    @property
    def short_hash(self) -> str:
        """
        Its first digits.
        """
        return self.hash[:HASH_SHOWN]


class FitnessRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    The mean of a metric over finished runs, between which with 95 % the true one lies.
    """

    metric: str
    mean: float
    low: float | None
    high: float | None
    runs: int


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A rule of a gate, and by how much it passed or failed.
    """

    rule: str
    is_passed: bool
    said: str

    @property
    def outcome(self) -> str:
        """
        In a word.
        """
        return "passed" if self.is_passed else "failed"


ENTRY_COLUMNS = (
    Column("time", "When", Kind.TIME),
    Column("number", "Entry", Kind.COUNT),
    Column("action", "What", Kind.WORDS),
    Column("version", "Version", Kind.CODE, path=VERSION_PATH),
    Column("stage", "Stage", Kind.STATUS),
    Column("holder", "After", Kind.CODE),
    Column("by", "By", Kind.NAME),
    Column("reason", "Why", Kind.SENTENCE),
    Column("short_hash", "Hash", Kind.WORDS),
)
FITNESS_COLUMNS = (
    Column("metric", "Metric", Kind.NAME),
    Column("mean", "Mean", Kind.NUMBER),
    Column("low", "95 % from", Kind.NUMBER),
    Column("high", "to", Kind.NUMBER),
    Column("runs", "Runs", Kind.COUNT),
)
CHECK_COLUMNS = (
    Column("rule", "Rule", Kind.NAME),
    Column("outcome", "Outcome", Kind.STATUS),
    Column("said", "By how much", Kind.SENTENCE),
)


def entry_rows(entries: Iterable[Entry], hashes: Iterable[str]) -> list[EntryRow]:
    """
    Entries with their hashes, newest first.
    """
    rows = [
        EntryRow(
            number=entry.number,
            time=entry.time,
            name=entry.model,
            action=entry.action,
            version=entry.version,
            stage=entry.stage,
            holder=entry.holder,
            by=entry.by,
            reason=entry.reason,
            evidence=entry.evidence,
            hash=digest,
        )
        for entry, digest in zip(entries, hashes, strict=True)
    ]
    return rows[::-1]


def fitness_rows(tags: Mapping[str, str]) -> list[FitnessRow]:
    """
    What a version's tags say of its fitness.
    """
    return [_fitness_row(one) for one in decode_fitness(tags)]


def check_rows(checks: Iterable[Check]) -> list[CheckRow]:
    """
    The rules of a gate, in their order.
    """
    return [CheckRow(rule=one.rule, is_passed=one.is_passed, said=one.said) for one in checks]


def _fitness_row(one: Fitness) -> FitnessRow:
    return FitnessRow(metric=one.metric, mean=one.mean, low=one.low, high=one.high, runs=one.runs)
