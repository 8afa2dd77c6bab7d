"""
Registration by a suite itself: its best genome, measured again, becomes a version of a model.

A genome that earned its score again is a candidate; one that did not is kept for development, with
by how much it fell short; one that could not be measured is not registered. The runs that measured
it are its evidence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from allele_mlflow import suite_tags as tags
from allele_mlflow.errors import AlleleMlflowError, ErrorKind, MatrixError, NotFoundError
from allele_mlflow.matrix.best_genome import BestGenome, Claim, find_best
from allele_mlflow.matrix.options import RunOptions, SilentView, SuiteView
from allele_mlflow.matrix.prepared import Prepared
from allele_mlflow.matrix.results import Outcome
from allele_mlflow.matrix.suite import Suite
from allele_mlflow.matrix.suite_components import register_components
from allele_mlflow.matrix.verification import (
    GenomeVerification,
    Verification,
    evaluation_of,
    prepare_verification,
)
from allele_mlflow.settings import Settings

if TYPE_CHECKING:  # MLflow, pandas and SciPy are read where they are needed
    from allele_mlflow.analysis.claims import Earned
    from allele_mlflow.registry.registry import Registry

_logger = logging.getLogger(__name__)

#: Of a version: what the search that it comes from said of it, as JSON.
CLAIM_TAG = "allele.claim"

OpenView = Callable[[Suite], AbstractContextManager[SuiteView]]


def open_silent_view(suite: Suite) -> AbstractContextManager[SuiteView]:
    """
    A display that shows nothing.
    """
    return nullcontext(SilentView())


@dataclass(frozen=True)
class Registration:
    """
    What became of a suite's best genome, or of one that was measured again.

    Attributes:
        said: In a line, for people; of a suite without a genome nothing.
        components: What is to be said of the suite's components, a line each.
        model, version, stage: Where it stands; None where it is not registered.
        verification: How it was measured; None where it was not.
    """

    said: str = ""
    components: Sequence[str] = ()
    model: str | None = None
    version: int | None = None
    stage: str | None = None
    verification: Verification | None = None

    @property
    def is_interrupted(self) -> bool:
        """
        Whether somebody stopped it.
        """
        return self.verification is not None and self.verification.is_interrupted

    @property
    def lines(self) -> list[str]:
        """
        All that is to be said.
        """
        return [*([self.said] if self.said else []), *self.components]

    def document(self) -> dict[str, Any]:
        """
        As `--json` shows it.
        """
        found = self.verification
        earned = found.earned if found is not None else None
        return {
            "said": self.said,
            "components": list(self.components),
            "model": self.model,
            "version": self.version,
            "stage": self.stage,
            "metric": found.metric if found is not None else None,
            "evidence_run_id": found.run_id if found is not None else None,
            "measured": vars(earned) if earned is not None else None,
        }


def register_outcome(
    outcome: Outcome,
    execution: str | None,
    settings: Settings,
    *,
    is_complete: bool = True,
    options: RunOptions | None = None,
    open_view: OpenView = open_silent_view,
) -> Registration | None:
    """
    Register the best genome of a suite that is over, once it is measured again, and its components.

    Args:
        outcome: Of the suite.
        execution: Uid of its own run; None where nothing was tracked.
        settings: As the suite had them.
        is_complete: Whether all of the suite is in MLflow.
        options: As the suite had them.
        open_view: The display of the runs that measure it.
    Returns:
        None where nobody asks for it: neither `[genome]` nor `[components]`, the setting
        `AUTO_REGISTER_MODELS` or `MODEL_REGISTRY_ENABLED` false, nothing tracked, interrupted, or
        nothing finished. Whatever goes wrong is said, and changes nothing of the suite.
    """
    suite = outcome.prepared.suite
    is_wanted = settings.auto_register_models and settings.model_registry_enabled
    is_over = bool(outcome.finished_count) and not outcome.is_interrupted
    has_any = suite.genome is not None or bool(suite.components)
    if execution is None or settings.is_offline or not (has_any and is_wanted and is_over):
        return None
    components = _register_components(outcome.prepared, settings)
    if suite.genome is None:
        return Registration(components=components)
    if not is_complete:
        made = Registration("no genome registered: not all is in MLflow yet; --resume does it then")
    else:
        made = _register_genome(outcome, execution, settings, options or RunOptions(), open_view)
    return replace(made, components=components)


def reevaluate(
    prepared: Prepared,
    where: str,
    settings: Settings,
    *,
    repeats: int | None = None,
    options: RunOptions | None = None,
    open_view: OpenView = open_silent_view,
) -> Registration:
    """
    Measure a registered genome again; the runs are its evidence from then on, if all went well.

    Args:
        prepared: The suite that says how.
        where: `name@stage` or `name/version`.
        settings: Of both stores.
        repeats: Fresh seeds, the first ones always the same; by default as many as the suite says.
        options: Where it runs.
        open_view: The display.
    Raises:
        MatrixError: the suite does not say how.
        RegistryError: there is no such version, it was changed, or the registry is disabled.
        TrackingError: a store does not answer.
    """
    from allele_mlflow.registry.registry import open_registry

    evaluation_of(prepared)
    registry = open_registry(settings)
    name, number = registry.find(where)
    genome = registry.load(f"{name}/{number}")
    claim = _read_claim(registry.version(name, number).tags.get(CLAIM_TAG))
    again = prepare_verification(prepared, genome.document, repeats=repeats)
    with open_view(again.suite) as view:
        found = GenomeVerification(again, genome.document, genome.content, claim, settings).run(
            options or RunOptions(), view
        )
    stage = _stage_of(registry, name, number)
    if found.earned is None or found.run_id is None:
        said = f"{name}/{number}: {_why_not(found)}; its evidence stays what it was"
    else:
        for key, value in _evidence_tags(settings, found.run_id).items():
            registry.tag(name, number, key, value)
        said = f"{name}/{number}, {stage}: {describe_earned(found.metric, found.earned)}"
    return Registration(said, model=name, version=number, stage=stage, verification=found)


def describe_earned(metric: str, earned: Earned) -> str:
    """
    What was measured and what was claimed, in a line.
    """
    text = (
        f"{metric} {earned.mean:.4g} [{earned.low:.4g}, {earned.high:.4g}] on {earned.count} "
        "fresh seeds"
    )
    if earned.claimed is None:
        return text
    text += f", the search said {earned.claimed:.4g}"
    if earned.is_verified:
        return text
    short = abs(earned.claimed - earned.limit)
    return f"{text}: {short:.4g} better than they make likely (up to {earned.limit:.4g})"


def _register_components(prepared: Prepared, settings: Settings) -> list[str]:
    from allele_mlflow.registry.registry import open_registry

    if not prepared.suite.components:
        return []
    return register_components(prepared, open_registry(settings))


def _register_genome(
    outcome: Outcome, execution: str, settings: Settings, options: RunOptions, open_view: OpenView
) -> Registration:
    try:
        best = find_best(outcome, execution, settings)
        return _register(outcome.prepared, best, settings, options, open_view)
    except AlleleMlflowError as exc:
        return Registration(f"no genome registered: {exc}")
    except Exception as exc:
        # the suite is over and stands: what its genome does to us is said, and no more
        _logger.exception("suite %s: no genome registered", outcome.prepared.suite.name)
        return Registration(f"no genome registered: {type(exc).__name__}: {exc}")


def _register(
    prepared: Prepared,
    best: BestGenome,
    settings: Settings,
    options: RunOptions,
    open_view: OpenView,
) -> Registration:
    from allele_mlflow.registry.evidence import count_evidence
    from allele_mlflow.registry.evidence_document import EVIDENCE_TAG
    from allele_mlflow.registry.genomes import read_genome
    from allele_mlflow.registry.registry import open_registry

    genome, model = read_genome(best.document), prepared.suite.model
    again = prepare_verification(prepared, best.document)
    registry = open_registry(settings)
    known = _version_with(registry, model, genome.content)
    if known is not None:
        present = registry.version(model, known).tags.get(EVIDENCE_TAG)
        if count_evidence(settings, present) >= again.suite.repeats:
            stage = _stage_of(registry, model, known)
            said = f"the best genome is {model}/{known} already, {stage}, with as many runs or more"
            return Registration(said, model=model, version=known, stage=stage)
    with open_view(again.suite) as view:
        view.say(f"measuring the best genome again, on {again.suite.repeats} fresh seeds")
        found = GenomeVerification(again, best.document, genome.content, best.claim, settings).run(
            options, view
        )
    if found.earned is None or found.run_id is None:
        return Registration(f"no genome registered: {_why_not(found)}", verification=found)
    evidence = _evidence_tags(settings, found.run_id)
    return _keep(registry, prepared, best, found, found.earned, evidence)


def _keep(
    registry: Registry,
    prepared: Prepared,
    best: BestGenome,
    found: Verification,
    earned: Earned,
    evidence: Mapping[str, str],
) -> Registration:
    from allele_mlflow.registry.journal import Stage
    from allele_mlflow.registry.lineage import COMMIT_TAG, RUN_TAG

    suite = prepared.suite
    told = describe_earned(found.metric, earned)
    stage = Stage.CANDIDATE if earned.is_verified else Stage.DEVELOPMENT
    commit = prepared.environment.tags.get(tags.COMMIT)
    version_tags = {
        **evidence,
        CLAIM_TAG: msgspec.json.encode(best.claim).decode(),
        RUN_TAG: best.claim.run_id,
        tags.SUITE: suite.name,
        **({COMMIT_TAG: commit} if commit else {}),
    }
    reason = f"suite {suite.name}: {told}"
    made = registry.register(
        suite.model, best.document, stage=stage, reason=reason, tags=version_tags
    )
    if not made.is_new:
        for key, value in evidence.items():
            registry.tag(made.name, made.version, key, value)
        is_waiting = _stage_of(registry, made.name, made.version) == Stage.DEVELOPMENT
        if earned.is_verified and is_waiting:
            registry.promote(made.name, made.version, Stage.CANDIDATE, reason=reason)
    where, stands = f"{made.name}/{made.version}", _stage_of(registry, made.name, made.version)
    if not made.is_new:
        said = f"{where} was known already, {stands}, and has more evidence now: {told}"
    elif earned.is_verified:
        said = f"registered {where} as candidate: {told}"
    else:
        said = f"registered {where} for development, no candidate: {told}"
    return Registration(
        said, model=made.name, version=made.version, stage=stands, verification=found
    )


def _evidence_tags(settings: Settings, run_id: str) -> dict[str, str]:
    """
    What a version's tags say of a verification: the runs, and the fitness. Where the genome comes
    from is not changed by measuring it.
    """
    from allele_mlflow.registry.evidence import evidence_tags, select_evidence
    from allele_mlflow.registry.lineage import COMMIT_TAG, RUN_TAG

    found = evidence_tags(select_evidence(settings, run_id))
    return {key: value for key, value in found.items() if key not in (RUN_TAG, COMMIT_TAG)}


def _version_with(registry: Registry, model: str, content: str) -> int | None:
    try:
        return registry.history(model).version_with(content)
    except NotFoundError:  # no such model yet
        return None


def _stage_of(registry: Registry, name: str, number: int) -> str:
    return registry.standing(name).stages[number].value


def _why_not(found: Verification) -> str:
    return found.problem or "its runs are not in MLflow yet"


def _read_claim(text: str | None) -> Claim | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Claim)
    except msgspec.MsgspecError as exc:
        raise MatrixError(
            f"the version's tag {CLAIM_TAG} is none of ours: {exc}", kind=ErrorKind.BAD_DATA
        ) from exc
