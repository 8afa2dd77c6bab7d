"""
Each kind of artifact, fetched back byte for byte from SQLite and from a server that passes
artifacts through.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allele_mlflow import AlleleMlflowWarning, DeliveryReport, RunLogger
from allele_mlflow.queue import spool
from allele_mlflow.records import canonical_json
from allele_mlflow.testing import assert_ledger_balanced
from tests.integration.runs import KeptRun, Station, our_warnings

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]  # a server starts in the first one

NAMES = ["with space.txt", "ünïcödé-文.txt", "a+b=c,d;e@f&g.txt"]
BLOB = bytes(range(256)) * 5000
FRAME = pd.DataFrame({"step": [1, 2], "loss": [0.5, None], "name": ["é", "b,c"]})


class Genome:
    """
    As much of a genome as a logger meets.
    """

    def to_dict(self) -> dict[str, Any]:
        return {"traits": np.array([0.25, 0.75]), "generation": np.int64(3)}


def log_all(log: RunLogger, folder: Path) -> dict[str, bytes | None]:
    """
    Log every kind of artifact, and destroy the sources at once.

    Returns:
        The bytes expected at each artifact path; None where the test knows better.
    """
    expected: dict[str, bytes | None] = {}
    blob = folder / "blob.bin"
    blob.write_bytes(BLOB)
    log.artifact(blob)
    blob.write_bytes(b"changed")
    log.artifact(str(blob), "in/folder")
    blob.unlink()
    expected |= {"blob.bin": BLOB, "in/folder/blob.bin": b"changed"}

    tree = folder / "tree"
    (tree / "dé p").mkdir(parents=True)
    for name, data in (("empty", b""), ("dé p/ê.bin", b"deep")):
        (tree / name).write_bytes(data)
        expected[f"tree/{name}"] = data
    log.artifact(tree)
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    for name in NAMES:
        log.text(f"text é {name}", f"texts/{name}")
        expected[f"texts/{name}"] = f"text é {name}".encode()
    log.json(
        {
            "array": np.arange(3),
            "scalar": np.float32(0.5),
            "when": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
            "day": date(2024, 5, 6),
            "where": Path("/tmp/x"),
            "genome": Genome(),
        },
        "data.json",
    )
    log.table(FRAME, "tables/frame.csv")
    log.table(FRAME, "tables/frame.json")
    log.table({"a": [1, 2], "b": ["x", "é"]}, "tables/columns.csv")
    log.table({"a": [1, 2], "b": ["x", "é"]}, "tables/columns.json")
    expected |= dict.fromkeys(
        ["data.json", "tables/frame.csv", "tables/frame.json", "tables/columns.json"]
    )
    expected["tables/columns.csv"] = "a,b\r\n1,x\r\n2,é\r\n".encode()
    expected |= log_figures(log)
    identity = log.genome(Genome(), "best")
    assert log.genome(Genome()) == identity
    expected[f"genomes/{str(identity)[:16]}.json"] = None
    return expected


def log_figures(log: RunLogger) -> dict[str, bytes | None]:
    import matplotlib as mpl
    import plotly.graph_objects

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.plot([1, 2, 3])
    log.figure(figure, "plots/lines.png")
    log.figure(figure, "plots/lines.svg")
    pyplot.close(figure)
    chart = plotly.graph_objects.Figure(data=[{"y": [1, 2, 3]}])
    log.figure(chart, "plots/chart.html")
    log.figure(chart, "plots/chart.json")
    chart.update_layout(title="changed afterwards")
    names = ("lines.png", "lines.svg", "chart.html", "chart.json")
    return {f"plots/{name}": None for name in names}


@dataclass(frozen=True)
class Kept:
    """
    What the test knows of a run with all artifacts, and where it is kept.
    """

    station: Station
    report: DeliveryReport
    run: KeptRun
    expected: dict[str, bytes | None]
    folder: Path

    def read(self, path: str) -> bytes:
        return self.run.artifact(path, self.folder / hashlib.sha256(path.encode()).hexdigest())


@pytest.fixture(scope="module", params=["sqlite", pytest.param("server", marks=pytest.mark.server)])
def kept(
    request: pytest.FixtureRequest, station: Station, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    """
    A run with every kind of artifact, on both kinds of store.
    """
    folder = tmp_path_factory.mktemp("artifacts")
    more: dict[str, Any] = {}
    if request.param == "server":
        station = Station(folder, request.getfixturevalue("mlflow_server"))
        more["artifact_location"] = None
    log = station.start("artifacts", **more)
    expected = log_all(log, folder)
    report = log.close()
    yield Kept(station, report, station.kept(str(report.run_id)), expected, folder)
    if request.param == "server":
        station.stop()


def test_every_artifact_comes_back(kept: Kept) -> None:
    """
    All are there, none beside them but ours, and the bytes are those of the moment of the call.
    """
    ours = {path for path in kept.run.artifacts if path.startswith("allele/")}
    assert kept.run.artifacts - ours == set(kept.expected)
    for path, data in kept.expected.items():
        if data is not None:
            found = kept.read(path)
            assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest(), path


def test_ledger_counts_each_file(kept: Kept) -> None:
    """
    Each file of a folder is a record; a genome that was kept already is none.
    """
    ledger = kept.report.ledger
    assert ledger.delivered == {"artifact": len(kept.expected), "tag": 1}
    assert_ledger_balanced(ledger, accepted=len(kept.expected) + 1)
    assert not ledger.lost


def test_json_understands_what_benchmarks_have(kept: Kept) -> None:
    """
    Arrays, NumPy scalars, dates, paths and things with `to_dict` are plain JSON.
    """
    assert json.loads(kept.read("data.json")) == {
        "array": [0, 1, 2],
        "scalar": 0.5,
        "when": "2024-05-06T07:08:09Z",
        "day": "2024-05-06",
        "where": "/tmp/x",
        "genome": {"traits": [0.25, 0.75], "generation": 3},
    }


def test_tables_can_be_loaded(kept: Kept) -> None:
    """
    CSV reads back as the same frame, JSON is what MLflow's own `load_table` reads.
    """
    path = kept.folder / "frame.csv"
    path.write_bytes(kept.read("tables/frame.csv"))
    pd.testing.assert_frame_equal(pd.read_csv(path), FRAME, check_dtype=False)
    assert json.loads(kept.read("tables/frame.json")) == {
        "columns": ["step", "loss", "name"],
        "data": [[1, 0.5, "é"], [2, None, "b,c"]],
    }
    assert json.loads(kept.read("tables/columns.json")) == {
        "columns": ["a", "b"],
        "data": [[1, "x"], [2, "é"]],
    }


def test_figures_are_in_their_formats(kept: Kept) -> None:
    """
    Figures of matplotlib and plotly are written in the format that the name says.
    """
    assert kept.read("plots/lines.png").startswith(b"\x89PNG\r\n")
    assert b"<svg" in kept.read("plots/lines.svg")
    html = kept.read("plots/chart.html")
    assert b"plotly" in html
    chart = json.loads(kept.read("plots/chart.json"))
    assert chart["data"][0]["y"] == [1, 2, 3]
    assert b"changed afterwards" not in html


def test_genome_stands_under_its_hash(kept: Kept) -> None:
    """
    The genome's artifact has the content hash for a name, and a tag points to it.
    """
    (path,) = (path for path in kept.expected if path.startswith("genomes/"))
    plain = json.loads(kept.read(path))
    assert plain == {"traits": [0.25, 0.75], "generation": 3}
    identity = hashlib.sha256(canonical_json(plain)).hexdigest()
    assert path == f"genomes/{identity[:16]}.json"
    assert kept.run.tags["allele.genome.best"] == identity


def test_spool_keeps_nothing_of_it(kept: Kept) -> None:
    """
    What was delivered takes no room in the spool any more.
    """
    kept.station.finished(kept.report.run_uid)
    done = kept.station.scope / "done" / kept.report.run_uid
    assert not (done / spool.ARTIFACTS).exists()
    assert not list(done.rglob("*.bin"))


def change_size(path: Path) -> None:
    path.write_bytes(b"other")


def change_bytes(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(before + 1, before + 1))


@pytest.mark.parametrize("change", [change_size, change_bytes, Path.unlink])
def test_large_file_must_stay_as_it_is(
    station: Station, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """
    Above ARTIFACT_COPY_MAX_BYTES a file is queued by path; one that changed is set aside, said so.
    """
    same, changed, copied = (tmp_path / name for name in ("same", "changed", "copied"))
    for path in (same, changed, copied):
        path.write_bytes(b"x" * 2000)
    with station.start(artifact_copy_max_bytes=1000, delivery="quiet") as log:
        log.artifact(same)
        log.artifact(changed)
        log.artifact(copied, copy=True)
        change(changed)
        change(copied)
        log.metric("after", 1.0, 0)
    report = log.close()
    assert_ledger_balanced(report.ledger, accepted=4)
    assert report.ledger.delivered == {"artifact": 2, "metric": 1}
    assert report.ledger.rejected == {"artifact_changed": 1}
    run = station.kept(str(report.run_id))
    for name in ("same", "copied"):
        assert run.artifact(name, tmp_path / "back" / name) == b"x" * 2000
    assert "changed" not in run.artifacts
    (letter,) = run.dead_letters(tmp_path / "letters")
    assert "has changed or gone since" in letter["wanted"]
    assert letter["record"]["artifact_path"] == "changed"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_pipes_and_devices_are_refused_at_once(
    offline: Station, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """
    What has no end, or no beginning, is set aside; the call does not wait for it.
    """
    make(tmp_path / "odd")
    log = offline.start()
    with pytest.warns(AlleleMlflowWarning, match="want a file or folder, got something else"):
        log.artifact(tmp_path / "odd")  # the test's time limit is the bound
    assert log.close().ledger.rejected == {"bad_artifact": 1}


def test_missing_and_unnameable_files_are_set_aside(offline: Station, tmp_path: Path) -> None:
    """
    A path that is not there, or whose name is no text, is told of and spoils nothing.
    """
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"x")
    log = offline.start()
    with our_warnings() as said:
        log.artifact(tmp_path / "nowhere")
        log.artifact(folder)
        log.artifact(folder / "good", "../up")
        log.artifact(17)  # type: ignore[arg-type]
    assert len(said) == 4
    text = "\n".join(said)
    assert "want a file or folder that exists" in text
    assert "want a path of UTF-8 text" in text
    assert "want a relative path" in text
    report = log.close()
    assert report.ledger.rejected == {"bad_artifact": 4}
    assert_ledger_balanced(report.ledger, accepted=5)
