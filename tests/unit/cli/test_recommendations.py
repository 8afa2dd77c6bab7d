"""
What `recommendations` refuses before it looks at any store, and its tables.
"""

from __future__ import annotations

import pandas as pd
import pytest
from click.testing import CliRunner

from allele_mlflow.analysis.advice_ledger import calibrate, enter
from allele_mlflow.analysis.comparison import CompareOptions
from allele_mlflow.analysis.prediction_scores import Settled, score_predictions
from allele_mlflow.analysis.told_advice import prediction_of, recommendation_of
from allele_mlflow.cli.ledger_tables import (
    ledger_document,
    ledger_table,
    score_table,
    scores_document,
    source_table,
)
from allele_mlflow.cli.output import json_text
from allele_mlflow.cli.recommendations import recommendations
from allele_mlflow.cli.suite_tables import rendered
from allele_mlflow.units import Direction


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alpha", "5"], "--alpha 5: want a number between 0 and 1"),
        (["--confidence", "0"], "--confidence 0: want a number between 0 and 1"),
        (["--follow-up", "a=b"], "want --ledger"),
        (["--ledger", "--log"], "--ledger makes none"),
        (["--ledger", "--metric", "a", "--metric", "b"], "want one --metric, got 2"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], words: str) -> None:
    """
    With exit code 2, and what is wanted.
    """
    done = CliRunner().invoke(recommendations, ["anything", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_ledger_is_shown_whole() -> None:
    """
    A recommendation that brought 20 % where 10 were said, and one that nobody tried; what comes
    from users cannot move the cursor.
    """
    tables = [
        pd.DataFrame({"y": values}) for values in ([9.0, 10, 11, 9, 11], [11.0, 12, 13, 11, 13])
    ]
    told = [
        recommendation_of({"id": name, "title": "t\x1b[2J", "expected_improvement": 10}, "run")
        for name in ("first", "second")
    ]
    options = CompareOptions(directions={"y": Direction.HIGHER})
    entries = [
        enter(told[0], tables[0], tables[1], metric="y", options=options),
        enter(told[1], tables[0], tables[1][:0], metric="y", options=options),
    ]
    text = rendered(ledger_table(entries)) + rendered(source_table(calibrate(entries)))
    assert "\x1b" not in text
    plain = " ".join(text.split())
    assert "first t\\x1b[2J unknown 5 +10 +20" in plain
    assert "nobody has tried it" in plain
    assert "2 1 100 [21, 100] 2.00" in plain
    document = json_text(ledger_document(entries, calibrate(entries)))
    assert '"verdict": "better"' in document


def test_scores_are_shown_whole() -> None:
    """
    Coverage in percent with its interval; an interval that was not told is null in JSON, not NaN.
    """
    told = prediction_of(
        {
            "id": "p",
            "time": "2026-01-01T00:00:00Z",
            "prediction_type": "final_value",
            "metric_name": "score",
            "predicted_value": 1.0,
            "confidence_interval": [0.0, 2.0],
        },
        "run",
    )
    assert told is not None
    settled = [Settled(told, value, 3.0, "") for value in (0.5, 1.5) * 3]
    scores = score_predictions(settled)
    plain = " ".join(rendered(score_table(scores)).split())
    assert "final_value of unknown 6/6 - 100 [61, 100] +0" in plain
    assert '"low_80": null' in json_text(scores_document(scores, settled))
