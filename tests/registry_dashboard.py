"""
A registry with its runs and a dashboard before it: genomes that were measured, one in production.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from starlette.types import ASGIApp

from allele_mlflow import settings as settings_module
from allele_mlflow.dashboard.app import make_app
from allele_mlflow.dashboard.source import Source
from allele_mlflow.registry import Registry, Stage, open_registry
from allele_mlflow.registry.gates import Policy
from allele_mlflow.registry.promotion import judge, pin_evidence
from allele_mlflow.settings import Settings
from tests.dashboard_tools import BASE, CSRF, OpenDoor, send
from tests.integration.executions import Measure, Metrics, Store

AXES: dict[str, list[Any]] = {"size": [10, 20]}
HOSTILE = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)</script>"
#: A name that a model can have.
ODD_MODEL = f"{HOSTILE} ?#%2e&amp;"
POLICIES = {
    Stage.PRODUCTION: Policy(min_runs=6, against_holder="not worse", max_alerts=0),
    Stage.STAGING: Policy(approvals=1),
}


def scores_around(level: float) -> Measure:
    """
    Scores of trials around a level, alike for the same seed.
    """

    def measured(params: Mapping[str, Any], seed: int) -> Metrics:
        noise = float(np.random.default_rng([seed, params["size"]]).normal(0, 1))
        return {"score": level + noise}

    return measured


@dataclass(frozen=True)
class Place:
    """
    A folder with a store, a registry and what they hold.
    """

    folder: Path
    settings: Settings
    store: Store

    def registry(self, by: str = "ada") -> Registry:
        """
        The registry, as somebody opens it.
        """
        return open_registry(self.settings, by=by)

    def app(self, *, may_write: bool = True, name: str = "ada") -> ASGIApp:
        """
        The dashboard, as somebody sees it.
        """
        door = OpenDoor(may_write=may_write, name=name)
        return make_app(self.source(), door, hosts={"127.0.0.1"})

    def source(self) -> Source:
        """
        What the dashboard shows.
        """
        return Source(self.settings, spools=[], policies=POLICIES)

    def put_into_production(self, version: int, reason: str) -> None:
        """
        Promote a version that the gate lets through.
        """
        registry = self.registry()
        found = judge(
            registry, self.settings, "persona", version, Stage.PRODUCTION, policies=POLICIES
        )
        assert found.is_passed, found.checks
        registry.promote(
            "persona",
            version,
            Stage.PRODUCTION,
            reason=reason,
            holder=found.holder,
            evidence=found.evidence,
        )


@contextmanager
def opened_place(folder: Path, empty_store: Path) -> Iterator[Place]:
    """
    A model `persona`: version 1, measured around 100, in production; version 2, around 110, a
    candidate; version 3, around 90; version 4, which nobody measured. A model of operators, and one
    with an odd name, in which everything that can be is hostile.
    """
    for name in ("mlflow.db", "mlflow_registry.db"):
        (folder / name).write_bytes(empty_store.read_bytes())
    settings = settings_module.load(
        {
            "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
            "model_registry_uri": f"sqlite:///{folder / 'mlflow_registry.db'}",
            "artifact_location": str(folder / "artifacts"),
        },
        environ={},
    )
    store = Store(folder)
    place = Place(folder, settings, store)
    registry = place.registry("grace")
    for number, level in enumerate((100.0, 110.0, 90.0), start=1):
        genome = {
            "genome_id": f"g{number}",
            "traits": {"empathy": number / 10, "creativity": 0.5},
            "metadata": {"parent_ids": [f"g{number - 1}"] if number > 1 else []},
        }
        stage = Stage.CANDIDATE if number == 2 else Stage.DEVELOPMENT
        registry.register("persona", genome, stage=stage, reason=f"number {number}")
        store.add(AXES, scores_around(level), repeats=8, seed=1)
        pin_evidence(registry, settings, "persona", number, "sorting")
    registry.register("persona", {"traits": {"empathy": 0.9, "creativity": 0.1}})
    place.put_into_production(1, "the first")
    weights = folder / "weights.csv"
    weights.write_text("gene,weight\nempathy,0.5\n")
    registry.register_component(
        "mutation", {"rate": 0.1, "layers": [3, 5]}, kind="operator", files=weights
    )
    traits = {HOSTILE: 0.5, SCRIPT: 1.0}
    odd = registry.register(ODD_MODEL, {"traits": traits, "name": SCRIPT}, reason=SCRIPT)
    registry.tag(ODD_MODEL, odd.version, "note", HOSTILE)
    store.add_run(
        "plain",
        {"score": 1.0},
        told={"allele.uses.persona": "persona@production 2999-01-01T00:00:00.000+00:00"},
    )
    yield place
    store.close()


def version_path(version: int | str, name: str = "persona", *more: str) -> str:
    """
    The address of a version, and of what is below it.
    """
    return "/".join((f"/registry/{quote(name, safe='')}/versions/{version}", *more))


def post(app: ASGIApp, path: str, **fields: str) -> httpx.Response:
    """
    A form of one of our own pages.
    """
    return send(app, path, method="POST", headers={"origin": BASE}, data={"csrf": CSRF, **fields})
