"""
What every `Tracking` must do: in memory, MLflow on SQLite, MLflow behind a real server.
"""

from __future__ import annotations

import hashlib
import math
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest

from allele_mlflow.errors import ErrorKind, PermanentTrackingError
from allele_mlflow.records import Reading, RunId
from allele_mlflow.testing import MemoryTracking, MetricRow
from allele_mlflow.tracking import limits
from allele_mlflow.tracking.client import RUN_UID_TAG, MlflowTracking
from allele_mlflow.tracking.protocol import Tracking

DEADLINE_S = 30.0
NOBODY = RunId("0" * 32)


class Look(Protocol):
    """
    How a test looks into a store, past the protocol.
    """

    def rows(self, run_id: RunId, key: str) -> list[MetricRow]:
        """
        Rows of one metric, by (step, time, value).
        """

    def params(self, run_id: RunId) -> dict[str, str]:
        """
        All params.
        """

    def tags(self, run_id: RunId) -> dict[str, str]:
        """
        All tags.
        """

    def ending(self, run_id: RunId) -> tuple[str, int | None]:
        """
        Status and end time in ms.
        """

    def latest(self, run_id: RunId) -> dict[str, float]:
        """
        What MLflow shows of each metric.
        """

    def artifact(self, run_id: RunId, path: str) -> bytes:
        """
        One artifact's contents.
        """

    def experiments(self, name: str) -> int:
        """
        How many experiments have this name.
        """

    def delete_experiment(self, experiment_id: str) -> None:
        """
        Delete it as a user would.
        """


@dataclass
class MemoryLook:
    """
    Into MemoryTracking.
    """

    tracking: MemoryTracking

    def rows(self, run_id: RunId, key: str) -> list[MetricRow]:
        return sorted(self.tracking.runs[run_id].rows(key), key=_by_step)

    def params(self, run_id: RunId) -> dict[str, str]:
        return self.tracking.runs[run_id].params

    def tags(self, run_id: RunId) -> dict[str, str]:
        return self.tracking.runs[run_id].tags

    def ending(self, run_id: RunId) -> tuple[str, int | None]:
        run = self.tracking.runs[run_id]
        return run.status, run.end_ms

    def latest(self, run_id: RunId) -> dict[str, float]:
        latest = self.tracking.runs[run_id].latest
        return {key: math.nan if row.is_nan else row.value for key, row in latest.items()}

    def artifact(self, run_id: RunId, path: str) -> bytes:
        return self.tracking.runs[run_id].artifacts[path]

    def experiments(self, name: str) -> int:
        return sum(known.name == name for known in self.tracking.experiments.values())

    def delete_experiment(self, experiment_id: str) -> None:
        self.tracking.experiments[experiment_id].is_deleted = True


@dataclass
class MlflowLook:
    """
    Through a user's own MLflow client.
    """

    client: Any
    uri: str

    def rows(self, run_id: RunId, key: str) -> list[MetricRow]:
        found = []
        for metric in self.client.get_metric_history(run_id, key):
            is_nan = math.isnan(metric.value)
            value = 0.0 if is_nan else metric.value
            found.append(MetricRow(key, metric.timestamp, metric.step, value, is_nan))
        return sorted(found, key=_by_step)

    def params(self, run_id: RunId) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.params)

    def tags(self, run_id: RunId) -> dict[str, str]:
        return dict(self.client.get_run(run_id).data.tags)

    def ending(self, run_id: RunId) -> tuple[str, int | None]:
        info = self.client.get_run(run_id).info
        return info.status, info.end_time

    def latest(self, run_id: RunId) -> dict[str, float]:
        return dict(self.client.get_run(run_id).data.metrics)

    def artifact(self, run_id: RunId, path: str) -> bytes:
        if "?" not in path:
            return Path(self.client.download_artifacts(run_id, path)).read_bytes()
        # MLflow's own download takes the name apart at a question mark; the stored one is whole.
        root = self.client.get_run(run_id).info.artifact_uri
        if not root.startswith("mlflow-artifacts:"):
            return Path(root, path).read_bytes()
        place = root.removeprefix("mlflow-artifacts:/")
        url = f"{self.uri}/api/2.0/mlflow-artifacts/artifacts/{place}/{quote(path)}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            content: bytes = answer.read()
        return content

    def experiments(self, name: str) -> int:
        found = self.client.search_experiments(filter_string=f"name = '{name}'")
        return len(found)

    def delete_experiment(self, experiment_id: str) -> None:
        self.client.delete_experiment(experiment_id)


