"""
Faults of the tracking server: what a workload logs meanwhile is in MLflow once, afterwards.

Each drill puts a `FaultyProxy` before a real `mlflow server` (the user's own, where the store is
one), and the sidecar speaks to that.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from allele_mlflow.clock import now_monotonic_s, pause_s
from allele_mlflow.drill.kills import with_problems
from allele_mlflow.drill.place import Place, Program, opened_place, wait_for
from allele_mlflow.drill.readback import compare
from allele_mlflow.drill.tracking_server import TrackingServer, shared_server
from allele_mlflow.drill.trial import Drill, Trial
from allele_mlflow.queue import spool
from allele_mlflow.testing.faulty_proxy import FaultyProxy, HttpFault
from allele_mlflow.tracking.schema import prepare_schema, sqlite_path

LOG_BATCH = "runs/log-batch"
CREATE_RUN = "runs/create"
#: How a workload ends that gets Ctrl-C.
INTERRUPTED = ("KeyboardInterrupt",)
#: Readings a second that say that a benchmark goes on; it makes some thousand.
LEAST_RATE_PER_S = 100.0
#: What `close` may take beyond `exit_timeout_s`.
CLOSE_MARGIN_S = 0.5
#: The end of the interpreter, beside `close`.
PROCESS_END_S = 1.5
EXIT_TIMEOUT_S = 1.0
#: The clock's, for requests that are noted a little after they were sent.
CLOCK_SLACK_S = 0.02


def http_timeout_s(place: Place) -> int:
    """
    How long the sidecar waits for an answer: 30 s, as by default, or 10 where a minute is short.

    Never less: a batch of a thousand takes seconds on a machine that is busy.
    """
    return max(10, min(30, round(place.minute_s / 2)))


@contextlib.contextmanager
def opened_proxy(place: Place, upstream: str | None = None) -> Iterator[tuple[Place, FaultyProxy]]:
    """
    A place of its own whose store is a proxy before a real server, and the proxy.

    Args:
        place: Of the drill.
        upstream: The server; None: the user's own, or the one of this process.
    """
    if upstream is None:
        is_server = place.tracking_uri.startswith(("http:", "https:"))
        upstream = place.tracking_uri if is_server else shared_server().url
    folder = place.folder / f"proxied-{spool.new_uid()}"
    with (
        FaultyProxy(upstream) as proxy,
        opened_place(folder, proxy.url, chance=place.chance, scale=place.minute_s) as inner,
    ):
        inner.variables["MLFLOW_HTTP_REQUEST_TIMEOUT"] = f"{http_timeout_s(place)}"
        inner.artifact_location = None
        yield inner, proxy
        proxy.mend()


def start_workload(place: Place, *options: str) -> Program:
    """
    A workload of two threads that logs everything until it is interrupted.
    """
    program = place.start("--mixed", "--pause-s", "0.05", *options, threads=2)
    program.await_start()
    return program


def await_delivery(proxy: FaultyProxy) -> None:
    """
    Wait until the server has taken two batches.
    """
    wait_for(lambda: len(proxy.requests(LOG_BATCH, fault="")) >= 2, "a batch at the server")


def interrupt_and_compare(place: Place, program: Program, problems: Sequence[str] = ()) -> Trial:
    """
    End a workload as Ctrl-C does, and compare: it closes its run itself.
    """
    program.process.send_signal(signal.SIGINT)
    program.await_end()
    trial = compare(place, [program], status="KILLED", ended_by=INTERRUPTED)
    return with_problems(trial, problems)


class Pace:
    """
    How a benchmark goes on from here.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._before = program.returned_metrics()
        self._since_s = now_monotonic_s()

    def problems(self) -> list[str]:
        """
        What is to be said of it: nothing, where its calls went on.
        """
        logged = self._program.returned_metrics() - self._before
        rate = logged / max(now_monotonic_s() - self._since_s, 1e-3)
        return [] if rate > LEAST_RATE_PER_S else [f"the benchmark logged {rate:.0f} readings/s"]


