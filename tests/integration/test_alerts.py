"""
Alerts from the spool to MLflow: each once, linked both ways, through kills, thinning and faults.
"""

from __future__ import annotations

import errno
import json
import math
import random
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from allele_mlflow.alerts.rules import AlertRule, encode_rules
from allele_mlflow.clock import now_monotonic_s, now_ns, pause_s
from allele_mlflow.queue import spool
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import (
    AlertRaised,
    PredictionMade,
    RecommendationMade,
    RunEnded,
)
from allele_mlflow.testing import MemoryTracking, assert_ledger_balanced
from allele_mlflow.testing.memory_tracking import MemoryRun
from tests.integration.spooled_runs import (
    end_run,
    final_state,
    make_worker,
    present_state,
    serve,
    serve_until_a_call,
    start_run,
    the_run,
    until,
)

STEPS = 300
RULES = [
    AlertRule(name="bad", metric="loss/*", condition="nan", severity="critical", cooldown_s=0),
    AlertRule(name="high", metric="m", condition="gt", threshold=8.5, cooldown_s=0),
    AlertRule(name="many", metric="m", condition="gt", threshold=1e9, window_s=60),
]


def log_steps(writer: StreamWriter) -> None:
    """
    A phase each ten steps, with one reading too high at its fifth, and two NaN.
    """
    for begin in range(0, STEPS, 10):
        instance = writer.phase_edge("work", begin)
        for step in range(begin, begin + 10):
            writer.metric("m", 9.0 if step % 10 == 5 else 1.0, step)
        writer.phase_edge("work", begin, instance)
    for step in (7, 8):
        writer.metric("loss/a", math.nan, step)
        writer.metric("loss/a", 0.5, step + 1)


def told(name: str = "mine", **more: Any) -> AlertRaised:
    fields: dict[str, Any] = {"alert_id": spool.new_uid(), "severity": "info"} | more
    return AlertRaised(timestamp_ns=now_ns(), name=name, **fields)


def document_of(run: MemoryRun, name: str = "alerts") -> Any:
    return json.loads(run.artifacts[f"allele/{name}.json"])


