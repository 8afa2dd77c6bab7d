"""
Reading back: what was logged comes back in the same frames from SQL and through MLflow's client.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Metric, Param, RunTag

from allele_mlflow.errors import PermanentTrackingError, TrackingError
from allele_mlflow.tracking import client_reader, sql_reader
from allele_mlflow.tracking import reader as reading
from allele_mlflow.tracking.client_reader import ClientReader
from allele_mlflow.tracking.frames import HISTORY, READINGS, RUNS, Reader
from allele_mlflow.tracking.reader import artifact_bytes, artifact_readings, open_reader
from allele_mlflow.tracking.sql_reader import SqlReader
from tests.integration.conftest import opened_server
from tests.integration.postgres import Postgres
from tests.integration.runs import Station

ROWS = 700
SPECIAL = [math.nan, math.inf, -math.inf, 5e-324, 1e308]
#: Values of a tag, each of one run: none may be taken for another, or for a piece of a query.
HOSTILE = [
    *("evolution", "EVOLUTION", " evolution", "evolution 2", "evolutio_", "%", "100 %"),
    *("it's", 'a "b"', "both ' and \"", "x' OR '1'='1", "'", '"', "`k`"),
    *("a\\", "\\' \"", "a;b -- c /* d", "first\nsecond", "tab\t", "naïve ☃ 🧬", ":key_0"),
]


class Written(NamedTuple):
    """
    A store with two runs and a deleted one, by MLflow's own client; and with runs that differ in a
    tag, in the order of `HOSTILE`.
    """

    uri: str
    experiment_id: str
    run_ids: list[str]
    deleted: str
    tagged: list[str]
    tagged_experiment_id: str


def write(uri: str) -> Written:
    """
    Runs with long histories, special values, and keys of one run alone.
    """
    client = mlflow.MlflowClient(uri)
    experiment_id = client.create_experiment("read back")
    ids = []
    for number in range(3):
        run = client.create_run(experiment_id, start_time=1000 + number, run_name=f"r{number}")
        uid = run.info.run_id
        metrics = [Metric("long", step / 3 + number, 5000 + step, step) for step in range(ROWS)]
        metrics += [Metric(f"special/{number}", value, 1, n) for n, value in enumerate(SPECIAL)]
        metrics += [Metric("long", -1.0, 4999, 3)]  # of one step, but earlier
        client.log_batch(uid, metrics, [Param("p", str(number))], [RunTag("ü", "'\"%")])
        ids.append(uid)
    client.set_terminated(ids[0], end_time=2000)
    client.delete_run(ids[2])
    tagged_experiment_id, tagged = write_tagged(client)
    return Written(uri, experiment_id, ids[:2], ids[2], tagged, tagged_experiment_id)


def write_tagged(client: mlflow.MlflowClient) -> tuple[str, list[str]]:
    """
    An experiment with a run for each hostile value of a tag.
    """
    experiment_id = client.create_experiment("tagged ☃ '\"%")
    ids = []
    for number, value in enumerate(HOSTILE):
        tags = {"allele.suite": value, "allele.kind": "cell" if number % 2 else "warm_up"}
        if number % 3 < 2:  # with any value, with none, and not at all
            tags["allele.uses.m"] = value if number % 3 else ""
        run = client.create_run(experiment_id, start_time=1000 + number, tags=tags)
        metrics = [Metric(key, float(number), 1, 0) for key in ("a", "b")]
        params = [Param(key, str(number)) for key in ("p", "q")]
        client.log_batch(run.info.run_id, metrics, params)
        ids.append(run.info.run_id)
    return experiment_id, ids


@pytest.fixture(scope="module")
def sqlite_written(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """
    On SQLite.
    """
    path = tmp_path_factory.mktemp("reader") / "ml flow?#.db"
    path.write_bytes(empty_store.read_bytes())
    return write(f"sqlite:///{path}")


@pytest.fixture(
    scope="module",
    params=[
        "sql",
        "client",
        pytest.param("server", marks=[pytest.mark.server, pytest.mark.process]),
        pytest.param("postgres", marks=pytest.mark.slow),
    ],
)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reader, Written]]:
    """
    Each implementation, and what it is to find.
    """
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        postgres.create("reader")
        written = write(postgres.uri("reader", "psycopg"))
        reader: Reader = SqlReader(written.uri)
        yield reader, written
        reader.close()
        return
    written = request.getfixturevalue("sqlite_written")
    if request.param == "server":
        with opened_server(tmp_path_factory.mktemp("served"), written.uri) as url:
            yield ClientReader(url), written
        return
    reader = SqlReader(written.uri) if request.param == "sql" else ClientReader(written.uri)
    yield reader, written
    reader.close()


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    """
    Names and dtypes of a frame's columns.
    """
    return {name: str(kind) for name, kind in frame.dtypes.items()}


def test_runs_come_back(opened: tuple[Reader, Written]) -> None:
    """Newest first, without the deleted one, with params, tags and latest values."""
    reader, written = opened
    found = reader.runs([written.experiment_id])
    assert dtypes(found.runs) == RUNS
    assert list(found.runs.run_id) == written.run_ids[::-1]
    assert list(found.runs.name) == ["r1", "r0"]
    first = found.runs.set_index("run_id").loc[written.run_ids[0]]
    assert (first.status, first.experiment_id) == ("FINISHED", written.experiment_id)
    assert first.start_time == pd.Timestamp(1000, unit="ms", tz="UTC")
    assert first.end_time == pd.Timestamp(2000, unit="ms", tz="UTC")
    assert found.runs.end_time.isna().sum() == 1
    params = found.params.set_index("run_id").value
    assert dict(params) == {uid: str(n) for n, uid in enumerate(written.run_ids)}
    assert set(found.tags.value[found.tags.key == "ü"]) == {"'\"%"}
    latest = found.metrics[found.metrics.run_id == written.run_ids[0]].set_index("key")
    assert latest.loc["long"].step == ROWS - 1
    assert dtypes(found.metrics) == HISTORY


def test_deleted_runs_come_when_asked_for(opened: tuple[Reader, Written]) -> None:
    """`with_deleted` brings them, and the experiment is found by its name."""
    reader, written = opened
    experiments = reader.experiments()
    (found,) = experiments.experiment_id[experiments.name == "read back"]
    assert found == written.experiment_id
    runs = reader.runs(with_deleted=True).runs
    assert written.deleted in set(runs.run_id[runs.lifecycle == "deleted"])
    assert written.deleted not in set(reader.runs().runs.run_id)


@pytest.mark.parametrize("page_rows", [1, 97, 100_000])
def test_histories_come_back_whole(opened: tuple[Reader, Written], page_rows: int) -> None:
    """Every row once, in pages of the asked size, each key by step and time, NaN and infinities."""
    reader, written = opened
    if page_rows == 1:
        ids, keys = written.run_ids[:1], ["special/0"]
    else:
        ids, keys = written.run_ids, None
    pages = list(reader.history(ids, keys, page_rows=page_rows))
    assert all(len(page) == page_rows for page in pages[:-1])
    assert 0 < len(pages[-1]) <= page_rows
    assert all(dtypes(page) == HISTORY for page in pages)
    frame = pd.concat(pages, ignore_index=True)
    for number, uid in enumerate(ids):
        own = frame[frame.run_id == uid]
        special = own[own.key == f"special/{number}"]
        assert list(special.step) == list(range(len(SPECIAL)))
        assert repr(list(map(float, special.value))) == repr([float(v) for v in SPECIAL])
        if keys is None:
            assert len(own) == ROWS + 1 + len(SPECIAL)
            long = own[own.key == "long"]
            assert list(long.step) == [0, 1, 2, 3, *range(3, ROWS)]
            assert list(long.timestamp_ms[long.step == 3]) == [4999, 5003]


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_tag_finds_exactly_its_runs(opened: tuple[Reader, Written], value: str) -> None:
    """A tag's value finds its own run alone, whatever quotes, wildcards or letters are in it."""
    reader, written = opened
    found = reader.runs([written.tagged_experiment_id], with_tags={"allele.suite": value})
    assert list(found.runs.run_id) == [written.tagged[HOSTILE.index(value)]]
    assert set(found.tags.value[found.tags.key == "allele.suite"]) == {value}


