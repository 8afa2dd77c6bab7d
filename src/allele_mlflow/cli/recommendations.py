"""
`allele-mlflow recommendations`: what to try next, and what came of earlier advice.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow import suite_tags as tags
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown
from allele_mlflow.clock import now_ns, utc_iso
from allele_mlflow.records import OWN_ARTIFACTS, RunId
from allele_mlflow.settings import Settings
from allele_mlflow.units import Direction

if TYPE_CHECKING:  # pandas and SciPy are read where they are needed
    from allele_mlflow.analysis.advice_ledger import LedgerEntry
    from allele_mlflow.analysis.own_recommendations import MatrixAdvice

FILE = "recommendations.json"


@click.command()
@click.argument("name", metavar="SELECTION|EXPERIMENT")
@click.option("--ledger", is_flag=True, help="What became of an experiment's recommendations.")
@click.option(
    "--follow-up",
    "follow_ups",
    multiple=True,
    metavar="ID=SELECTION",
    help="Of the ledger: runs that try a recommendation, and have no tag.",
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="What is to be better.")
@click.option("--higher", multiple=True, metavar="METRIC", help="Of this one more is better.")
@click.option("--lower", multiple=True, metavar="METRIC", help="Of this one less is better.")
@click.option("--by", multiple=True, metavar="PARAM", help="An axis, for runs of no suite.")
@click.option("--alpha", default=0.05, show_default=True, help="Chance of a false effect, of all.")
@click.option("--confidence", default=0.95, show_default=True, help="Of the intervals.")
@click.option("--log", "is_logged", is_flag=True, help="Keep them with the suite's run in MLflow.")
@click.option("--require-evidence", is_flag=True, help="End with code 4 where nothing is advised.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def recommendations(
    name: str,
    ledger: bool,
    follow_ups: Sequence[str],
    metrics: Sequence[str],
    higher: Sequence[str],
    lower: Sequence[str],
    by: Sequence[str],
    alpha: float,
    confidence: float,
    is_logged: bool,
    require_evidence: bool,
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Recommend what to try next, from a matrix that was run; or show with --ledger what came of the
    recommendations of an experiment, ours and those that a run was told.

    SELECTION is that of `compare`: NAME, NAME~N or NAME[EXPRESSION]. Effects of parameters and of
    their pairs come with p-values after Holm's correction and intervals; a cell is recommended only
    where the interval of its gain is above zero.

    A run or a suite follows a recommendation with the tag allele.recommendation=ID, which
    `allele-mlflow run --follow ID` gives. Its gain is that of `compare`.

    Exit code 2: there is no such selection, metric or recommendation; 4: --require-evidence; 6: the
    store was unreachable.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    directions = dict.fromkeys(higher, Direction.HIGHER) | dict.fromkeys(lower, Direction.LOWER)
    if follow_ups and not ledger:
        raise click.UsageError("--follow-up is of the ledger: want --ledger")
    if is_logged and ledger:
        raise click.UsageError("--log keeps recommendations, and --ledger makes none")
    _check_parts(alpha=alpha, confidence=confidence)
    if ledger:
        options = {"alpha": alpha, "confidence": confidence, "directions": directions}
        entries = _ledger(settings, name, follow_ups, metrics, options)
        return _show_ledger(entries, as_json=as_json)
    made = _advised(settings, name, metrics, directions, by, alpha, confidence)
    run_id = _log(made, settings) if is_logged else None
    _show_advice(made, run_id, as_json=as_json)
    is_silent = not any(one.cells for one in made.proposals)
    return ExitCode.INCONCLUSIVE if require_evidence and is_silent else ExitCode.FINE


def _check_parts(**parts: float) -> None:
    for name, value in parts.items():
        if not 0.0 < value < 1.0:
            raise click.UsageError(f"--{name} {value:g}: want a number between 0 and 1")


def _advised(
    settings: Settings,
    name: str,
    metrics: Sequence[str],
    directions: dict[str, Direction],
    by: Sequence[str],
    alpha: float,
    confidence: float,
) -> MatrixAdvice:
    from allele_mlflow.analysis.own_recommendations import advise
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.tracking.reader import open_reader

    uri = settings.tracking_uri
    with contextlib.closing(open_reader(uri)) as reader:
        selection = select(reader, uri, name, prefix=settings.experiment_prefix)
    return advise(
        selection,
        metrics=metrics,
        directions=directions,
        by=by,
        alpha=alpha,
        confidence=confidence,
    )


def _ledger(
    settings: Settings,
    name: str,
    follow_ups: Sequence[str],
    metrics: Sequence[str],
    options: dict[str, Any],
) -> list[LedgerEntry]:
    from allele_mlflow.analysis.experiment_advice import AdviceReader, find_experiment
    from allele_mlflow.analysis.options import CompareOptions
    from allele_mlflow.analysis.selection import select
    from allele_mlflow.tracking.reader import open_reader

    if len(metrics) > 1:
        raise click.UsageError(f"--ledger: want one --metric, got {len(metrics)}")
    uri, prefix = settings.tracking_uri, settings.experiment_prefix
    with contextlib.closing(open_reader(uri)) as reader:
        given = {
            recommendation_id: select(reader, uri, text, prefix=prefix)
            for recommendation_id, text in _pairs(follow_ups)
        }
        advice = AdviceReader(reader, uri, find_experiment(reader, name, prefix=prefix))
        return advice.ledger(
            follow_ups=given,
            metric=metrics[0] if metrics else None,
            options=CompareOptions(**options),
        )


def _pairs(follow_ups: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in follow_ups:
        recommendation_id, _, text = one.partition("=")
        if not recommendation_id or not text:
            raise click.UsageError(f"--follow-up {shown(one)}: want ID=SELECTION")
        yield recommendation_id, text


def _log(made: MatrixAdvice, settings: Settings) -> str | None:
    """
    The id of the suite's run, which has the recommendations now; None where there are none.

    Each call adds a part beside what the run has: nothing of a finished run is written over, and
    whoever reads them counts each once.
    """
    from allele_mlflow.sidecar.store import open_store

    told = made.documents()
    if not told:
        return None
    parents = list(made.selection.frames.runs["parent_run_id"].dropna().unique())
    if len(parents) != 1:
        raise click.UsageError("--log: want the runs of one execution of a suite")
    time = utc_iso(now_ns())
    place = {"time": time, "phase": None, "step": None, "correlation_id": None}
    run_id = RunId(str(parents[0]))
    store = open_store(settings)
    with contextlib.closing(store), tempfile.TemporaryDirectory(prefix="allele-mlflow-") as folder:
        document = {
            "format": 1,
            "run_uid": store.look_at_run(run_id).tags.get(tags.RUN_UID),
            "cell": None,
            "count": len(told),
            "left_out": 0,
            "recommendations": [one | place for one in told],
        }
        file = Path(folder) / FILE
        file.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
        store.log_artifact(run_id, file, f"{OWN_ARTIFACTS}/parts/{time.replace(':', '-')}/{FILE}")
    return run_id


def _show_advice(made: MatrixAdvice, run_id: str | None, *, as_json: bool) -> None:
    from allele_mlflow.cli import advice_tables as tables
    from allele_mlflow.cli.rendering import rendered

    if as_json:
        say(json_text(tables.advice_document(made, run_id)))
        return
    say(shown(made.selection.label))
    for table in tables.effect_tables(made):
        say(rendered(table).rstrip())
    for line in tables.advice_lines(made):
        say(shown(line))
    if run_id is not None:
        say(f"kept with run {run_id}; follow one with: allele-mlflow run SUITE --follow ID")


def _show_ledger(entries: Sequence[LedgerEntry], *, as_json: bool) -> ExitCode:
    from allele_mlflow.analysis.advice_ledger import calibrate
    from allele_mlflow.cli import ledger_tables as tables
    from allele_mlflow.cli.rendering import rendered

    sources = calibrate(entries)
    if as_json:
        say(json_text(tables.ledger_document(entries, sources)))
    elif not entries:
        say("no recommendations")
    else:
        say(rendered(tables.ledger_table(entries)).rstrip())
        say(rendered(tables.source_table(sources)).rstrip())
    return ExitCode.FINE