@dataclass
class Store:
    """
    One implementation under test.
    """

    tracking: Tracking
    look: Look
    folder: Path
    artifact_location: str | None

    def new_experiment(self) -> str:
        """
        An experiment no other test uses.
        """
        return self.tracking.ensure_experiment(
            f"contract {uuid.uuid4().hex}", artifact_location=self.artifact_location
        )

    def new_run(self, *, run_uid: str = "uid", experiment_id: str | None = None) -> RunId:
        """
        A run in an experiment of its own, unless one is given.
        """
        return self.tracking.create_run(
            experiment_id or self.new_experiment(),
            run_name="pop-100",
            start_ms=1_700_000_000_000,
            tags={RUN_UID_TAG: run_uid, "mlflow.user": "me"},
        )


def _by_step(row: MetricRow) -> tuple[int, int, float, bool]:
    return row.step, row.timestamp_ms, row.value, row.is_nan


def _mlflow_store(
    uri: str, folder: Path, artifact_location: str | None, *, is_bulk: bool = False
) -> Iterator[Store]:
    from mlflow import MlflowClient

    tracking = MlflowTracking(uri, is_bulk=is_bulk)
    yield Store(tracking, MlflowLook(MlflowClient(uri), uri), folder, artifact_location)
    tracking.close()


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param(
            "server", marks=[pytest.mark.server, pytest.mark.process, pytest.mark.timeout(180)]
        ),
        pytest.param(
            "server-compact",
            marks=[pytest.mark.server, pytest.mark.process, pytest.mark.timeout(180)],
        ),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """
    Each implementation in turn.
    """
    if request.param == "memory":
        memory = MemoryTracking()
        yield Store(memory, MemoryLook(memory), tmp_path, None)
    elif request.param == "sqlite":
        uri = request.getfixturevalue("sqlite_store")
        yield from _mlflow_store(uri, tmp_path, str(tmp_path / "artifacts of tests"))
    else:
        uri, is_compact = request.getfixturevalue("mlflow_server"), request.param != "server"
        yield from _mlflow_store(uri, tmp_path, None, is_bulk=is_compact)


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """
    `work(0)` to `work(count - 1)`, each in a thread, all let go together.
    """
    start = threading.Barrier(count)

    def go(number: int) -> Any:
        start.wait(DEADLINE_S)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(go, range(count), timeout=DEADLINE_S))


def test_every_kind_of_number_arrives(store: Store) -> None:
    """
    NaN, infinities, negative steps and 64-bit edges are kept as MLflow's SQL stores keep them.
    """
    run_id = store.new_run()
    values = [1.5, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308]
    readings = [Reading("loss", value, 1000 + n, n) for n, value in enumerate(values)]
    readings += [Reading("edge", 1.0, 0, limits.STEP_MIN), Reading("edge", 2.0, 5, limits.STEP_MAX)]
    store.tracking.log_batch(run_id, readings=readings)
    largest = limits.LARGEST_VALUE
    assert store.look.rows(run_id, "loss") == [
        MetricRow("loss", 1000, 0, 1.5, False),
        MetricRow("loss", 1001, 1, 0.0, False),
        MetricRow("loss", 1002, 2, 0.0, True),
        MetricRow("loss", 1003, 3, largest, False),
        MetricRow("loss", 1004, 4, -largest, False),
        MetricRow("loss", 1005, 5, 5e-324, False),
        MetricRow("loss", 1006, 6, 1e308, False),
    ]
    assert [row.step for row in store.look.rows(run_id, "edge")] == [
        limits.STEP_MIN,
        limits.STEP_MAX,
    ]