def test_tags_must_all_be_there(opened: tuple[Reader, Written]) -> None:
    """Several tags narrow down, no tags do not, and a value that nobody has finds nothing."""
    reader, written = opened
    ids = [written.tagged_experiment_id]
    kinds = {"allele.kind": "cell"}
    assert list(reader.runs(ids, with_tags=kinds).runs.run_id) == written.tagged[1::2][::-1]
    both = kinds | {"allele.suite": HOSTILE[1]}
    assert list(reader.runs(ids, with_tags=both).runs.run_id) == [written.tagged[1]]
    for wanted in (both | {"allele.suite": HOSTILE[0]}, {"allele.suite": "ÉVOLUTION\n"}):
        found = reader.runs(ids, with_tags=wanted)
        assert [len(frame) for frame in found] == [0, 0, 0, 0]
        assert dtypes(found.metrics) == HISTORY
    assert len(reader.runs(ids, with_tags={}).runs) == len(HOSTILE)


def test_tag_is_there_with_any_value(opened: tuple[Reader, Written]) -> None:
    """Without a value wanted, runs come whose tag says anything; not those whose says nothing."""
    reader, written = opened
    ids = [written.tagged_experiment_id]
    found = reader.runs(ids, with_tags={"allele.uses.m": None}, tag_keys=["allele.uses.m"])
    assert list(found.runs.run_id) == written.tagged[1::3][::-1]
    assert set(found.tags.value) == set(HOSTILE[1::3])
    both = {"allele.uses.m": None, "allele.suite": HOSTILE[4]}
    assert list(reader.runs(ids, with_tags=both).runs.run_id) == [written.tagged[4]]
    assert len(reader.runs(ids, with_tags={"allele.uses.other": None}).runs) == 0


