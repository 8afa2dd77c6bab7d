"""
Which store a waiting run goes to.
"""

from __future__ import annotations

import msgspec
import pytest

from allele_mlflow.cli.targets import adapt_spec, explain_left, find_target
from allele_mlflow.records import RunSpec
from allele_mlflow.settings import load, mask_secrets
from tests.queue_tools import make_spec

SETTING = "sqlite:////here/mlflow.db"
SERVER = "http://server:5000"
SECRET = "postgresql://me:hush@host/db"


def spec_for(store: str) -> RunSpec:
    """
    What a logger writes of a run that goes to this store.
    """
    return msgspec.structs.replace(
        make_spec(),
        tracking_uri_masked=mask_secrets(store),
        offline=store == "offline",
        artifact_location="/there/artifacts",
        batch_size=7,
    )


@pytest.mark.parametrize(
    ("store", "setting", "is_explicit", "expected"),
    [
        # said for all runs
        (SERVER, SETTING, True, SETTING),
        ("offline", SETTING, True, SETTING),
        (SECRET, SETTING, True, SETTING),
        # offline: wherever the user delivers to now
        ("offline", SETTING, False, SETTING),
        ("offline", "offline", False, None),
        # its own
        (SERVER, SETTING, False, SERVER),
        (SERVER, "offline", False, SERVER),
        ("sqlite:////there/mlflow.db", SETTING, False, "sqlite:////there/mlflow.db"),
        ("databricks", SETTING, False, "databricks"),
        # its own, whose secret only the settings know
        (SECRET, SECRET, False, SECRET),
        (SECRET, SECRET.replace("hush", "new"), False, SECRET.replace("hush", "new")),
        ("https://token@host", "https://other@host", False, "https://other@host"),
        ("http://host?token=a", "http://host?token=b", False, "http://host?token=b"),
        # its own, whose secret nobody knows
        (SECRET, SETTING, False, None),
        (SECRET, SECRET.replace("host", "elsewhere"), False, None),
        (SECRET, "offline", False, None),
        # written before stores were
        ("", SETTING, False, None),
        ("", SETTING, True, SETTING),
    ],
)
def test_target(store: str, setting: str, is_explicit: bool, expected: str | None) -> None:
    """
    A run goes where the command says, else to its own store, and to no other without being asked.
    """
    assert find_target(spec_for(store), setting, is_explicit=is_explicit) == expected


@pytest.mark.parametrize("store", [SERVER, SECRET])
def test_run_for_its_own_store_stays_as_it_is(store: str) -> None:
    """
    Batch size and artifact location are those the run was started with.
    """
    spec = spec_for(store)
    assert adapt_spec(spec, load({"tracking_uri": store}, environ={})) == spec


@pytest.mark.parametrize("store", ["offline", SERVER, SECRET])
def test_run_for_another_store_takes_its_ways(store: str) -> None:
    """
    What was meant for one store is not asked of another: the caller's settings hold there.
    """
    settings = load({"tracking_uri": SETTING, "artifact_location": "/here/artifacts"}, environ={})
    adapted = adapt_spec(spec_for(store), settings)
    assert (adapted.artifact_location, adapted.batch_size) == ("/here/artifacts", 100)
    assert adapted.run_uid == spec_for(store).run_uid


@pytest.mark.parametrize(
    ("store", "named"), [(SECRET, "postgresql://me:***@host/db"), ("offline", "offline"), ("", "")]
)
def test_left_run_says_what_to_do(store: str, named: str) -> None:
    """
    The text names the store without its secret, and the option that helps.
    """
    text = explain_left(spec_for(store))
    assert named in text
    assert "give --tracking-uri" in text
    assert "hush" not in text