def test_a_resent_batch_changes_nothing(store: Store) -> None:
    """
    The same readings, params and tags again, alone or beside new ones, leave one row each.
    """
    run_id = store.new_run()
    readings = [Reading("loss", math.nan, 7, 3), Reading("loss", 0.25, 7, 3)]
    params, tags = {"depth": "3"}, {"team": "a"}
    assert store.tracking.is_idempotent
    store.tracking.log_batch(run_id, readings=readings, params=params, tags=tags)
    store.tracking.log_batch(run_id, readings=readings, params=params, tags=tags)
    more = [*readings, Reading("loss", 0.5, 8, 4), readings[0]]
    store.tracking.log_batch(run_id, readings=more, params=params, tags=tags)
    assert store.look.rows(run_id, "loss") == [
        MetricRow("loss", 7, 3, 0.0, True),
        MetricRow("loss", 7, 3, 0.25, False),
        MetricRow("loss", 8, 4, 0.5, False),
    ]
    assert store.look.params(run_id) == params
    assert store.look.tags(run_id)["team"] == "a"


def test_the_latest_value_is_that_of_the_largest_step(store: Store) -> None:
    """
    Readings that arrive late never hide a later step; at one step and time the larger value shows.
    """
    run_id = store.new_run()
    for reading in (
        Reading("a", 1.0, 10, 10),
        Reading("a", 2.0, 99, 3),
        Reading("b", 5.0, 1, 1),
        Reading("b", 4.0, 1, 1),
        Reading("b", -1.0, 2, 1),
        Reading("c", -5.0, 1, 1),
        Reading("c", math.nan, 1, 1),
    ):
        store.tracking.log_batch(run_id, readings=[reading])
    latest = store.look.latest(run_id)
    assert (latest["a"], latest["b"]) == (1.0, -1.0)
    assert math.isnan(latest["c"])


def test_a_full_batch_arrives_whole(store: Store) -> None:
    """
    The largest call that the limits allow is one call, and every item of it is there.
    """
    run_id = store.new_run()
    readings = [Reading(f"m/{n % 10}", float(n), 1000 + n, n) for n in range(800)]
    params = {f"p{n}": str(n) for n in range(limits.PARAMS_PER_CALL)}
    tags = {f"t{n}": str(n) for n in range(limits.TAGS_PER_CALL)}
    store.tracking.log_batch(run_id, readings=readings, params=params, tags=tags)
    assert sum(len(store.look.rows(run_id, f"m/{n}")) for n in range(10)) == 800
    assert store.look.params(run_id) == params
    assert tags.items() <= store.look.tags(run_id).items()


def test_a_changed_param_is_refused(store: Store) -> None:
    """
    A param is written once: another value is refused, and no reading of that call is kept.
    """
    run_id = store.new_run()
    store.tracking.log_batch(run_id, params={"depth": "3"})
    with pytest.raises(PermanentTrackingError) as caught:
        store.tracking.log_batch(
            run_id, readings=[Reading("loss", 1.0, 1, 1)], params={"depth": "5"}
        )
    assert caught.value.kind is ErrorKind.REFUSED
    assert "depth" in str(caught.value)
    assert store.look.params(run_id) == {"depth": "3"}
    assert store.look.rows(run_id, "loss") == []


def test_one_bad_key_refuses_the_call(store: Store) -> None:
    """
    A key that MLflow cannot hold refuses the whole call, so that who sends can find it by halving.
    """
    run_id = store.new_run()
    with pytest.raises(PermanentTrackingError) as caught:
        store.tracking.log_batch(
            run_id, readings=[Reading("fine", 1.0, 1, 1), Reading("p99%", 1.0, 1, 1)]
        )
    assert caught.value.kind is ErrorKind.REFUSED
    assert store.look.rows(run_id, "fine") == []


def test_long_values_are_cut_and_still_resend(store: Store) -> None:
    """
    Over-long params and tags are cut at MLflow's length, and the same text again is no conflict.
    """
    run_id = store.new_run()
    for _ in range(2):
        store.tracking.log_batch(run_id, params={"p": "x" * 7000}, tags={"t": "y" * 9000})
    assert len(store.look.params(run_id)["p"]) == limits.PARAM_VALUE_LENGTH
    assert len(store.look.tags(run_id)["t"]) == limits.TAG_VALUE_LENGTH


