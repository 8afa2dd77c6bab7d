"""
Acts on a registry and kills itself at a step, for the fault tests.

Run as a program. It imports mlflow once; then each line of its input, a JSON object with `folder`,
`action`, `way` and `step`, is done by a fork of its own, and answered by a line: the signal that
ended it, or 0, and how many steps it took. A step is before whatever may leave another state
behind, so that between two of them nothing changes: each commit of the database that writes,
MLflow's own too, and each file that is copied; and when all is done. Step 0 is never reached:
nothing is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from allele_mlflow.registry.journal import Stage
from allele_mlflow.registry.registry import Registry
from allele_mlflow.tracking import client_registry
from allele_mlflow.tracking.registry_client import RegistryClient

MODEL, NEW_MODEL = "persona", "newcomer"
#: Imported before, so that no fork has to.
MODULES = (
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)
WRITING = ("INSERT", "UPDATE", "DELETE")


def genome(level: float) -> dict[str, Any]:
    """
    A genome.
    """
    return {"traits": {"empathy": level, "creativity": 0.5}}


ACTIONS: dict[str, Callable[[Registry], object]] = {
    "register": lambda registry: registry.register(MODEL, genome(0.9), stage=Stage.CANDIDATE),
    "make": lambda registry: registry.register(NEW_MODEL, genome(0.9), reason="the first"),
    "promote": lambda registry: registry.promote(
        MODEL, 3, Stage.PRODUCTION, reason="better", evidence=b"{}"
    ),
    "rollback": lambda registry: registry.rollback(MODEL, Stage.PRODUCTION, reason="worse"),
    "archive": lambda registry: registry.archive(MODEL, 2, reason="old"),
}


def client_of(folder: Path) -> RegistryClient:
    """
    Of a registry on SQLite.
    """
    return RegistryClient(
        f"sqlite:///{folder / 'registry.db'}",
        experiment="allele_benchmark_registry",
        artifact_location=str(folder / "artifacts"),
    )


class Steps:
    """
    Counts them, and ends the process at one of them.
    """

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def take(self) -> None:
        """
        One more.
        """
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """
        Take a step before whatever may leave another state behind.
        """
        dirty: set[int] = set()

        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if statement.lstrip().startswith(WRITING):
                dirty.add(id(connection))

        def commit(connection: Any) -> None:
            if id(connection) in dirty:
                dirty.discard(id(connection))
                self.take()

        def audit(name: str, arguments: tuple[Any, ...]) -> None:
            if name == "shutil.copyfile":
                self.take()

        event.listen(Engine, "before_cursor_execute", note)
        event.listen(Engine, "commit", commit)
        sys.addaudithook(audit)


def act(folder: Path, action: str, way: str, step: int) -> None:
    """
    In a fork: do it, and say how many steps it took.
    """
    if way == "mlflow":
        RegistryClient._sql = lambda self: None  # type: ignore[method-assign]
    steps = Steps(step)
    steps.watch()
    ACTIONS[action](Registry(client_of(folder), by="ann"))
    steps.take()
    (folder / "steps").write_text(str(steps.count))


def main() -> None:
    """
    A fork for each line.
    """
    for name in MODULES:
        importlib.import_module(name)
    # the tables are there; looking whether they are takes longer than all else
    client_registry.__dict__["prepare_schema"] = lambda path: None
    for line in sys.stdin:
        wish = json.loads(line)
        folder = Path(wish["folder"])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                act(folder, wish["action"], wish["way"], wish["step"])
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        count = int((folder / "steps").read_text()) if code == 0 else None
        sys.stdout.write(json.dumps({"code": code, "steps": count}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
