"""
A genome measured again, on seeds that its search has not met: what it earns, and whether that is
what was claimed of it.

It is an execution of a kind of its own: one cell, the suite's `[genome] evaluate` called with the
genome as it was kept. All genomes of a suite get the same seeds in the same order, so that two of
them can be compared in pairs; more repeats are more of the same sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix.benchmark import find_benchmark, source_version
from allele_mlflow.matrix.best_genome import Claim
from allele_mlflow.matrix.cells import make_cells
from allele_mlflow.matrix.history import await_spooled
from allele_mlflow.matrix.options import RunOptions, SuiteView
from allele_mlflow.matrix.prepared import GENOME_PARAM, Prepared
from allele_mlflow.matrix.results import Outcome, results_frame
from allele_mlflow.matrix.runner import SuiteRunner
from allele_mlflow.matrix.suite import GenomeEvaluation
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # SciPy is read where it is needed
    from allele_mlflow.analysis.claims import Earned


@dataclass(frozen=True)
class Verification:
    """
    What came out.

    Attributes:
        metric: What was measured.
        earned: None where it could not be measured.
        problem: Why not.
        run_id: Of its own run in MLflow; None where not all is there yet.
        is_interrupted: Somebody stopped it.
    """

    metric: str
    earned: Earned | None
    problem: str = ""
    run_id: str | None = None
    is_interrupted: bool = False

    @property
    def is_whole(self) -> bool:
        """
        Whether it can be evidence: measured, and in MLflow.
        """
        return self.earned is not None and self.run_id is not None


def fresh_seed(seed: int) -> int:
    """
    What the seeds of a verification are derived from: for all genomes of a suite the same, and
    apart from what the seeds of its cells are derived from.
    """
    return int.from_bytes(hashlib.sha256(f"verification:{seed}".encode()).digest()[:7])


def evaluation_of(prepared: Prepared) -> GenomeEvaluation:
    """
    How the suite measures a genome.

    Raises:
        MatrixError: it does not say.
    """
    found = prepared.suite.genome
    if found is None:
        raise MatrixError(
            f"suite {prepared.suite.name!r} does not say how a genome is measured: want a table "
            "[genome] with evaluate = 'module:function'",
            kind=ErrorKind.BAD_SUITE,
        )
    return found


def prepare_verification(
    prepared: Prepared, document: Mapping[str, Any], *, repeats: int | None = None
) -> Prepared:
    """
    The suite of one cell in which a genome is measured.

    Args:
        prepared: The suite whose genome it is.
        document: The genome.
        repeats: Fresh seeds; by default as many as the suite says.
    Raises:
        MatrixError: the suite has no `[genome]`.
    """
    suite, told = prepared.suite, evaluation_of(prepared)
    metric = next(iter(suite.objectives))
    again = msgspec.structs.replace(
        suite,
        benchmark=told.evaluate,
        description=f"a genome of {suite.name} measured again, on fresh seeds",
        params={GENOME_PARAM: dict(document)},
        matrix={},
        zip=[],
        include=[],
        exclude=[],
        constraints=[],
        repeats=repeats or told.repeats,
        seed=fresh_seed(suite.seed),
        adaptive=None,
        genome=None,
        components={},
        metrics={
            name: msgspec.structs.replace(facts, objective=name == metric)
            for name, facts in suite.metrics.items()
        },
    )
    version = source_version(find_benchmark(told.evaluate, prepared.folder))
    (cell,) = make_cells(again, version=version)
    # what tells cells apart in a comparison is how they were measured, and not which genome it was
    cell = cell._replace(name=Path(told.evaluate).name)
    return replace(prepared, suite=again, cells=[cell], version=version)


class GenomeVerification:
    """
    One verification. Use `run` once.

    Args:
        prepared: As of `prepare_verification`.
        document: The genome.
        content: Its identity in the registry.
        claim: What is said of it; None where nothing is.
        settings: Of the logger; cells get the same.
    """

    def __init__(
        self,
        prepared: Prepared,
        document: Mapping[str, Any],
        content: str,
        claim: Claim | None,
        settings: Settings,
    ) -> None:
        self._prepared = prepared
        self._document = document
        self._content = content
        self._settings = settings
        (self._metric,) = prepared.suite.objectives
        self._claim = claim if claim is not None and claim.metric == self._metric else None
        self._log: RunLogger | None = None
        self._earned: Earned | None = None
        self._waiting = 0

    def run(self, options: RunOptions, view: SuiteView) -> Verification:
        """
        Measure the genome, and keep what came out in MLflow.

        Args:
            options: Of the suite; which cells and which execution they choose does not count here.
            view: Told what happens.
        Raises:
            MatrixError: there is no such executor.
        """
        told = {tags.CONTENT: self._content}
        if self._claim is not None:
            told[tags.CLAIMED_BY] = self._claim.run_id
        own = RunOptions(
            executor=options.executor,
            is_exclusive=options.is_exclusive,
            fails_fast=True,
            is_tracked=True,
            kind=tags.RunKind.VERIFICATION,
            run_name=f"{self._prepared.suite.name} genome {self._content[:12]}",
            told=told,
        )
        runner = SuiteRunner(self._prepared, own, self._settings, view=view, finish=self._finish)
        outcome = runner.run()
        return Verification(
            self._metric,
            self._earned,
            problem=_problem_of(outcome) if self._earned is None else "",
            run_id=self._delivered_run_id(),
            is_interrupted=outcome.is_interrupted,
        )

    def _finish(self, outcome: Outcome, log: RunLogger) -> None:
        from allele_mlflow.analysis.claims import check_claim

        suite = self._prepared.suite
        values = [row.metrics[self._metric] for row in outcome.rows if row.failure is None]
        if len(values) == suite.repeats:
            self._earned = check_claim(
                values,
                suite.metrics[self._metric].direction,
                claimed=self._claim.value if self._claim is not None else None,
                chosen_from=self._claim.chosen_from if self._claim is not None else 1,
            )
            log.tag(tags.VERIFIED, str(self._earned.is_verified).lower())
            log.metric(f"objective/{self._metric}/mean", self._earned.mean)
        log.genome(self._document, name=GENOME_PARAM)
        log.table(results_frame(outcome.rows), "results.csv")
        if log.handle():
            self._log = log
            self._waiting = await_spooled(
                Path(log.handle()).parent.parent,
                {tags.EXECUTION: log.run_uid},
                timeout_s=log.settings.exit_timeout_s,
            )

    def _delivered_run_id(self) -> str | None:
        if self._log is None or self._waiting:
            return None
        report = self._log.close()
        return report.run_id if report.is_complete else None


def _problem_of(outcome: Outcome) -> str:
    if outcome.is_interrupted:
        return "it was interrupted while it was measured again"
    if outcome.failures:
        name, failure = outcome.failures[-1]
        return f"it could not be measured again: {name}: {failure.line}"
    return ""