# --- the drills ---------------------------------------------------------------------------------


def endure(place: Place, *, switch_on: Callable[[FaultyProxy], None], name: str) -> Trial:
    """
    A fault of everything for a minute, from the start or in the middle.

    Args:
        place: Where.
        switch_on: Puts the fault into the proxy.
        name: Of the fault in the proxy's list; "" for one that shows no request.
    """
    with opened_proxy(place) as (inner, proxy):
        is_early = place.chance.random() < 0.5
        if is_early:
            switch_on(proxy)
        program = start_workload(inner)
        if not is_early:
            await_delivery(proxy)
            switch_on(proxy)
        if name:
            wait_for(lambda: proxy.requests(fault=name), "a request that meets the fault")
        pace = Pace(program)
        pause_s(place.minute_s)
        problems = pace.problems()
        proxy.mend()
        return interrupt_and_compare(inner, program, problems)


def stay_away(place: Place, *, switch_on: Callable[[FaultyProxy], None]) -> Trial:
    """
    A store that is away for the whole life of a benchmark: close is bounded, all arrives later.
    """
    with opened_proxy(place) as (inner, proxy):
        switch_on(proxy)
        program = inner.start(
            *("--mixed", "--pause-s", "0.05", "--rounds", "50"),
            threads=2,
            environ={"exit_timeout_s": EXIT_TIMEOUT_S},
        )
        program.await_start()
        wait_for(lambda: program.returned_metrics() == 1000, "the workload's last round")
        before_s = now_monotonic_s()
        program.await_end()
        took_s = now_monotonic_s() - before_s
        bound_s = EXIT_TIMEOUT_S + CLOSE_MARGIN_S + PROCESS_END_S
        problems = [] if took_s <= bound_s else [f"ended after {took_s:.1f} s: want {bound_s:g} s"]
        proxy.mend()
        trial = compare(inner, [program], status="FINISHED")
        return with_problems(trial, problems)


def wait_as_told(place: Place, *, as_date: bool) -> Trial:
    """
    429 with Retry-After: no batch comes before it has passed.
    """
    after_s = float(max(2, round(place.minute_s / 2)))
    with opened_proxy(place) as (inner, proxy):
        program = start_workload(inner)
        await_delivery(proxy)
        proxy.plan(HttpFault.too_many(after_s, as_date=as_date), path=LOG_BATCH, times=1)
        refused = wait_for(lambda: proxy.requests(fault="429"), "a refused batch")[0]
        pace = Pace(program)

        def following() -> float | None:
            batches = [r.at_monotonic_s for r in proxy.requests(LOG_BATCH)]
            return next((at for at in batches if at > refused.at_monotonic_s), None)

        waited_s = wait_for(following, "the next batch") - refused.at_monotonic_s
        problems = pace.problems()
        if waited_s < after_s - CLOCK_SLACK_S:
            problems.append(f"a batch after {waited_s:.2f} s: Retry-After was {after_s:g} s")
        return interrupt_and_compare(inner, program, problems)


def refuse_token(place: Place, *, status: int) -> Trial:
    """
    401 or 403: said in the run's state at once; what waits is delivered when the token is right.
    """
    with opened_proxy(place) as (inner, proxy):
        proxy.plan(HttpFault.error(status, "PERMISSION_DENIED", "the token is not valid"))
        program = start_workload(inner)

        def said() -> str | None:
            state = inner.state(program.run_uid)
            return state.last_error if state is not None else None

        error = wait_for(said, "the refusal in the run's state")
        problems = [] if "token is not valid" in error else [f"the state says {error!r}"]
        pace = Pace(program)
        pause_s(place.minute_s / 2)
        problems += pace.problems()
        proxy.mend()
        return interrupt_and_compare(inner, program, problems)


