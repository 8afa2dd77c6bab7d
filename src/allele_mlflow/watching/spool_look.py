"""
What lies in spools, and what their sidecars are doing: as `allele-mlflow status` and the dashboard
show it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow.uris import path_text
from allele_mlflow.watching.sidecars import Sidecar, find_sidecars
from allele_mlflow.watching.spools import SpooledRun, scopes, spooled_runs


@dataclass
class SpoolLook:
    """
    What was found in one spool. `problem`: why it could not be looked into.
    """

    folder: Path
    runs: list[SpooledRun] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)
    #: Folders of the runs whose sidecar was started just now.
    revived: Collection[Path] = ()
    problem: str | None = None

    @property
    def waiting(self) -> list[SpooledRun]:
        """
        The runs that are not delivered.
        """
        return [run for run in self.runs if run.is_waiting]

    @property
    def wanted_sidecars(self) -> list[Sidecar]:
        """
        Those that live, and those that are gone and left a run behind.
        """
        left = {
            (run.folder.parent.parent, run.spec.profile)
            for run in self.waiting
            if run.folder not in self.revived
        }
        return [one for one in self.sidecars if one.is_held or (one.scope, one.profile) in left]


def look_into_spool(folder: Path, *, with_done: bool) -> SpoolLook:
    """
    The runs of a spool and its sidecars.

    Args:
        folder: Of the spool; need not exist.
        with_done: Delivered runs too.
    Raises:
        OSError: it cannot be looked into.
    """
    return SpoolLook(folder, list(spooled_runs(folder, with_done=with_done)), sidecars_in(folder))


def sidecars_in(folder: Path) -> list[Sidecar]:
    """
    The sidecars of a spool, those that are gone too.

    Raises:
        OSError: it cannot be looked into.
    """
    return [one for scope in scopes(folder) for one in find_sidecars(scope)]


def spools_document(spools: Sequence[SpoolLook]) -> dict[str, Any]:
    """
    What `status --json` writes.
    """
    return {
        "spool": path_text(spools[0].folder),
        "runs": [_describe(one, run) for one in spools for run in one.runs],
        "spools": [
            {
                "spool": path_text(one.folder),
                "waiting_runs": len(one.waiting),
                "pending": sum(run.ledger.pending for run in one.waiting),
                "problem": one.problem,
            }
            for one in spools
        ],
        "sidecars": [
            {"spool": path_text(one.folder)} | sidecar.describe()
            for one in spools
            for sidecar in one.sidecars
        ],
    }


def _describe(place: SpoolLook, run: SpooledRun) -> dict[str, Any]:
    state = run.state
    return {
        "run_uid": run.spec.run_uid,
        "run_id": state.run_id if state else None,
        "experiment": run.spec.experiment,
        "run_name": run.spec.run_name,
        "status": status_of(run),
        "store": run.spec.tracking_uri_masked,
        "waiting": run.is_waiting,
        "served": run.is_served,
        "lag_s": state.lag_s if state and run.is_waiting else None,
        "last_error": state.last_error if state else None,
        "durable_count": state.durable_count if state else None,
        "alerts": state.alert_counts if state else {},
        "last_alert": state.last_alert if state else None,
        "accepted": run.ledger.accepted,
        "ledger": msgspec.to_builtins(run.ledger),
        "spool": path_text(place.folder),
        "starting": run.folder in place.revived,
        "scope": run.folder.parent.parent.name,
        "profile": run.spec.profile,
        "updated_ns": state.updated_ns if state else None,
        "damage": state.damage if state else [],
    }


def status_of(run: SpooledRun) -> str:
    """
    As in MLflow; WAITING before it is there.
    """
    if not run.is_described:
        return "no description"
    return run.state.status if run.state else "WAITING"
