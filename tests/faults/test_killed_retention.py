"""
A clean-up that is killed, and then gone on with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from allele_mlflow.registry.retention import Rules
from allele_mlflow.registry.retention_deletion import RetentionDeletion
from allele_mlflow.registry.retention_plan import plan_retention
from allele_mlflow.registry.retention_roots import open_registries
from allele_mlflow.settings import load
from tests.integration.executions import Store
from tests.integration.runs import KeptRun
from tests.integration.test_retention_command import add, gone

#: Behind whose third call the process is killed; of each run there are two marks.
STEPS = {"after the mark": "tag", "after the files": "delete"}
SCRIPT = """
import os, signal, sys
from allele_mlflow.cli.main import main
from allele_mlflow.tracking.run_artifacts import RunArtifacts

name = sys.argv.pop(1)
real, count = getattr(RunArtifacts, name), []

def killed(self, *arguments):
    count.append(name)
    real(self, *arguments)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(RunArtifacts, name, killed)
main()
"""


@pytest.mark.process
@pytest.mark.timeout(100)
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_gone_on_with(step: str, tmp_path: Path, empty_store: Path) -> None:
    """After SIGKILL the pinned run is whole, and the next clean-up ends where one that was not
    killed would have: everything else gone, and each run's mark true.
    """
    for name in ("mlflow.db", "mlflow_registry.db"):
        (tmp_path / name).write_bytes(empty_store.read_bytes())
    store = Store(tmp_path)
    made = add(store)
    store.tracking.log_batch(made.cells[0], tags={"allele.pin": "stays"})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, STEPS[step], "gc", "--yes"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, (done.stdout, done.stderr)
    registry = f"sqlite:///{tmp_path / 'mlflow_registry.db'}"
    settings = load({"tracking_uri": store.uri, "model_registry_uri": registry})
    registries = open_registries(settings)
    plan = plan_retention(settings, Rules(older_than_days=30), registries=registries)
    deletion = RetentionDeletion(settings, registries)
    deletion.delete(plan)
    assert gone(store, made) == set(made.cells[1:])
    for cell in made.cells[1:]:
        mark = json.loads(KeptRun(store.uri, cell).tags["allele.retention"])
        assert (mark["state"], mark["files"], mark["size_bytes"]) == ("done", 1, 1000)
    again = plan_retention(settings, Rules(older_than_days=30), registries=registries)
    assert again.deleted == ()
    store.close()