def lose_answer(place: Place, *, path: str) -> Trial:
    """
    The connection breaks after the server has done what was asked: nothing twice, one run.
    """
    with opened_proxy(place) as (inner, proxy):
        fault = HttpFault.reset_after_commit()
        proxy.plan(fault, path=path, times=place.chance.randint(1, 3))
        program = start_workload(inner)
        wait_for(lambda: proxy.requests(path, fault=fault.name), "a lost answer")
        wait_for(lambda: len(proxy.requests(LOG_BATCH, fault="")) >= 3, "batches after it")
        return interrupt_and_compare(inner, program)


def refuse_item(place: Place, *, status: int, code: str) -> Trial:
    """
    An error for one item of a batch: it is in the dead letters with the store's words, all else
    comes.
    """
    key = b'"param/1/1"'
    words = "this key is not wanted here"
    with opened_proxy(place) as (inner, proxy):
        fault = HttpFault.error(status, code, words)
        proxy.plan(fault, path=LOG_BATCH, body_holds=key)
        program = start_workload(inner)
        wait_for(lambda: program.returned(1)["param"] >= 3, "three params")
        program.process.send_signal(signal.SIGINT)
        program.await_end()
        trial = compare(inner, [program], status="KILLED", ended_by=INTERRUPTED)
        letters = inner.scope / spool.DONE / program.run_uid / "rejected.jsonl"
        text = letters.read_text("utf-8") if letters.exists() else ""
        problems = [p for p in trial.problems if "rejected {'store': 1}" not in p]
        said = words if status < 500 else f"{status}"  # MLflow's client keeps no words of a 500
        if text.count("param/1/1") != 1 or said not in text:
            problems.append(f"the dead letters hold {text[:200]!r}")
        if trial.lost != 1:  # the refused one is not in MLflow: it is where it must be
            problems.append(f"{trial.lost} records are not in MLflow: want the refused one alone")
        return Trial(
            accepted=trial.accepted,
            delivered=trial.accepted - max(0, trial.lost - 1),
            lost=max(0, trial.lost - 1),
            duplicated=trial.duplicated,
            statuses=trial.statuses,
            problems=tuple(problems),
        )


def restart(place: Place) -> Trial:
    """
    The server is killed in the middle, and comes back.
    """
    server = TrackingServer()
    try:
        server.start()
        with opened_proxy(place, server.url) as (inner, proxy):
            program = start_workload(inner)
            await_delivery(proxy)
            pause_s(place.chance.uniform(0.0, 0.3))
            server.kill()
            pace = Pace(program)
            pause_s(place.minute_s / 2)
            server.start()
            return interrupt_and_compare(inner, program, pace.problems())
    finally:
        server.close()


def lock_database(place: Place, *, how: str) -> Trial:
    """
    Another writer holds the database for a minute.
    """
    path = sqlite_path(place.tracking_uri)
    if path is None:
        path = place.folder / "locked.db"
        prepare_schema(path)
    uri = f"sqlite:///{path}"
    folder = place.folder / f"locked-{spool.new_uid()}"
    with opened_place(folder, uri, chance=place.chance, scale=place.minute_s) as inner:
        program = start_workload(inner)

        def is_begun() -> bool:
            state = inner.state(program.run_uid)
            return state is not None and bool(state.run_id)

        wait_for(is_begun, "the run in MLflow")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout=20000")
            other.execute(f"BEGIN {how}")
            pace = Pace(program)
            pause_s(place.minute_s)
            other.execute("ROLLBACK")
        return interrupt_and_compare(inner, program, pace.problems())


def _plan(proxy: FaultyProxy, fault: HttpFault) -> None:
    proxy.plan(fault)


