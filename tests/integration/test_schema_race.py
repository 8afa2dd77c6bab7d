"""
One new SQLite file, several programs, at once: our sidecars and the user's own mlflow client.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.settings import environment
from allele_mlflow.tracking.schema import _head_versions

DEADLINE_S = 120.0

# Each says that it is ready, with everything imported, and starts when the file `go` is there.
HANDSHAKE = """
import sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
import mlflow.store.tracking.sqlalchemy_store
(folder / f"{name}.ready").touch()
while not (folder / "go").exists():
    time.sleep(0.005)
uri = f"sqlite:///{folder / 'mlflow.db'}"
"""
OURS = (
    HANDSHAKE
    + """
from allele_mlflow.tracking.client import MlflowTracking
tracking = MlflowTracking(uri)
experiment_id = tracking.ensure_experiment("shared", artifact_location=str(folder / "artifacts"))
tracking.create_run(experiment_id, run_name=name, start_ms=1, tags={"allele.run_uid": name})
tracking.close()
"""
)
THE_USERS = (
    HANDSHAKE
    + """
from mlflow import MlflowClient
client = MlflowClient(uri)
client.create_experiment("the user's own")
"""
)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "programs",
    [
        {"ours-1": OURS, "ours-2": OURS, "ours-3": OURS, "user": THE_USERS},
        {"ours-1": OURS, "ours-2": OURS},
    ],
    ids=["with the user's client", "sidecars only"],
)
def test_all_who_open_a_new_database_at_once_succeed(
    tmp_path: Path, programs: dict[str, str]
) -> None:
    """
    Nobody fails at the first try, neither we nor the user, and the schema is whole.
    """
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, str(tmp_path), name],
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stack.enter_context((tmp_path / f"{name}.log").open("wb")),
                )
            )
            for name, code in programs.items()
        }
        for process in running.values():
            stack.callback(process.kill)
        deadline_s = now_monotonic_s() + DEADLINE_S
        while not all((tmp_path / f"{name}.ready").exists() for name in programs):
            assert now_monotonic_s() < deadline_s, "not all programs came up"
            pause_s(0.02)
        (tmp_path / "go").touch()
        codes = {
            name: process.wait(deadline_s - now_monotonic_s()) for name, process in running.items()
        }
    logs = {name: (tmp_path / f"{name}.log").read_text()[-2000:] for name in programs}
    assert codes == dict.fromkeys(programs, 0), logs
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        versions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        names = {name for (name,) in connection.execute("SELECT name FROM experiments")}
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()
        state = connection.execute("PRAGMA integrity_check").fetchone()
    assert frozenset(version for (version,) in versions) == _head_versions()
    assert names == {"Default", "shared"} | ({"the user's own"} if "user" in programs else set())
    assert runs == (sum(name.startswith("ours") for name in programs),)
    assert state == ("ok",)
    assert not list(tmp_path.glob(".mlflow.db.*"))
