"""
`allele-mlflow trend`: what changed in the history of a suite.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table
from rich.text import Text

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.cli.rendering import rendered
from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.settings import Settings
from allele_mlflow.units import Direction

if TYPE_CHECKING:
    from allele_mlflow.analysis.trend_findings import TrendFinding
    from allele_mlflow.analysis.trend_scan import TrendScan

_STYLES = {"regression": "bold red", "improvement": "green", "neutral": "yellow"}
_SHORT_COMMIT = 10


@click.command()
@click.argument("experiment")
@click.option("--metric", "metrics", multiple=True, metavar="NAME|GLOB", help="Only these.")
@click.option(
    "--preset", type=click.Choice(["strict", "sensitive"]), default="strict", show_default=True
)
@click.option("--higher", multiple=True, metavar="METRIC", help="Of this one more is better.")
@click.option("--lower", multiple=True, metavar="METRIC", help="Of this one less is better.")
@click.option("--all", "show_all", is_flag=True, help="Outliers and resolved findings too.")
@click.option("--acknowledge", metavar="ID", help="Say of a finding that it is known.")
@click.option("--resolve", metavar="ID", help="Say of a finding that it is over.")
@click.option("--reopen", metavar="ID", help="Take back what was said of a finding.")
@click.option("--reason", default="", help="Why; kept with the finding.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def trend(
    experiment: str,
    metrics: Sequence[str],
    preset: str,
    higher: Sequence[str],
    lower: Sequence[str],
    show_all: bool,
    acknowledge: str | None,
    resolve: str | None,
    reopen: str | None,
    reason: str,
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Look for changes in every metric of every cell over the executions of a suite.

    EXPERIMENT is a name, with or without the prefix. By default the metrics that the suite names,
    the length of trials and phases, and how many trials finish; for runs of no suite every metric.
    A change lasts, an outlier is one execution, a drift goes on, an environment change came with
    another machine or other software. Strict: of the findings that a scan names at most 1 % are
    expected to be false; sensitive: 2.5 %.

    Exit code 1: a regression of which nobody has said that it is known or over; 2: there is no such
    experiment or finding; 5: nothing that could be judged; 6: the store was unreachable.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    directions = dict.fromkeys(higher, Direction.HIGHER)
    directions |= dict.fromkeys(lower, Direction.LOWER)
    scan = _scan(settings, experiment, metrics, preset, directions)
    scan = _say_of(settings, scan, acknowledge, resolve, reopen, reason)
    if as_json:
        say(json_text(_document(scan)))
    else:
        for line in _lines(scan, show_all=show_all):
            say(line)
    return _code(scan)


def _scan(
    settings: Settings,
    experiment: str,
    metrics: Sequence[str],
    preset: str,
    directions: dict[str, Direction],
) -> TrendScan:
    from allele_mlflow.analysis.changes import SENSITIVE, STRICT
    from allele_mlflow.analysis.selection import find_experiments
    from allele_mlflow.analysis.trend_scan import scan_experiment
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        (found,) = find_experiments(reader, [experiment], prefix=settings.experiment_prefix)
        return scan_experiment(
            reader,
            uri,
            found,
            metrics=metrics,
            preset=STRICT if preset == "strict" else SENSITIVE,
            directions=directions,
        )


def _say_of(
    settings: Settings,
    scan: TrendScan,
    acknowledge: str | None,
    resolve: str | None,
    reopen: str | None,
    reason: str,
) -> TrendScan:
    """
    Note what was said of a finding; the scan with it.
    """
    from allele_mlflow.analysis.finding_states import (
        TAG_PREFIX,
        FindingState,
        State,
        encode_state,
        finding_id,
    )
    from allele_mlflow.tracking.experiment_tags import set_experiment_tag

    said = {State.ACKNOWLEDGED: acknowledge, State.RESOLVED: resolve, State.NEW: reopen}
    told = [(state, one) for state, one in said.items() if one is not None]
    if not told:
        return scan
    if len(told) > 1:
        raise click.UsageError("--acknowledge, --resolve and --reopen: want one of them")
    ((state, wanted),) = told
    keys = {finding_id(one.key): one.key for one in scan.report.findings}
    keys |= {name: one.key for name, one in scan.states.items()}
    matching = [name for name in keys if name.startswith(wanted)]
    if len(matching) != 1:
        many = "several findings begin so" if matching else "there is no such finding"
        raise click.UsageError(f"{wanted!r}: {many}; there are {', '.join(keys) or 'none'}")
    (name,) = matching
    cell, metric, kind, execution = keys[name]
    new = FindingState(
        cell=cell,
        metric=metric,
        kind=kind,
        execution=execution,
        state=state,
        by=_user(),
        reason=reason,
        time=utc_iso(now_ns()),
    )
    set_experiment_tag(
        settings.tracking_uri, scan.experiment_id, f"{TAG_PREFIX}{name}", encode_state(new)
    )
    return replace(scan, states={**scan.states, name: new})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _code(scan: TrendScan) -> ExitCode:
    from allele_mlflow.analysis.finding_states import State
    from allele_mlflow.analysis.trend_findings import FindingKind, Outcome

    if not scan.report.judged_count:
        return ExitCode.NOTHING_MEASURED
    is_bad = any(
        one.outcome is Outcome.REGRESSION
        and one.kind in (FindingKind.CHANGE, FindingKind.DRIFT)
        and scan.state_of(one) is State.NEW
        for one in scan.report.findings
    )
    return ExitCode.FAILED if is_bad else ExitCode.FINE


def _lines(scan: TrendScan, *, show_all: bool) -> Iterator[str]:
    found = scan.findings(show_all=show_all)
    if found:
        yield rendered(_table(scan, found)).rstrip()
    report = scan.report
    executions = scan.series["execution_id"].nunique() if len(scan.series) else 0
    rest = len(report.findings) - len(found)
    yield shown(
        f"{len(found)} findings in {report.judged_count} histories of {executions} executions"
        + (f"; {rest} outliers or resolved ones are not shown (--all)" if rest else "")
    )
    if report.skipped:
        first = report.skipped[0]
        yield shown(
            f"{len(report.skipped)} histories were not judged, e.g. {first.metric} of "
            f"{first.cell or 'all runs'}: {first.reason}"
        )


def _table(scan: TrendScan, found: Sequence[TrendFinding]) -> Table:
    from allele_mlflow.analysis.finding_states import finding_id

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("id", "since", "what"):
        table.add_column(name, no_wrap=name != "what", overflow="fold")
    for one in found:
        before, after = scan.commits(one)
        words = one.words
        if before and after and before != after:
            words += f"; commits {before[:_SHORT_COMMIT]}..{after[:_SHORT_COMMIT]}"
        state = scan.state_of(one)
        said = scan.states.get(finding_id(one.key))
        if said is not None:
            words += f" [{state}{f': {said.reason}' if said.reason else ''}]"
        confirmed = scan.confirmations.get(finding_id(one.key))
        if confirmed is not None:
            words += f" [run again side by side: {confirmed}]"
        text = Text(shown(words))
        text.stylize(_STYLES[one.outcome])
        table.add_row(finding_id(one.key), _date(one), text)
    return table


def _date(finding: TrendFinding) -> str:
    return utc_iso(finding.started_ms * 1_000_000)[:16].replace("T", " ")


def _document(scan: TrendScan) -> dict[str, Any]:
    from allele_mlflow.analysis.finding_states import finding_id

    findings = []
    for one in scan.findings(show_all=True):
        before, after = scan.commits(one)
        said = scan.states.get(finding_id(one.key))
        findings.append(
            {
                "id": finding_id(one.key),
                "state": scan.state_of(one).value,
                "by": said.by if said is not None else None,
                "reason": said.reason if said is not None else None,
                "confirmation": scan.confirmations.get(finding_id(one.key)),
                "kind": one.kind.value,
                "outcome": one.outcome.value,
                "cell": one.key.cell,
                "metric": one.key.metric,
                "execution": one.execution_id,
                "time": utc_iso(one.started_ms * 1_000_000),
                "commit_before": before,
                "commit": after,
                "level_before": one.level_before,
                "level_after": one.level_after,
                "delta_ratio": one.delta_ratio,
                "sigma": one.sigma,
                "p": one.p,
                "slope_per_execution": one.slope_per_step,
                "environments": one.environments,
                "words": one.words,
            }
        )
    return {
        "format": 1,
        "judged": scan.report.judged_count,
        "findings": findings,
        "skipped": [one._asdict() for one in scan.report.skipped],
    }