#: Faults of everything: by name what happens, its name in the proxy's list, and the promise.
OUTAGES: dict[str, tuple[Callable[[FaultyProxy], None], str, str]] = {
    "refused": (FaultyProxy.refuse, "", "nobody listens for a minute"),
    "hangs": (partial(_plan, fault=HttpFault.hang()), "hang", "no answer for a minute"),
    "500": (partial(_plan, fault=HttpFault.error(500)), "500", "500 for a minute"),
    "503": (partial(_plan, fault=HttpFault.page(503)), "page 503", "503 for a minute"),
    "page-200": (
        partial(_plan, fault=HttpFault.page(200)),
        "page 200",
        "an HTML page with 200 for a minute",
    ),
    "page-502": (
        partial(_plan, fault=HttpFault.page(502)),
        "page 502",
        "an HTML page with 502 for a minute",
    ),
    "reset": (
        partial(_plan, fault=HttpFault.reset_before()),
        "reset before",
        "connections reset for a minute",
    ),
}


def slow_down(place: Place) -> Trial:
    """
    Two answers that come after the client has given up: the server has them, and gets them again.
    """
    with opened_proxy(place) as (inner, proxy):
        fault = HttpFault.slow(http_timeout_s(place) + 0.5)
        program = start_workload(inner)
        await_delivery(proxy)
        proxy.plan(fault, times=2)
        pace = Pace(program)
        wait_for(lambda: len(proxy.requests(fault=fault.name)) == 2, "two slow answers")
        return interrupt_and_compare(inner, program, pace.problems())


DRILLS = (
    *(
        Drill(
            name=f"server-{name}",
            promise=f"tracking server: {what}: all arrives, once",
            guarantee=7,
            run=partial(endure, switch_on=switch_on, name=fault),
            short=int(name in {"refused", "page-200"}),
            full=2 if name in {"refused", "hangs", "500"} else 1,
        )
        for name, (switch_on, fault, what) in OUTAGES.items()
    ),
    *(
        Drill(
            name=f"server-away-{name}",
            promise=f"a store that {name} for a run's whole life: close is bounded, all arrives",
            guarantee=5,
            run=partial(stay_away, switch_on=OUTAGES[name][0]),
            short=1,
            full=3,
        )
        for name in ("refused", "hangs")
    ),
    Drill(
        name="server-slow",
        promise="tracking server: answers come too late: all arrives, once",
        guarantee=2,
        run=slow_down,
        short=0,
        full=1,
    ),
    *(
        Drill(
            name=f"server-429-{form}",
            promise=f"429, Retry-After in {form}: no batch comes before it has passed",
            guarantee=7,
            run=partial(wait_as_told, as_date=form == "date"),
            short=int(form == "date"),
            full=2,
        )
        for form in ("seconds", "date")
    ),
    *(
        Drill(
            name=f"server-{status}",
            promise=f"{status}: said at once, records wait, all arrives with the right token",
            guarantee=7,
            run=partial(refuse_token, status=status),
            short=int(status == 401),
            full=2,
        )
        for status in (401, 403)
    ),
    *(
        Drill(
            name=f"server-lost-answer-{what}",
            promise=f"connection reset after the server did {path}: nothing twice, one run",
            guarantee=2,
            run=partial(lose_answer, path=path),
            short=int(what == "create"),
            full=5,
        )
        for what, path in (("create", CREATE_RUN), ("batch", LOG_BATCH))
    ),
    *(
        Drill(
            name=f"server-{status}-for-one",
            promise=f"{status} for one item of a batch: it is a dead letter, the rest arrives",
            guarantee=4,
            run=partial(refuse_item, status=status, code=code),
            short=1,
            full=3,
        )
        for status, code in ((400, "INVALID_PARAMETER_VALUE"), (500, "INTERNAL_ERROR"))
    ),
    Drill(
        name="server-restart",
        promise="the tracking server is killed and started again: all arrives, once",
        guarantee=7,
        run=restart,
        short=0,
        full=2,
    ),
    *(
        Drill(
            name=f"database-locked-{how.lower()}",
            promise=f"another writer holds the database ({how}) for a minute: all arrives",
            guarantee=7,
            run=partial(lock_database, how=how),
            short=0,
            full=2,
        )
        for how in ("IMMEDIATE", "EXCLUSIVE")
    ),
)