def assert_each_once(run: MemoryRun) -> None:
    """
    Every alert is in the document once, at its step; counts and tags agree.
    """
    document = document_of(run)
    found = sorted((one["name"], one["step"]) for one in document["alerts"])
    assert found == sorted(
        [("high", step) for step in range(5, STEPS, 10)] + [("bad", 7), ("bad", 8)]
    )
    assert document["by_severity"] == {"warning": STEPS // 10, "critical": 2}
    assert document["active"] == 0
    tags = {key: value for key, value in run.tags.items() if key.startswith("allele.alerts.")}
    assert tags == {
        "allele.alerts.critical": "2",
        "allele.alerts.warning": str(STEPS // 10),
        "allele.alerts.active": "0",
    }


@pytest.fixture
def tracking() -> MemoryTracking:
    """
    A store in memory.
    """
    return MemoryTracking()


async def test_rules_find_what_they_are_for(tmp_path: Path, tracking: MemoryTracking) -> None:
    """Each alert once, with phase, step, host and resources; none is a record of the user's."""
    run, writer = start_run(tmp_path, alert_rules=encode_rules(RULES), host="h")
    log_steps(writer)
    end_run(writer)
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert_each_once(stored)
    document = document_of(stored)
    high = [one for one in document["alerts"] if one["name"] == "high"]
    assert {(one["phase"], one["host"], one["status"]) for one in high} == {
        ("work", "h", "resolved")
    }
    assert high[0]["resources"]["system/process_count"] >= 1
    assert document["phases"]["work"] == [
        one["alert_id"] for one in document["alerts"] if one["phase"] == "work"
    ]
    state = final_state(run)
    assert_ledger_balanced(state.ledger, accepted=STEPS + 4 + 2 * STEPS // 10)
    assert "alert" not in state.ledger.delivered
    assert state.alert_counts == {"warning": STEPS // 10, "critical": 2}
    assert state.last_alert is not None


async def test_thinned_readings_are_evaluated_too(tmp_path: Path, tracking: MemoryTracking) -> None:
    """A rule sees every reading, also those that MLflow is not shown."""
    rules = encode_rules(RULES)
    run, writer = start_run(tmp_path, alert_rules=rules, sampling="*: every 100")
    log_steps(writer)
    end_run(writer)
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    assert len(stored.rows("m")) < STEPS / 10
    assert_each_once(stored)


@pytest.mark.parametrize("seed", range(6))
async def test_kills_raise_no_alert_twice(
    tmp_path: Path, tracking: MemoryTracking, seed: int
) -> None:
    """Sidecars that die one after the other: each alert once, and those of the program too."""
    chance = random.Random(seed)
    rules = encode_rules(RULES)
    run, writer = start_run(tmp_path, alert_rules=rules)
    log_steps(writer)
    for number in range(5):
        writer.event(told(f"mine {number}", context={"n": number}))
    end_run(writer)
    for _ in range(8):
        if run.exists():
            await serve_until_a_call(run, tracking, chance)
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    document = document_of(stored)
    names = sorted(one["name"] for one in document["alerts"])
    wanted = ["bad"] * 2 + ["high"] * (STEPS // 10) + [f"mine {n}" for n in range(5)]
    assert names == sorted(wanted)
    state = final_state(run)
    assert_ledger_balanced(state.ledger, accepted=STEPS + 4 + 2 * STEPS // 10 + 5)
    assert state.ledger.delivered["alert"] == 5


async def test_advice_has_files_of_its_own(tmp_path: Path, tracking: MemoryTracking) -> None:
    """Recommendations and predictions are records, counted and kept whole."""
    run, writer = start_run(tmp_path, tags={"allele.cell_key": "c"}, correlation_id="c-1")
    for kind, document in ((RecommendationMade, {"title": "t"}), (PredictionMade, {"p": 1.5})):
        writer.event(kind(timestamp_ns=now_ns(), advice_id=spool.new_uid(), document=document))
    end_run(writer)
    await serve(make_worker(run, tracking))
    stored = the_run(tracking)
    (advice,) = document_of(stored, "recommendations")["recommendations"]
    assert (advice["title"], advice["correlation_id"]) == ("t", "c-1")
    assert document_of(stored, "predictions")["predictions"][0]["p"] == 1.5
    assert document_of(stored, "predictions")["cell"] == "c"
    assert "allele/alerts.json" not in stored.artifacts
    ledger = final_state(run).ledger
    assert ledger.delivered == {"recommendation": 1, "prediction": 1}


async def test_counts_are_published_while_it_runs(tmp_path: Path, tracking: MemoryTracking) -> None:
    """Who asks for the status of a run that goes on sees how many alerts it has, and the last."""
    run, writer = start_run(tmp_path, alert_rules=encode_rules(RULES))
    worker = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, worker)
        writer.metric("loss/a", math.nan, 3)
        await until(lambda: bool(present_state(run).alert_counts))
        state = present_state(run)
        assert (state.alert_counts, state.last_alert) == (
            {"critical": 1},
            "critical: bad: loss/a is nan",
        )
        end_run(writer)


async def test_stall_is_seen_while_the_program_hangs(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """A program that lives and logs nothing is told of while it lasts; its next reading ends it."""
    rules = [AlertRule(name="silent", metric="*", stalled_s=0.2, severity="error")]
    run, writer = start_run(tmp_path, alert_rules=encode_rules(rules))
    worker = make_worker(run, tracking)
    async with anyio.create_task_group() as group:
        group.start_soon(serve, worker)
        with anyio.fail_after(30):
            await until(lambda: present_state(run).alert_counts == {"error": 1})
        writer.metric("m", 1.0, 0)
        end_run(writer)
    (alert,) = document_of(the_run(tracking))["alerts"]
    assert (alert["message"], alert["status"]) == ("no sign of life for 0.2 s", "resolved")


async def test_offline_run_is_evaluated_when_it_is_delivered(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """What `sync` delivers has the alerts that a sidecar would have raised, at their own times."""
    run, writer = start_run(tmp_path, alert_rules=encode_rules(RULES), offline=True)
    log_steps(writer)
    end_run(writer)
    await serve(make_worker(run, tracking))
    assert not tracking.runs
    await serve(make_worker(run, tracking, is_drain=True))
    assert_each_once(the_run(tracking))


async def test_full_disk_loses_no_alert(
    tmp_path: Path, tracking: MemoryTracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a line cannot be written the cursor waits, and the alert is in the document."""
    run, writer = start_run(tmp_path, alert_rules=encode_rules(RULES))
    log_steps(writer)
    end_run(writer)
    write_all, refused = spool.write_all, list[bytes]()

    def write_or_not(descriptor: int, data: bytes) -> None:
        if b'"raised"' in data and len(refused) < 20:
            refused.append(data)
            raise OSError(errno.ENOSPC, "no space left on device")
        write_all(descriptor, data)

    monkeypatch.setattr(spool, "write_all", write_or_not)
    await serve(make_worker(run, tracking))
    assert refused
    assert_each_once(the_run(tracking))


async def test_rules_of_another_version_cost_nothing_else(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """A description with rules that cannot be read is delivered like any other."""
    run, writer = start_run(tmp_path, alert_rules='[{"name": "x", "sonar": true}]')
    log_steps(writer)
    end_run(writer)
    await serve(make_worker(run, tracking))
    assert len(the_run(tracking).rows("m")) == STEPS
    assert "allele/alerts.json" not in the_run(tracking).artifacts


async def test_phase_is_that_in_which_the_reading_was_logged(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """Of many phases in one millisecond an alert finds its own, nested ones and none too."""
    rules = [AlertRule(name="r", metric="*", condition="gt", threshold=0.0, cooldown_s=0)]
    run, writer = start_run(tmp_path, alert_rules=encode_rules(rules))
    wanted: dict[str, str | None] = {}
    for step in range(60):
        outer = writer.phase_edge("outer", step)
        for name in ("a", "b"):
            inner = writer.phase_edge(name, None)
            writer.metric(f"m/{name}/{step}", 1.0, 7)
            writer.phase_edge(name, None, inner)
            wanted[f"m/{name}/{step}"] = name
        writer.metric(f"m/outer/{step}", 1.0, 7)
        writer.phase_edge("outer", step, outer)
        writer.metric(f"m/none/{step}", 1.0, 7)
        wanted |= {f"m/outer/{step}": "outer", f"m/none/{step}": None}
    end_run(writer)
    await serve(make_worker(run, tracking))
    alerts = document_of(the_run(tracking))["alerts"]
    found = {one["metric"]: one["phase"] for one in alerts if one["metric"].startswith("m/")}
    assert found == wanted


async def test_series_finds_its_phase_by_time(tmp_path: Path, tracking: MemoryTracking) -> None:
    """A series comes out of its turn: its alerts are put into the phase around their time."""
    rules = [AlertRule(name="r", metric="s", condition="gt", threshold=8.5)]
    run, writer = start_run(tmp_path, alert_rules=encode_rules(rules))
    for name in ("before", "during", "after"):
        instance = writer.phase_edge(name, None)
        pause_s(0.003)
        writer.series("s" if name == "during" else "t", [1.0, 9.0, 1.0])
        pause_s(0.003)
        writer.phase_edge(name, None, instance)
    end_run(writer)
    await serve(make_worker(run, tracking))
    (alert,) = document_of(the_run(tracking))["alerts"]
    assert (alert["phase"], alert["step"]) == ("during", 1)


# --- hooks --------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """
    Keeps what is posted to it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[tuple[dict[str, str], Any]] = []
        self.answer = 200
        #: Cleared: no request is answered until it is set.
        self.may_answer = threading.Event()
        self.may_answer.set()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        """
        Take in a request.
        """
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((dict(self.headers), json.loads(body)))
        self.server.may_answer.wait(30)
        self.send_response(self.server.answer)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """
        Say nothing.
        """


@contextmanager
def hook_server() -> Iterator[_Server]:
    """
    A server on this machine that takes webhooks.
    """
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


def write_rules(folder: Path, hook: str, *, more: str = "") -> Path:
    """
    A file with one rule and a hook for every alert.
    """
    file = folder / "alerts.toml"
    file.write_text(f"{more}\n[[hooks]]\nevery_s = 0\n{hook}\n", encoding="utf-8")
    return file


async def serve_alerts(
    folder: Path, tracking: MemoryTracking, file: Path, *alerts: AlertRaised
) -> Path:
    """
    Serve a run with these alerts of the program's to its end.
    """
    run, writer = start_run(folder, alerts_file=str(file), run_name="hooked")
    for alert in alerts:
        writer.event(alert)
    end_run(writer)
    await serve(make_worker(run, tracking))
    return run


async def test_webhook_gets_the_alert(tmp_path: Path, tracking: MemoryTracking) -> None:
    """A POST with the alert, its run and a text; credentials of the address are in the header."""
    with hook_server() as server:
        address = f"http://u:p@127.0.0.1:{server.server_port}/x?token=t"
        file = write_rules(tmp_path, f'webhook = "{address}"\nseverity = "error"')
        await serve_alerts(
            tmp_path, tracking, file, told("mild"), told("grave", severity="error", message="oh")
        )
    ((headers, body),) = server.bodies
    assert headers["Authorization"] == "Basic dTpw"
    assert (body["alert"]["name"], body["run"]["run_name"]) == ("grave", "hooked")
    assert body["text"] == body["content"] == "error: grave: oh"


async def test_command_gets_the_alert(tmp_path: Path, tracking: MemoryTracking) -> None:
    """The program runs with its arguments as they are, no shell between, and reads the alert."""
    script, out = tmp_path / "hook.sh", tmp_path / "got; rm -rf $HOME"
    script.write_text('#!/bin/sh\ncat > "$1"\n')
    script.chmod(stat.S_IRWXU)
    file = write_rules(tmp_path, f"command = [{json.dumps(str(script))}, {json.dumps(str(out))}]")
    await serve_alerts(tmp_path, tracking, file, told("x $(false)"))
    assert json.loads(out.read_text())["alert"]["name"] == "x $(false)"


@pytest.mark.parametrize(
    ("hook", "problem"),
    [
        ('command = ["/no/such/program"]', "cannot be started: No such file"),
        ('command = ["sh", "-c", "echo wrong >&2; exit 3"]', "exit code 3: wrong"),
        ('command = ["sleep", "60"]\ntimeout_s = 0.1', "not done within 0.1 s, and killed"),
        ('webhook = "http://u:secret@127.0.0.1:1/secret"', "not reached: "),
        ('webhook = "http://[::bad/secret"', "ValueError"),
    ],
)
async def test_failed_hook_costs_nothing(
    tmp_path: Path,
    tracking: MemoryTracking,
    caplog: pytest.LogCaptureFixture,
    hook: str,
    problem: str,
) -> None:
    """Whatever goes wrong in a hook is one line of the log, without secrets; the run is whole."""
    run = await serve_alerts(tmp_path, tracking, write_rules(tmp_path, hook), told())
    assert final_state(run).done
    assert document_of(the_run(tracking))["count"] == 1
    lines = [line for line in caplog.messages if "of alert 'mine'" in line]
    assert [problem in line for line in lines] == [True], caplog.messages
    assert "secret" not in caplog.text


@pytest.mark.parametrize("answer", [302, 500])
async def test_answer_of_a_webhook_is_looked_at(
    tmp_path: Path, tracking: MemoryTracking, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    """A refusal is told; a redirect is one, for the alert would go to somebody else."""
    with hook_server() as server:
        server.answer = answer
        address = f"http://127.0.0.1:{server.server_port}/"
        await serve_alerts(
            tmp_path, tracking, write_rules(tmp_path, f'webhook = "{address}"'), told()
        )
    assert len(server.bodies) == 1
    assert f"answered {answer}" in caplog.text


async def test_hook_that_hangs_delays_no_record_and_the_end_by_its_time_out(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """While a webhook hangs the run is delivered and done; the sidecar waits for it in bounds."""
    with hook_server() as server:
        server.may_answer.clear()
        address = f"http://127.0.0.1:{server.server_port}/"
        file = write_rules(tmp_path, f'webhook = "{address}"\ntimeout_s = 1.0')
        run, writer = start_run(tmp_path, alerts_file=str(file))
        started_s = now_monotonic_s()
        async with anyio.create_task_group() as group:
            group.start_soon(serve, make_worker(run, tracking))
            writer.event(told())
            await until(lambda: bool(server.bodies))
            writer.metric("m", 1.0, 0)
            writer.close(
                lambda slots: RunEnded(timestamp_ns=now_ns(), status="FINISHED", slots=slots)
            )
            await until(lambda: "FINISHED" in {one.status for one in tracking.runs.values()})
        assert now_monotonic_s() - started_s < 20  # and not for ever
    assert final_state(run).done


async def test_many_alerts_are_few_calls(tmp_path: Path, tracking: MemoryTracking) -> None:
    """A flood of alerts is bounded by the minute, and all of them are in the document."""
    with hook_server() as server:
        hook = f'webhook = "http://127.0.0.1:{server.server_port}/"'
        file = write_rules(tmp_path, hook, more="hooks_per_minute = 3")
        await serve_alerts(tmp_path, tracking, file, *(told(f"a{n}") for n in range(50)))
    assert len(server.bodies) == 3
    assert document_of(the_run(tracking))["count"] == 50


async def test_hooks_come_from_the_users_file_only(
    tmp_path: Path, tracking: MemoryTracking
) -> None:
    """Neither a rule in the spool nor an alert of the program can have anything run."""
    out = tmp_path / "out"
    hooks = [{"command": ["touch", str(out)]}]
    rule = {"name": "bad", "metric": "m", "condition": "nan", "hooks": hooks}
    run, writer = start_run(tmp_path, alert_rules=json.dumps([rule]))
    writer.metric("m", math.nan, 0)
    writer.event(told(context={"hooks": hooks}))
    end_run(writer)
    await serve(make_worker(run, tracking))
    assert document_of(the_run(tracking))["count"] == 2
    assert not out.exists()