def test_tags_are_replaced(store: Store) -> None:
    """
    The last value of a tag is the one that stays.
    """
    run_id = store.new_run()
    store.tracking.log_batch(run_id, tags={"allele.delivery": "a", "other": "1"})
    store.tracking.log_batch(run_id, tags={"allele.delivery": "b ü '\"`"})
    tags = store.look.tags(run_id)
    assert (tags["allele.delivery"], tags["other"]) == ("b ü '\"`", "1")


@pytest.mark.parametrize(
    "path",
    [
        "report.html",
        "a folder/with spaces.txt",
        "Größe/適応度 ß.json",
        "deep/er/and/deeper/x.bin",
        "50%.txt",
        "what?.txt",
        "q? d/a+b&c=d;e,.txt",
        "[x]{y}<z>'\"`~!@$^().txt",
        ".hidden",
    ],
)
def test_an_artifact_comes_back_whole(store: Store, path: str) -> None:
    """
    The bytes under the name the user gave, whatever the spool called the file.
    """
    run_id = store.new_run()
    content = bytes(range(256)) * 1000
    file = store.folder / "000017.bin"
    file.write_bytes(content)
    store.tracking.log_artifact(run_id, file, path)
    back = store.look.artifact(run_id, path)
    assert hashlib.sha256(back).hexdigest() == hashlib.sha256(content).hexdigest()


def test_an_empty_artifact_and_a_second_version(store: Store) -> None:
    """
    A file of no bytes is a file, and uploading again replaces it.
    """
    run_id = store.new_run()
    file = store.folder / "out.txt"
    file.write_bytes(b"")
    store.tracking.log_artifact(run_id, file, "out.txt")
    assert store.look.artifact(run_id, "out.txt") == b""
    file.write_bytes(b"second")
    store.tracking.log_artifact(run_id, file, "out.txt")
    assert store.look.artifact(run_id, "out.txt") == b"second"


def test_an_artifact_that_went_away_is_set_aside(store: Store) -> None:
    """
    Neither a missing file nor a path out of the run's folder is tried again.
    """
    run_id = store.new_run()
    file = store.folder / "here"
    file.write_bytes(b"x")
    for source, path in ((store.folder / "gone", "gone"), (file, "../out"), (file, "/abs")):
        with pytest.raises(PermanentTrackingError) as caught:
            store.tracking.log_artifact(run_id, source, path)
        assert caught.value.kind is ErrorKind.BAD_ARTIFACT


def test_eight_threads_make_one_experiment(store: Store) -> None:
    """
    Whoever loses the race to create gets the winner's experiment.
    """
    name = f"race {uuid.uuid4().hex}"
    ids = at_once(
        8,
        lambda _: store.tracking.ensure_experiment(name, artifact_location=store.artifact_location),
    )
    assert len(set(ids)) == 1
    assert store.look.experiments(name) == 1


def test_a_deleted_experiment_comes_back(store: Store) -> None:
    """
    A deleted experiment still owns its name, so it is restored, by several at once too.
    """
    name = f"deleted {uuid.uuid4().hex}"
    first = store.tracking.ensure_experiment(name, artifact_location=store.artifact_location)
    store.look.delete_experiment(first)
    ids = at_once(
        4,
        lambda _: store.tracking.ensure_experiment(name, artifact_location=store.artifact_location),
    )
    assert set(ids) == {first}
    store.new_run(experiment_id=first)


def test_a_run_is_found_by_its_uid(store: Store) -> None:
    """
    After a create of unknown outcome the run is found, the oldest of several, in its experiment
    only.
    """
    experiment_id = store.new_experiment()
    assert store.tracking.find_run(experiment_id, "u1") is None
    younger = store.tracking.create_run(
        experiment_id, run_name=None, start_ms=2000, tags={RUN_UID_TAG: "u1"}
    )
    assert store.tracking.find_run(experiment_id, "u1") == younger
    older = store.tracking.create_run(
        experiment_id, run_name=None, start_ms=1000, tags={RUN_UID_TAG: "u1"}
    )
    assert store.tracking.find_run(experiment_id, "u1") == older
    assert store.tracking.find_run(store.new_experiment(), "u1") is None


