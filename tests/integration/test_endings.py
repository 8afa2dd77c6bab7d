"""
However a benchmark ends, its run ends in MLflow, truly, with everything that was logged before.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allele_mlflow import RunLogger
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import DEADLINE_S, KeptRun, Station, wait_for

pytestmark = pytest.mark.process

#: Says which run it is, logs, then waits for what the test does with it.
BEGIN = """
import os, signal, sys, time
from allele_mlflow import start_logger

def tell(log):
    log.metric("before", 1.5, 7)
    log.param("p", 1)
    log.text("hello", "a.txt")
    print(log.run_uid, flush=True)
    return log
"""


def assert_all_is_there(kept: KeptRun, *, errors: int = 0) -> None:
    """
    What `tell` logged has arrived, and the ledger has it and the errors.
    """
    assert [row[:2] for row in kept.rows("before")] == [(7, 1.5)]
    assert kept.params == {"p": "1"}
    assert "a.txt" in kept.artifacts
    delivered = {"metric": 1, "param": 1, "artifact": 1} | ({"error": errors} if errors else {})
    assert kept.delivery["delivered"] == delivered
    assert kept.delivery["accepted"] == 3 + errors


def ended(station: Station, folder: Path, body: str, *, code: int, **options: Any) -> KeptRun:
    """
    The run of a script that ended by itself with this exit code.
    """
    stdout = station.run_script(folder, BEGIN + body, code=code, **options)
    return station.finished(stdout.split()[0])


def raise_inside(log: RunLogger, error: Exception) -> None:
    with log:
        log.metric("before", 1.5, 7)
        with log.phase("selection", step=1):
            raise error


class OurError(ValueError):
    """
    Raised by tests.
    """


def test_exception_fails_the_run_and_goes_on(station: Station, tmp_path: Path) -> None:
    """
    An exception that leaves the `with` block marks the run FAILED, is described there, re-raised.
    """
    error = OurError("population is empty")
    log = station.start()
    with pytest.raises(OurError) as caught:
        raise_inside(log, error)
    assert caught.value is error
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=4)
    kept = station.kept(str(report.run_id))
    assert (report.status, kept.info.status) == ("FAILED", "FAILED")
    assert kept.tags["allele.ended_by"] == "OurError"
    assert kept.tags["allele.error.category"] == "configuration"
    assert kept.tags["allele.error.type"].endswith("OurError")
    assert kept.tags["allele.error.message"] == "population is empty"
    (entry,) = kept.json("allele/errors.json", tmp_path)["errors"]
    (path,) = (path for path in kept.artifacts if path.startswith("allele/tracebacks/"))
    text = kept.artifact(path, tmp_path).decode()
    assert path == f"allele/tracebacks/000-{entry['fingerprint']}.txt"
    assert "raise error" in text
    assert "OurError: population is empty" in text


def test_errors_survived_are_kept(station: Station, tmp_path: Path) -> None:
    """
    `log.error` keeps what the program survived, with step and phase, and the run stays FINISHED.
    """
    with station.start() as log:
        for step in range(2):
            with log.phase("evaluate", step=step):
                try:
                    1 / step
                except ZeroDivisionError as exc:
                    log.error(exc, step=step)
                else:
                    log.error(MemoryError("no room"), step=step)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=6)
    kept = station.kept(str(report.run_id))
    assert kept.info.status == "FINISHED"
    assert kept.tags["allele.error.count"] == "2"
    assert kept.tags["allele.error.category"] == "out_of_memory"
    entries = kept.json("allele/errors.json", tmp_path)["errors"]
    assert [(e["category"], e["step"], e["phase"]) for e in entries] == [
        ("numeric", 0, "evaluate"),
        ("out_of_memory", 1, "evaluate"),
    ]


@pytest.mark.parametrize(
    ("body", "code", "status", "ended_by"),
    [
        ("with start_logger('e') as log: tell(log); sys.exit(0)", 0, "FINISHED", "close"),
        ("with start_logger('e') as log: tell(log); sys.exit(3)", 3, "FAILED", "SystemExit"),
        ("with start_logger('e') as log: tell(log); sys.exit('no')", 1, "FAILED", "SystemExit"),
        ("with start_logger('e') as log: tell(log); 1 / 0", 1, "FAILED", "ZeroDivisionError"),
        ("tell(start_logger('e'))", 0, "FINISHED", "exit"),
        ("log = tell(start_logger('e')); 1 / 0", 1, "FAILED", "ZeroDivisionError"),
        ("tell(start_logger('e')).close('KILLED')", 0, "KILLED", "close"),
        ("tell(start_logger('e')).detach()", 0, "FINISHED", "detach"),
        ("with start_logger('e') as log: tell(log); raise MemoryError", 1, "KILLED", "memory"),
    ],
    ids=str,
)
def test_ending_of_a_script(
    station: Station, tmp_path: Path, body: str, code: int, status: str, ended_by: str
) -> None:
    """
    The run's status is what the script's end was, inside `with` and without, closed or not.
    """
    kept = ended(station, tmp_path, body, code=code)
    assert kept.info.status == status
    assert ended_by in kept.tags["allele.ended_by"]
    has_error = ended_by not in ("close", "exit", "detach")
    assert_all_is_there(kept, errors=int(has_error))


def test_mistake_at_the_prompt_is_no_failure(station: Station) -> None:
    """
    In an interactive session an exception ends a line; the run ends with the session, FINISHED.
    """
    lines = [*BEGIN.splitlines(), "", "log = tell(start_logger('e'))", "1 / 0", ""]
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="\n".join(lines),
        env=station.environ(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "ZeroDivisionError" in done.stderr
    kept = station.finished(done.stdout.split()[0])
    assert kept.info.status == "FINISHED"
    assert_all_is_there(kept)


def test_exceptions_that_ended_nothing_fail_nothing(station: Station, tmp_path: Path) -> None:
    """
    What a test runner or a debugger left in `sys.last_exc` did not end the program.
    """
    body = """
