"""
A registry over HTTP where an answer is lost after the write was done: nothing is there twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from allele_mlflow.errors import TrackingError
from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.testing import FaultyProxy, HttpFault
from allele_mlflow.tracking.registry_client import RegistryClient
from tests.integration.test_registry import genome

pytestmark = [pytest.mark.server, pytest.mark.process, pytest.mark.timeout(150)]

#: Every request that writes.
WRITES = (
    *("experiments/create", "runs/create", "registered-models/create", "runs/log-parameter"),
    *("mlflow-artifacts/artifacts", "model-versions/create", "registered-models/alias"),
    "model-versions/set-tag",
)
_Answer = TypeVar("_Answer")


@pytest.fixture(scope="module")
def proxy(mlflow_server: str) -> Iterator[FaultyProxy]:
    """
    Before a real server.
    """
    with FaultyProxy(mlflow_server) as found:
        yield found


def until_done(act: Callable[[], _Answer]) -> _Answer:
    """
    As a person does it who is told that the store did not answer: once more.
    """
    try:
        return act()
    except TrackingError:
        return act()


@pytest.mark.parametrize("repeats", ["0", "2"], ids=["", "MLflow repeats"])
@pytest.mark.parametrize("path", WRITES)
def test_lost_answers(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, path: str, repeats: str
) -> None:
    """The write was done and the answer lost, each once, in a registration, a promotion and an
    archiving: one version, one entry of each, aliases right; and so where MLflow's client repeats
    every request by itself.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", repeats)
    name = f"lost {uuid.uuid4().hex}"
    client = RegistryClient(proxy.url, experiment=name)
    registry = Registry(client, by="ann")
    actions: list[Callable[[], object]] = [
        lambda: registry.register(name, genome(0.1)),
        lambda: registry.promote(name, 1, Stage.PRODUCTION, reason="good", evidence=b"{}"),
        lambda: registry.archive(name, 1, reason="old"),
    ]
    lost = 0
    for act in actions:
        before = len(proxy.requests(path, fault="reset after commit"))
        proxy.plan(HttpFault.reset_after_commit(), path=path, times=1)
        until_done(act)
        lost += len(proxy.requests(path, fault="reset after commit")) - before
        proxy.mend()
    assert lost >= 1
    fresh = Registry(RegistryClient(proxy.url, experiment=name))
    told = [(one.action, one.version) for one in fresh.history(name).entries]
    assert told == [("register", 1), ("promote", 1), ("archive", 1)]
    assert [one.number for one in client.versions(name)] == [1]
    assert client.model(name).aliases == {}
    found = fresh.verify(name)
    assert (found.problems, found.repaired) == ((), ())
