"""
What `allele-mlflow gc` would delete, and why the rest stays. Nothing is deleted here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from allele_mlflow.dashboard.pages.page import Ask, Column, Kind, Page
from allele_mlflow.dashboard.refusals import RefusalError
from allele_mlflow.dashboard.views import Knobs, Option, Paged, View, page_of, sorted_rows
from allele_mlflow.errors import RegistryError
from allele_mlflow.registry.retention import Decision, Rules, Verdict
from allele_mlflow.registry.retention_plan import (
    count_verdicts,
    decide_retention,
    weigh_decisions,
)
from allele_mlflow.registry.retention_roots import open_registries
from allele_mlflow.tracking.run_artifacts import RunArtifacts

EXPERIMENT, OLDER_THAN, KEEP_LAST = "experiment", "older_than_days", "keep_last"
REGISTRY, VERDICT, FILES = "registry", "verdict", "files"
ASKED, NONE = "asked", "none"
SHOWN, ALL = "shown", "all"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """
    An experiment. `files` and `size_bytes` are of what goes; None where not all of it was looked
    at.
    """

    experiment: str
    runs: int
    going: int
    files: int | None
    size_bytes: int | None
    stays: dict[str, int]

    @property
    def rest(self) -> str:
        """
        How many runs stay, and why.
        """
        return ", ".join(
            f"{count:,} {word.replace('_', ' ')}" for word, count in self.stays.items()
        )


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """
    What becomes of the artifacts of a run, and why.
    """

    run_id: str
    name: str
    experiment: str
    suite: str | None
    ended_ms: int | None
    verdict: Verdict
    why: str
    files: int | None
    size_bytes: int | None

    @property
    def state(self) -> str:
        """
        The verdict as it is shown.
        """
        return "goes" if self.verdict is Verdict.DELETED else self.verdict.replace("_", " ")


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """
    The plan of a clean-up. `problem`: why there is none; then nothing would be deleted. `command`
    would do it.
    """

    problem: str | None
    older_than_days: float
    command: str
    is_weighed: bool
    shares: list[Share]
    runs: Paged[Fate]


class _Plan(NamedTuple):
    decisions: Sequence[Decision]
    problem: str | None


SHARE_COLUMNS = (
    Column("experiment", "Experiment", Kind.NAME, option=EXPERIMENT),
    Column("runs", "Runs", Kind.COUNT),
    Column("going", "Would go", Kind.COUNT),
    Column("files", "Files", Kind.COUNT),
    Column("size_bytes", "Size", Kind.BYTES),
    Column("rest", "The rest stays"),
)
COLUMNS = (
    Column("name", "Run", Kind.NAME, path="/runs/{run_id}"),
    Column("state", "Artifacts", Kind.STATUS),
    Column("why", "Why", Kind.SENTENCE),
    Column("files", "Files", Kind.COUNT, can_sort=False),
    Column("size_bytes", "Size", Kind.BYTES, can_sort=False),
    Column("ended_ms", "Ended", Kind.TIME),
    Column("suite", "Suite", Kind.NAME),
    Column("experiment", "Experiment", Kind.NAME),
)


def query(ask: Ask) -> Retention:
    """
    The plan by the view's rules; of runs that go only those that are shown are looked into, unless
    the view wants all.

    Raises:
        RefusalError: 400: a rule means nothing; 503: there is no store.
        AnalysisError: there is no such experiment.
        TrackingError: store, registry or artifacts do not answer.
    """
    settings, view = ask.source.settings, ask.view
    if settings.is_offline:
        raise RefusalError(503, "the tracking URI is offline: there is no store to look into")
    missing = ask.source.problem()
    if missing is not None:
        raise RefusalError(503, missing)
    rules = Rules(
        older_than_days=_number(view, OLDER_THAN, settings.artifact_retention_days),
        keep_last=int(_number(view, KEEP_LAST, 0)),
    )
    plan = _plan(ask, rules)
    artifacts = RunArtifacts(settings.tracking_uri)
    is_all = view.options[FILES] == ALL
    decisions = list(plan.decisions)
    if is_all:
        decisions = list(weigh_decisions(artifacts, decisions, rules))
    wanted = [one for one in decisions if _is_wanted(one, view)]
    shown = page_of(sorted_rows(wanted, view, _sort_value), view)
    rows = shown.rows if is_all else list(weigh_decisions(artifacts, shown.rows, rules))
    return Retention(
        problem=plan.problem,
        older_than_days=rules.older_than_days,
        command=_command(view),
        is_weighed=is_all,
        shares=_shares(decisions, is_weighed=is_all),
        runs=Paged(
            rows=[_fate(one) for one in rows],
            row_count=shown.row_count,
            page=shown.page,
            page_count=shown.page_count,
            first=shown.first,
        ),
    )


def _plan(ask: Ask, rules: Rules) -> _Plan:
    settings, experiment = ask.source.settings, ask.view.options[EXPERIMENT]
    has_registry = ask.view.options[REGISTRY] != NONE
    problem = ask.source.registries.problem() if has_registry else None
    if problem is not None:
        return _Plan([], f"{problem}. Where there never was one: Registry, {NONE}")
    try:
        decisions = decide_retention(
            settings,
            rules,
            experiments=[experiment] if experiment else [],
            registries=open_registries(settings, has_registry=has_registry),
        )
    except RegistryError as exc:
        return _Plan([], str(exc))
    return _Plan(decisions, None)


def _number(view: View, name: str, usual: float) -> float:
    text = view.options[name]
    if not text:
        return usual
    is_number = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 10
    if not is_number or (name == KEEP_LAST and not text.isdigit()):
        raise RefusalError(400, f"{name}={text!r}: want a number, 0 or more")
    return float(text)


def _is_wanted(decision: Decision, view: View) -> bool:
    is_found = view.find.casefold() in decision.run.name.casefold()
    return is_found and view.options[VERDICT] in ("", decision.verdict)


def _sort_value(decision: Decision, name: str) -> Any:
    if name == "state":
        return decision.verdict
    return decision.why if name == "why" else getattr(decision.run, name)


def _fate(decision: Decision) -> Fate:
    run = decision.run
    return Fate(
        run_id=run.run_id,
        name=run.name or run.run_id,
        experiment=run.experiment,
        suite=run.suite,
        ended_ms=run.ended_ms,
        verdict=decision.verdict,
        why=decision.why,
        files=decision.files,
        size_bytes=decision.size_bytes,
    )


def _shares(decisions: Sequence[Decision], *, is_weighed: bool) -> list[Share]:
    groups: dict[str, list[Decision]] = {}
    for one in decisions:
        groups.setdefault(one.run.experiment, []).append(one)
    found = []
    for experiment, own in sorted(groups.items()):
        going = [one for one in own if one.is_deleted]
        is_known = is_weighed or not going
        found.append(
            Share(
                experiment=experiment,
                runs=len(own),
                going=len(going),
                files=sum(one.files or 0 for one in going) if is_known else None,
                size_bytes=sum(one.size_bytes or 0 for one in going) if is_known else None,
                stays=count_verdicts(one for one in own if not one.is_deleted),
            )
        )
    return found


def _command(view: View) -> str:
    """
    As a shell takes it.
    """
    words = ["allele-mlflow", "gc"]
    for name, flag in ((OLDER_THAN, "--older-than"), (KEEP_LAST, "--keep-last")):
        words += [flag, view.options[name]] if view.options[name] else []
    words += ["--no-registry"] if view.options[REGISTRY] == NONE else []
    words += ["--", view.options[EXPERIMENT]] if view.options[EXPERIMENT] else []
    return shlex.join(words)


PAGE = Page(
    name="retention",
    path="/retention",
    title="Old artifacts",
    summary="What a clean-up would delete, and why the rest stays. Nothing is deleted here.",
    query=query,
    content=Retention,
    template="retention.html",
    columns={"runs": COLUMNS, "shares": SHARE_COLUMNS},
    knobs=Knobs(
        sorts=tuple(column.name for column in COLUMNS if column.can_sort),
        has_find=True,
        has_pages=True,
        options=(
            Option(EXPERIMENT, "Experiment"),
            Option(OLDER_THAN, "Older than (days)"),
            Option(KEEP_LAST, "Keep last"),
            Option(REGISTRY, "Registry", (ASKED, NONE), ASKED),
            Option(VERDICT, "Artifacts", ("", *(one.value for one in Verdict))),
            Option(FILES, "Look at the files of", (SHOWN, ALL), SHOWN),
        ),
    ),
)