@pytest.mark.parametrize("run_uid", ["it's", 'say "x"', "both ' and \"", "a` or 1=1 --", "%"])
def test_an_odd_uid_finds_its_run_alone(store: Store, run_uid: str) -> None:
    """
    Quotes and wildcards in a uid neither break the search nor widen it.
    """
    experiment_id = store.new_experiment()
    store.new_run(experiment_id=experiment_id, run_uid="plain")
    assert store.tracking.find_run(experiment_id, run_uid) is None
    run_id = store.new_run(experiment_id=experiment_id, run_uid=run_uid)
    assert store.tracking.find_run(experiment_id, run_uid) == run_id


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_and_reopens(store: Store, status: Any) -> None:
    """
    Status and end time are those given; a reopened run is RUNNING, and late data is still taken.
    """
    experiment_id = store.new_experiment()
    run_id = store.new_run(experiment_id=experiment_id)
    assert store.look.ending(run_id)[0] == "RUNNING"
    store.tracking.end_run(run_id, status, 1_700_000_005_000)
    assert store.look.ending(run_id) == (status, 1_700_000_005_000)
    store.tracking.log_batch(run_id, readings=[Reading("late", 1.0, 1, 1)])
    assert len(store.look.rows(run_id, "late")) == 1
    assert store.tracking.reopen_run(run_id) == experiment_id
    assert store.look.ending(run_id)[0] == "RUNNING"
    assert store.look.tags(run_id)["mlflow.user"] == "me"


def test_a_look_at_a_run_changes_nothing(store: Store) -> None:
    """
    A glance gives the experiment and the tags as they are, of an ended run too.
    """
    experiment_id = store.new_experiment()
    run_id = store.new_run(experiment_id=experiment_id)
    store.tracking.log_batch(run_id, tags={"colour": "green"})
    store.tracking.end_run(run_id, "FAILED", 1_700_000_005_000)
    found = store.tracking.look_at_run(run_id)
    assert found.experiment_id == experiment_id
    assert found.tags["colour"] == "green"
    assert store.look.ending(run_id) == ("FAILED", 1_700_000_005_000)


def test_a_missing_run_is_not_found(store: Store) -> None:
    """
    Nothing can be delivered to a run that is not there, and no retry will help.
    """
    store.new_experiment()
    file = store.folder / "f"
    file.write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.tracking.log_batch(NOBODY, readings=[Reading("loss", 1.0, 1, 1)]),
        lambda: store.tracking.log_artifact(NOBODY, file, "f"),
        lambda: store.tracking.end_run(NOBODY, "FINISHED", 1),
        lambda: store.tracking.reopen_run(NOBODY),
        lambda: store.tracking.look_at_run(NOBODY),
    ]
    for call in calls:
        with pytest.raises(PermanentTrackingError) as caught:
            call()
        assert caught.value.kind is ErrorKind.NOT_FOUND


def test_threads_share_one_client(store: Store) -> None:
    """
    Eight threads with a run each lose nothing.
    """
    experiment_id = store.new_experiment()

    def deliver(number: int) -> RunId:
        run_id = store.new_run(experiment_id=experiment_id, run_uid=f"u{number}")
        for step in range(3):
            readings = [Reading("loss", float(n), 1000 * step + n, step) for n in range(20)]
            store.tracking.log_batch(run_id, readings=readings)
        return run_id

    for run_id in at_once(8, deliver):
        assert len(store.look.rows(run_id, "loss")) == 60


def test_close_gives_back_and_may_be_followed_by_calls(store: Store) -> None:
    """
    A closed store opens again when it is needed.
    """
    run_id = store.new_run()
    store.tracking.close()
    store.tracking.close()
    store.tracking.log_batch(run_id, readings=[Reading("loss", 1.0, 1, 1)])
    assert len(store.look.rows(run_id, "loss")) == 1
    assert store.tracking.run_url("7", run_id).find(f"experiments/7/runs/{run_id}") > 0
