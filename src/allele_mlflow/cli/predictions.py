"""
`allele-mlflow predictions`: what was predicted, against what came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import json_text, say, shown


@click.command()
@click.argument("experiment")
@click.option("--backtest", is_flag=True, help="Score ours, as made half-way through past runs.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Of --backtest: these.")
@click.option("--require-evidence", is_flag=True, help="End with code 4 where nothing is settled.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def predictions(
    experiment: str,
    backtest: bool,
    metrics: Sequence[str],
    require_evidence: bool,
    as_json: bool,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Score the predictions that runs of an EXPERIMENT were told (`log.prediction`, `log.feed`).

    For each source, kind and metric: how often the intervals of 80 and 95 % held what came, with
    Wilson's interval; the bias; and the skill, which is above zero where the forecaster was nearer
    than a naive forecast. With --backtest the predictions are ours, of the final value and the time
    left, from the first half of each finished run and from runs before it.

    Exit code 2: there is no such experiment; 4: --require-evidence; 6: the store was unreachable.
    """
    from allele_mlflow.analysis.experiment_advice import AdviceReader, find_experiment
    from allele_mlflow.analysis.prediction_scores import score_predictions
    from allele_mlflow.cli import ledger_tables as tables
    from allele_mlflow.cli.rendering import rendered
    from allele_mlflow.tracking.reader import open_reader

    if metrics and not backtest:
        raise click.UsageError("--metric is of --backtest: told predictions name theirs")
    settings = settings_module.load({"tracking_uri": tracking_uri})
    uri, prefix = settings.tracking_uri, settings.experiment_prefix
    with contextlib.closing(open_reader(uri)) as reader:
        experiment_id = find_experiment(reader, experiment, prefix=prefix)
        advice = AdviceReader(reader, uri, experiment_id)
        settled = advice.backtest(metrics) if backtest else advice.predictions()
    scores = score_predictions(settled)
    if as_json:
        say(json_text(tables.scores_document(scores, settled)))
    elif not scores:
        say("no predictions")
    else:
        say(rendered(tables.score_table(scores)).rstrip())
        for one in scores:
            for reason, count in one.open.items():
                say(shown(f"{one.kind} of {one.metric}: {count} not settled: {reason}"))
    is_silent = not any(one.settled for one in scores)
    return ExitCode.INCONCLUSIVE if require_evidence and is_silent else ExitCode.FINE
