"""
What forms do to the registry: promote, approve, give back, archive; each with a reason, and on what
was seen.
"""

from __future__ import annotations

from collections.abc import Mapping

from allele_mlflow.dashboard.addresses import fill
from allele_mlflow.dashboard.pages.page import Action, Params
from allele_mlflow.dashboard.pages.registry_rows import STAGES, VERSION_PATH
from allele_mlflow.dashboard.pages.version import find_version
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.source import Source
from allele_mlflow.numerals import whole_number
from allele_mlflow.registry.journal import LONGEST_REASON, Stage
from allele_mlflow.registry.promotion import judge

REASON, STAGE, HOLDER, STANDS = "reason", "stage", "holder", "stands"
_MODEL_PATH = "/registry/{name}"
Form = Mapping[str, str]


def promote(source: Source, params: Params, form: Form, by: str) -> str:
    """
    Have a version hold a stage, if the gate lets it through and the stage is held as it was seen.

    Raises:
        RefusalError: 409: another one holds the stage; 422: a rule failed, or there is no reason.
        RegistryError, AnalysisError, TrackingError: as of `judge`.
    """
    reason, stage, holder = _reason(form), _stage(form, STAGE), _number(form, HOLDER)
    registry = source.registries.open(by=by)
    name, number = find_version(registry, params)
    policies = source.registries.policies
    judged = judge(registry, source.settings, name, number, stage, policies=policies)
    if judged.holder != holder:
        seen, now = (f"version {one}" if one else "nobody" for one in (holder, judged.holder))
        raise RefusalError(
            409,
            f"{name}@{stage} was held by {seen} when you looked, and is held by {now} now: "
            "look again",
        )
    if not judged.is_passed:
        failed = "; ".join(f"{one.rule}: {one.said}" for one in judged.checks if not one.is_passed)
        raise RefusalError(422, f"{name}/{number} may not hold {stage}: {failed}")
    registry.promote(
        name, number, stage, reason=reason, holder=judged.holder, evidence=judged.evidence
    )
    return fill(VERSION_PATH, params)


def approve(source: Source, params: Params, form: Form, by: str) -> str:
    """
    Say that a version may go to a stage.

    Raises:
        RefusalError: 422: there is no reason.
        PromotionRefusedError: its author does not approve it.
        TrackingError: the registry does not answer.
    """
    reason, stage = _reason(form), _stage(form, STAGE)
    registry = source.registries.open(by=by)
    name, number = find_version(registry, params)
    registry.approve(name, number, stage, reason=reason)
    return fill(VERSION_PATH, params)


def archive(source: Source, params: Params, form: Form, by: str) -> str:
    """
    Take a version out of use, if it stands where it was seen to stand.

    Raises:
        RefusalError: 422: there is no reason.
        PromotionRefusedError: it stands elsewhere by now.
        TrackingError: the registry does not answer.
    """
    reason, stands = _reason(form), _stage(form, STANDS)
    registry = source.registries.open(by=by)
    name, number = find_version(registry, params)
    registry.archive(name, number, reason=reason, stands=stands)
    return fill(VERSION_PATH, params)


def roll_back(source: Source, params: Params, form: Form, by: str) -> str:
    """
    Give a stage back to who held it before, if it is held as it was seen.

    Raises:
        RefusalError: 422: there is no reason.
        PromotionRefusedError: another one holds it, or nobody held it before.
        TrackingError: the registry does not answer.
    """
    reason, stage, holder = _reason(form), _stage(form, STAGE), _number(form, HOLDER)
    registry = source.registries.open(by=by)
    registry.rollback(params["name"], stage, reason=reason, holder=holder)
    return fill(_MODEL_PATH, params)


def _reason(form: Form) -> str:
    reason = form.get(REASON, "").replace("\r\n", "\n").strip()
    if not reason:
        raise RefusalError(422, "want a reason: it is kept in the journal")
    if len(reason) > LONGEST_REASON:
        raise RefusalError(
            422, f"a reason of {len(reason):,} characters: want at most {LONGEST_REASON:,}"
        )
    return reason


def _stage(form: Form, field: str) -> Stage:
    text = form.get(field, "")
    known = {stage.value: stage for stage in STAGES}
    if text not in known:
        raise RefusalError(400, f"{field}={text!r}: want one of {', '.join(known)}")
    return known[text]


def _number(form: Form, field: str) -> int:
    text = form.get(field, "")
    number = whole_number(text)
    if number is None:
        raise RefusalError(400, f"{field}={text!r}: want a version, or 0 for nobody")
    return number


_GATE = f"{VERSION_PATH}/gate"
_ARCHIVE, _ROLLBACK = f"{VERSION_PATH}/archive", f"{_MODEL_PATH}/rollback"
ACTIONS = (
    Action("promote", f"{VERSION_PATH}/promote", promote, page=_GATE),
    Action("approve", f"{VERSION_PATH}/approve", approve, page=_GATE),
    Action("archive", _ARCHIVE, archive, page=_ARCHIVE),
    Action("rollback", _ROLLBACK, roll_back, page=_ROLLBACK),
)
