"""
Params, tags, names and settings that cannot be as the caller has them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from allele_mlflow import SettingsError, start_logger
from allele_mlflow.records import content_hash
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import Station, assert_good_arrived, log_good, our_warnings

pytestmark = pytest.mark.process


def test_changed_param_is_refused_by_the_store(station: Station, tmp_path: Path) -> None:
    """
    MLflow keeps the first value; the second is set aside with its words, the rest arrives.
    """
    with station.start(params={"a": 1}) as log:
        log_good(log, 0)
        log.param("a", 2)
        log.param("b", 3)
        log_good(log, 1)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=7)
    assert report.ledger.rejected == {"store": 1}
    kept = station.kept(str(report.run_id))
    assert_good_arrived(kept)
    assert (kept.params["a"], kept.params["b"]) == ("1", "3")
    (letter,) = kept.dead_letters(tmp_path)
    assert (letter["call"], letter["reason"]) == ("param", "store")
    assert letter["record"] == ["a", "2"]
    assert "Changing param values is not allowed" in letter["wanted"]


def test_long_values_stay_whole(station: Station, tmp_path: Path) -> None:
    """
    What MLflow would cut is whole in an artifact, and the shortened text says in which.
    """
    long_text = "é" * 9000
    with station.start(tags={"at start": long_text}) as log:
        log.param("prompt", long_text)
        log.tag("a/b", long_text)
    kept = station.kept(str(log.close().run_id))
    digest = content_hash(long_text)[:8]
    for value, path in (
        (kept.params["prompt"], f"allele/long_values/params/prompt-{digest}.txt"),
        (kept.tags["a/b"], f"allele/long_values/tags/a/b-{digest}.txt"),
        (kept.tags["at start"], f"allele/long_values/tags/at start-{digest}.txt"),
    ):
        assert value.endswith(f" ... [9000 characters; whole in artifact {path}]")
        assert kept.artifact(path, tmp_path / path).decode() == long_text
    assert_ledger_balanced(log.close().ledger, accepted=6)


def test_refused_long_param_leaves_the_first_ones_text(station: Station, tmp_path: Path) -> None:
    """
    MLflow keeps the first value of a param, and the artifact that it names still holds it.
    """
    with station.start() as log:
        log.param("prompt", "x" * 9000)
        log.param("prompt", "y" * 9000)
    assert log.close().ledger.rejected == {"store": 1}
    kept = station.kept(str(log.close().run_id))
    path = kept.params["prompt"].rpartition("whole in artifact ")[2].rstrip("]")
    assert kept.artifact(path, tmp_path) == b"x" * 9000


def test_start_with_bad_tags_spoils_nothing(station: Station) -> None:
    """
    A tag of the start that MLflow cannot hold is set aside alone; the run is created.
    """
    with our_warnings() as said:
        log = station.start(tags={"a=b": "x", "good": "y"}, params={"p": 1})
        log_good(log, 0)
        log_good(log, 1)
        report = log.close()
    assert len(said) == 1
    assert "a=b" in said[0]
    assert report.ledger.rejected == {"bad_key": 1}
    assert_ledger_balanced(report.ledger, accepted=6)
    kept = station.kept(str(report.run_id))
    assert kept.tags["good"] == "y"
    assert_good_arrived(kept)


def test_start_with_odd_names_starts(station: Station) -> None:
    """
    A run name and a correlation id that are no texts become texts.
    """
    with station.start(run_name=17, correlation_id=18) as log:
        log.metric("a", 1.0, 0)
    kept = station.kept(str(log.close().run_id))
    assert (kept.info.run_name, kept.tags["allele.correlation_id"]) == ("17", "18")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ALLELE_MLFLOW_TRAKING_URI", "did you mean ALLELE_MLFLOW_TRACKING_URI?"),
        ("ALLELE_MLFLOW_FLUSH_INTERVAL", "did you mean ALLELE_MLFLOW_FLUSH_INTERVAL_S?"),
    ],
)
def test_unknown_variable_is_an_error_before_any_work(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A misspelt setting raises, naming the nearest right one; nothing was made until then.
    """
    monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=f"unknown setting {name}") as caught:
        start_logger("tests")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_argument_is_an_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    So does a misspelt or impossible argument.
    """
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"traking_uri; did you mean tracking_uri\?"):
        start_logger("tests", traking_uri="sqlite:///a.db")
    with pytest.raises(SettingsError, match="metrics_batch_size=0: want a whole number"):
        start_logger("tests", metrics_batch_size=0)
    assert list(tmp_path.iterdir()) == []