tell(start_logger('e'))
sys.last_type, sys.last_value = ValueError, ValueError("a test that failed")
sys.last_exc = sys.last_value
"""
    kept = ended(station, tmp_path, body, code=0)
    assert (kept.info.status, kept.tags["allele.ended_by"]) == ("FINISHED", "exit")
    assert_all_is_there(kept)


def test_hooks_of_others_are_called_too(station: Station, tmp_path: Path) -> None:
    """
    The program's own excepthook gets every uncaught exception, be it set before ours or after.
    """
    body = """
def announce(name, previous):
    def hook(*args):
        print(name, args[0].__name__)
        previous(*args)
    return hook
sys.excepthook = announce("before", sys.excepthook)
tell(start_logger('e'))
sys.excepthook = announce("after", sys.excepthook)
[][1]
"""
    stdout = station.run_script(tmp_path, BEGIN + body, code=1)
    run_uid, *said = stdout.splitlines()
    assert said == ["after IndexError", "before IndexError"]
    kept = station.finished(run_uid)
    assert (kept.info.status, kept.tags["allele.ended_by"]) == ("FAILED", "IndexError")
    assert kept.tags["allele.error.category"] == "data"
    assert_all_is_there(kept, errors=1)


def test_failed_thread_is_an_error_and_the_run_goes_on(station: Station, tmp_path: Path) -> None:
    """
    An exception that nobody caught in a thread is kept, with its phase; `sys.exit` there is none.
    """
    body = """
import threading
log = tell(start_logger('e'))
def work(step):
    with log.phase("work", step=step):
        1 / step if step < 2 else sys.exit(step)
for step in (0, 1, 2):
    thread = threading.Thread(target=work, args=(step,))
    thread.start()
    thread.join()
log.close()
"""
    kept = ended(station, tmp_path, body, code=0)
    assert (kept.info.status, kept.tags["allele.ended_by"]) == ("FINISHED", "close")
    assert kept.tags["allele.error.type"] == "ZeroDivisionError"
    (error,) = kept.json("allele/errors.json", tmp_path)["errors"]
    assert (error["phase"], error["step"]) == ("work", 0)
    assert kept.delivery["delivered"]["error"] == 1


def test_unclosed_loggers_all_end(station: Station, tmp_path: Path) -> None:
    """
    At exit every logger that was left open is closed, children before their parents.
    """
    stdout = station.run_script(
        tmp_path,
        BEGIN + "parent = tell(start_logger('e')); child = tell(parent.child('c'))",
    )
    parent, child = (station.finished(uid) for uid in stdout.split())
    for kept in (parent, child):
        assert kept.info.status == "FINISHED"
        assert_all_is_there(kept)
    assert child.info.end_time <= parent.info.end_time


#: For its signal; the ten minutes end it where a test fails before it sends one.
WAITING = "tell(log); time.sleep(600)"


@pytest.mark.parametrize("opening", ["with start_logger('e') as log:", "log = start_logger('e');"])
def test_ctrl_c_kills_the_run(station: Station, tmp_path: Path, opening: str) -> None:
    """
    Ctrl-C ends the run as KILLED, with all that was logged, and the script as Ctrl-C does.
    """
    script = station.start_script(tmp_path, f"{BEGIN}\n{opening} {WAITING}")
    run_uid = first_line(script)
    script.send_signal(signal.SIGINT)
    _, stderr = script.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert script.returncode == -signal.SIGINT
    kept = station.finished(run_uid)
    assert kept.info.status == "KILLED"
    assert kept.tags["allele.ended_by"] == "KeyboardInterrupt"
    assert kept.tags["allele.error.category"] == "interrupted"
    assert_all_is_there(kept, errors=1)


def first_line(script: subprocess.Popen[str]) -> str:
    assert script.stdout is not None
    return script.stdout.readline().strip()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_kill_keeps_everything(station: Station, tmp_path: Path, how: signal.Signals) -> None:
    """
    A benchmark that cannot say farewell ends KILLED, by its signal, with all that it had logged.
    """
    script = station.start_script(
        tmp_path,
        BEGIN
        + """
log = tell(start_logger('e'))
log.series("many", [float(i) for i in range(5000)])
with log.phase("endless", step=1):
    print("logged", flush=True)
    time.sleep(600)  # for its signal
""",
    )
    run_uid = first_line(script)
    assert first_line(script) == "logged"
    wait_for(lambda: station.state(run_uid), "the sidecar's first look")
    script.send_signal(how)
    kept = station.finished(run_uid)  # not reaped before, so that older kernels tell too
    script.communicate(timeout=60)
    assert kept.info.status == "KILLED"
    assert kept.tags["allele.ended_by"] == how.name
    assert kept.tags["allele.error.category"] == "interrupted"
    assert [row.value for row in kept.rows("many")] == [float(i) for i in range(5000)]
    assert [row[:2] for row in kept.rows("before")] == [(7, 1.5)]
    assert kept.delivery["delivered"] == {"metric": 5001, "param": 1, "artifact": 1, "phase": 1}
    assert kept.delivery["torn"] == 0
    (row,) = kept.json("allele/phases.json", tmp_path)["rows"]
    assert (row["name"], row["complete"]) == ("endless", False)
    assert kept.info.start_time < kept.info.end_time
