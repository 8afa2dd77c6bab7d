"""
Advice and what becomes of it, through the command line and MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.suites import Place, document

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(150)]

#: Score 10 * rate with little scatter; what an observability says is told in the cell rate=0.1.
TOLD = '''
import random
import time


def run(rate, colour, *, seed, log):
    """Better with a higher rate, whatever the colour."""
    noise = random.Random(f"{rate}{colour}{seed}").gauss(0, 0.05)
    log.metric("score", 5 * rate, 0)
    if rate == 0.1 and colour == "red":
        time.sleep(0.01)  # MLflow's times are in ms: the forecast is after one reading, before one
        log.feed({
            "recommendation_id": "evolution_config_stagnating",
            "category": "configuration_tuning",
            "title": "raise the rate",
            "component_type": "evolution_engine",
            "current_value": "0.1",
            "recommended_value": "0.2",
            "parameter": "rate",
            "expected_improvement": 100.0,
        })
        log.feed({
            "prediction_type": "performance_forecast",
            "metric_name": "score",
            "predicted_value": 1.0,
            "confidence_interval": [0.7, 1.3],
            "prediction_horizon_minutes": 0,
            "model_name": "forecaster",
        })
        time.sleep(0.01)
    log.metric("score", 10 * rate + noise, 1)


def same(rate, colour, *, seed):
    """Nothing matters."""
    return {"score": random.Random(f"{rate}{colour}{seed}").gauss(0, 1)}
'''
AXES = '[matrix]\nrate = [0.1, 0.2, 0.3]\ncolour = ["red", "blue"]'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """
    A folder of its own, with the benchmark.
    """
    return Place(tmp_path)


def run_suite(place: Place, name: str, text: str, *options: str, function: str = "run") -> None:
    """
    Write a suite and run it.
    """
    suite = place.write(name, text)
    (place.folder / "bench.py").write_text(TOLD)
    suite.write_text(suite.read_text().replace("bench:run", f"bench:{function}"))
    done = place.run("run", str(suite), "--quiet", *options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_advice_is_made_followed_and_judged(place: Place) -> None:
    """
    A suite whose score rises with its rate: one step further is recommended, once however often it
    is logged; a suite that follows it ran the old cell beside the new one, and its gain is found
    and, as the truth is a straight line, as expected.
    """
    run_suite(place, "tuned.toml", f"repeats = 3\n{AXES}")
    made = [document(place.run("recommendations", "tuned", "--log", "--json")) for _ in range(2)]
    assert made[0]["recommendations"] == made[1]["recommendations"]
    (advised,) = made[0]["recommendations"]
    assert advised["params"]["rate"] == 0.4
    assert advised["current_params"]["rate"] == 0.3
    assert advised["expected_improvement"] == pytest.approx(100 / 3, abs=3)
    clear = [effect["term"] for effect in made[0]["effects"] if effect["is_clear"]]
    assert clear == [["rate"]]

    open_ledger = ledger(place)
    assert [one["reason"] for one in open_ledger["ours"]] == ["nobody has tried it"]

    colour = advised["params"]["colour"]
    follow = f'repeats = 6\n[matrix]\nrate = [0.3, 0.4]\ncolour = ["{colour}"]'
    run_suite(place, "next.toml", follow, "--follow", advised["id"][:8])
    (entry,) = ledger(place)["ours"]
    assert (entry["recommendation_id"], entry["verdict"]) == (advised["id"], "better")
    assert len(entry["follow_ups"]) == 6
    assert entry["gain"]["value"] == pytest.approx(1 / 3, abs=0.05)
    assert entry["is_as_expected"] is True
    page = place.folder / "page.html"
    assert place.run("report", "tuned", "--experiment", "--output", str(page)).returncode == 0
    assert "promise kept" in page.read_text(encoding="utf-8"), "the gain is drawn"
    table = place.run("recommendations", "tuned", "--ledger").stdout
    assert "not enough evidence: 1 judged" in " ".join(table.split())


def ledger(place: Place, *options: str) -> dict[str, Any]:
    """
    Entries of both sources.
    """
    done = place.run("recommendations", "tuned", "--ledger", "--json", *options)
    assert done.returncode == 0, done.stderr
    entries = document(done)["entries"]
    return {
        "ours": [one for one in entries if one["source"] == "allele-mlflow"],
        "theirs": [one for one in entries if one["source"] == "evolution_engine"],
    }


def test_alleles_advice_is_judged_by_runs_that_are_named(place: Place) -> None:
    """
    What a cell was told of Allele's observability is in the ledger with an id of ours; runs named
    on the command line follow it, and it is compared with the cell that it was told in.
    """
    run_suite(place, "tuned.toml", f"repeats = 3\n{AXES}")
    told = ledger(place)["theirs"]
    assert [one["title"] for one in told] == ["raise the rate"] * 3, "one for each repeat"
    first = told[0]["recommendation_id"]
    entries = ledger(place, "--follow-up", f"{first}=tuned[rate == 0.2]")["theirs"]
    (judged,) = [one for one in entries if one["recommendation_id"] == first]
    assert judged["judged_by"] == "score"
    assert len(judged["follow_ups"]) == 6
    assert judged["gain"]["value"] == pytest.approx(1.0, abs=0.15)
    scored = document(place.run("predictions", "tuned", "--json"))
    (score,) = scored["scores"]
    assert (score["source"], score["told"], score["settled"]) == ("forecaster", 3, 3)
    assert score["coverage_95"]["value"] == 1.0
    assert score["coverage_80"] is None
    assert score["naive_error"] == pytest.approx(0.5, abs=0.1), "the last reading was half of it"
    assert score["skill"] > 0.5


def test_noise_gives_no_advice(place: Place) -> None:
    """
    Where nothing has an effect nothing is recommended or logged, and --require-evidence says so
    with its exit code.
    """
    run_suite(place, "flat.toml", f"repeats = 3\n{AXES}", function="same")
    done = place.run("recommendations", "flat", "--log", "--require-evidence")
    assert done.returncode == 4, done.stderr
    assert "score: not enough evidence: no effect is clear; the nearest is" in done.stdout
    assert place.run("recommendations", "flat", "--ledger").stdout.strip() == "no recommendations"
    assert place.run("predictions", "flat").stdout.strip() == "no predictions"


def test_wrong_questions_are_refused(place: Place) -> None:
    """
    Each with exit code 2 (6 where the store is away) and what is wanted.
    """
    run_suite(place, "flat.toml", f"repeats = 2\n{AXES}", function="same")
    for arguments, words in [
        (["recommendations", "nothing"], "there is no such experiment"),
        (["recommendations", "flat", "--metric", "speed"], "no run has a value of 'speed'"),
        (["recommendations", "flat", "--ledger", "--follow-up", "x=flat"], "no such recommend"),
        (["predictions", "nothing"], "there is no such experiment"),
    ]:
        done = place.run(*arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr, done.stderr
    for command in ("recommendations", "predictions"):
        done = place.run(command, "flat", "--tracking-uri", "sqlite:////nowhere/mlflow.db")
        assert done.returncode == 6, done.stderr