def test_only_asked_keys_come(opened: tuple[Reader, Written]) -> None:
    """Of each run the asked tags, params and metrics; an empty list is none, and None is all."""
    reader, written = opened
    ids = [written.tagged_experiment_id]
    found = reader.runs(ids, tag_keys=["allele.kind", "x"], param_keys=[], metric_keys=["b", "b"])
    assert len(found.runs) == len(found.metrics) == len(found.tags) == len(HOSTILE)
    assert set(found.tags.key) == {"allele.kind"}
    assert set(found.metrics.key) == {"b"}
    assert len(found.params) == 0
    found = reader.runs(ids, tag_keys=[], param_keys=["q"])
    assert len(found.tags) == 0
    assert set(found.params.key) == {"q"}
    assert set(found.metrics.key) == {"a", "b"}
    many = [f"k{number}" for number in range(1000)]
    assert set(reader.runs(ids, metric_keys=["a", *many]).metrics.key) == {"a"}


def test_many_runs_come_whole(
    opened: tuple[Reader, Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that are read in several pieces come as one frame, with everything of each once."""
    monkeypatch.setattr(sql_reader, "_IDS_PER_QUERY", 3)
    monkeypatch.setattr(client_reader, "_SEARCH_PAGE_SIZE", 3)
    reader, written = opened
    found = reader.runs([written.tagged_experiment_id])
    assert list(found.runs.run_id) == written.tagged[::-1]
    for frame in (found.params, found.metrics):
        assert sorted(frame.run_id) == sorted(written.tagged * 2)
        assert list(frame.index) == list(range(len(frame)))
    suites = found.tags[found.tags.key == "allele.suite"].set_index("run_id").value
    assert dict(suites) == dict(zip(written.tagged, HOSTILE, strict=True))


def test_experiment_is_found_by_its_name(opened: tuple[Reader, Written]) -> None:
    """The exact name finds the id; a name that no experiment has finds none."""
    reader, written = opened
    assert reader.experiment_id_of("read back") == written.experiment_id
    assert reader.experiment_id_of("tagged ☃ '\"%") == written.tagged_experiment_id
    for name in ("READ BACK", "read%", "no such experiment"):
        assert reader.experiment_id_of(name) is None


def test_nothing_asked_nothing_found(opened: tuple[Reader, Written]) -> None:
    """No runs, no keys, no experiments: no rows, and the same columns."""
    reader, written = opened
    assert list(reader.history([])) == []
    assert list(reader.history(written.run_ids, [])) == []
    assert list(reader.history(written.run_ids, ["no such key"])) == []
    found = reader.runs([])
    assert len(found.runs) == 0
    assert dtypes(found.runs) == RUNS


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"page_rows": 0}, "page_rows=0: want 1 or more"),
        ({"run_ids": "abc"}, "run_ids='abc': want a list of texts"),
        ({"keys": "loss"}, "keys='loss': want a list of texts"),
    ],
)
def test_bad_request_says_what_is_wanted(
    opened: tuple[Reader, Written], given: dict[str, Any], told: str
) -> None:
    """A size that makes no page and a text for a list are refused at once, before any page."""
    reader, _ = opened
    with pytest.raises(ValueError, match=told):
        reader.history(**({"run_ids": []} | given))
    with pytest.raises(ValueError, match=r"experiment_ids=.*: want ids, as"):
        reader.runs(["the name of one"])
    with pytest.raises(ValueError, match="tag_keys='a': want a list of texts"):
        reader.runs([], tag_keys="a")
    with pytest.raises(ValueError, match=r"with_tags=.*has '`' in it: want letters"):
        reader.runs(with_tags={"a` = ''": "b"})
    with pytest.raises(ValueError, match=r"with_tags=.*: want a value for each key"):
        reader.runs(with_tags=("allele.suite", "evolution"))  # type: ignore[arg-type]  # the promise


def test_long_history_of_a_server_is_paged(
    opened: tuple[Reader, Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a server gives in one answer comes in several, whole."""
    monkeypatch.setattr(client_reader, "SERVER_ROWS", 300)
    reader, written = opened
    frame = pd.concat(reader.history(written.run_ids, ["long"]))
    assert len(frame) == 2 * (ROWS + 1)
    assert not frame.duplicated().any()


def test_open_reader_chooses_by_address(sqlite_written: Written, tmp_path: Path) -> None:
    """SQL where the tables are known, else MLflow's client; a missing file is told of, not made."""
    assert isinstance(open_reader(sqlite_written.uri), SqlReader)
    assert isinstance(open_reader(f"bulk+{sqlite_written.uri}"), SqlReader)
    changed = tmp_path / "changed.db"
    changed.write_bytes(Path(sqlite_written.uri.removeprefix("sqlite:///")).read_bytes())
    with closing(sqlite3.connect(changed)) as connection:
        connection.execute("ALTER TABLE latest_metrics RENAME COLUMN is_nan TO nan")
    assert isinstance(open_reader(f"sqlite:///{changed}"), ClientReader)
    with pytest.raises(TrackingError, match="there is no such database"):
        open_reader(f"sqlite:///{tmp_path / 'missing.db'}")
    assert not (tmp_path / "missing.db").exists()


def test_reader_keeps_no_writer_waiting(sqlite_written: Written) -> None:
    """Between two pages a writer writes, and the reader changes nothing."""
    reader = SqlReader(sqlite_written.uri)
    pages = reader.history(sqlite_written.run_ids, page_rows=10)
    next(pages)
    path = sqlite_written.uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=0.0)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        connection.rollback()
    assert len(next(pages)) == 10
    with pytest.raises(TrackingError, match="readonly"):
        reader._rows("DELETE FROM metrics RETURNING run_uuid")
    reader.close()


@pytest.mark.process
def test_thinned_readings_come_back(station: Station) -> None:
    """All readings of a thinned key, from the run's artifact, in pages."""
    with station.start(sampling="loss: every 100") as log:
        for step in range(1000):
            log.metric("loss", step / 7, step)
    run_id = str(log.close().run_id)
    pages = list(artifact_readings(station.tracking_uri, run_id, page_rows=300))
    assert [len(page) for page in pages] == [300, 300, 300, 100]
    assert all(dtypes(page) == READINGS for page in pages)
    assert pd.concat(pages).value.tolist() == [step / 7 for step in range(1000)]
    with station.start() as log:
        log.metric("loss", 1.0, 1)
    assert list(artifact_readings(station.tracking_uri, str(log.close().run_id))) == []


def test_csv_pages(tmp_path: Path) -> None:
    """The compressed CSV comes back in the same frames, NaN and a key named `nan` included."""
    rows: list[dict[str, Any]] = [
        {"key": "nan", "step": n, "timestamp_ms": n, "value": value}
        for n, value in enumerate(SPECIAL)
    ]
    file = tmp_path / "readings.csv.gz"
    pd.DataFrame(rows).to_csv(file, index=False, na_rep="nan")
    pages = list(reading._pages_of(file, 2))
    assert [len(page) for page in pages] == [2, 2, 1]
    frame = pd.concat(pages)
    assert set(frame.key) == {"nan"}
    assert repr(frame.value.tolist()) == repr([float(v) for v in SPECIAL])


@pytest.mark.parametrize(
    "where", ["local", pytest.param("server", marks=[pytest.mark.server, pytest.mark.process])]
)
def test_artifact_comes_as_bytes(
    where: str, request: pytest.FixtureRequest, sqlite_store: str, tmp_path: Path
) -> None:
    """A small file of a run comes whole; one that is not there is None, a larger one is refused."""
    uri = request.getfixturevalue("mlflow_server") if where == "server" else sqlite_store
    client = mlflow.MlflowClient(uri)
    location = None if where == "server" else (tmp_path / "kept").as_uri()
    experiment_id = client.create_experiment("bytes", location)
    run_id = client.create_run(experiment_id).info.run_id
    assert artifact_bytes(uri, run_id, "allele/environment.json") is None
    file = tmp_path / "environment.json"
    file.write_bytes(content := bytes(range(256)) * 40)
    client.log_artifact(run_id, str(file), "allele")
    client.log_artifact(run_id, str(file))
    for path in ("allele/environment.json", "environment.json"):
        assert artifact_bytes(uri, run_id, path) == content
        assert artifact_bytes(uri, run_id, path, most_bytes=len(content)) == content
        with pytest.raises(PermanentTrackingError, match=r"10,240 bytes: want at most 10,239"):
            artifact_bytes(uri, run_id, path, most_bytes=len(content) - 1)
    for path in ("allele", "allele/other.json", "environment.json/x", "other"):
        assert artifact_bytes(uri, run_id, path) is None
    for path in ("../mlflow.db", "/etc/passwd", ""):
        with pytest.raises(PermanentTrackingError, match="want a relative path"):
            artifact_bytes(uri, run_id, path)
    with pytest.raises(PermanentTrackingError, match="0" * 32):
        artifact_bytes(uri, "0" * 32, "environment.json")


def test_runs_come_by_their_ids(opened: tuple[Reader, Written]) -> None:
    """
    Only the runs that were named come, with all of theirs; ids that are nobody's, or no ids at all,
    find nothing.
    """
    reader, written = opened
    wanted = [written.run_ids[1], written.tagged[0]]
    found = reader.runs(run_ids=[*wanted, "nobody", "' OR '1'='1"])
    assert set(found.runs["run_id"]) == set(wanted)
    assert set(found.params["run_id"]) == set(wanted)
    assert not len(reader.runs(run_ids=[written.deleted]).runs)
    assert not len(reader.runs(run_ids=["' OR '1'='1"]).runs)
    assert not len(reader.runs(run_ids=[]).runs)
    in_other = reader.runs([written.experiment_id], run_ids=wanted)
    assert list(in_other.runs["run_id"]) == [written.run_ids[1]]


@pytest.mark.parametrize("run_ids", ["abc", ["x"] * 501])
def test_bad_ids_are_refused(sqlite_written: Written, run_ids: list[str]) -> None:
    """
    A text in place of a list, or too many, are the caller's mistake.
    """
    with (
        closing(open_reader(sqlite_written.uri)) as reader,
        pytest.raises(ValueError, match="want"),
    ):
        reader.runs(run_ids=run_ids)
