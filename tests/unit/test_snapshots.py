"""
Copies into the spool: whole, private, and of the moment of the call.
"""

from __future__ import annotations

import enum
import json
import math
import os
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from allele_mlflow import snapshots
from allele_mlflow.queue import spool
from allele_mlflow.snapshots import Unusable

UNLIMITED = 1 << 62


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    The artifact folder of a run; not made yet.
    """
    return tmp_path / "artifacts"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """
    A file of the user's.
    """
    path = tmp_path / "source.bin"
    path.write_bytes(bytes(range(256)) * 100)
    return path


# --- files ----------------------------------------------------------------------------------------


def test_file_is_copied(source: Path, folder: Path) -> None:
    """
    The copy has the bytes of the moment, whatever becomes of the file.
    """
    data = source.read_bytes()
    taken = snapshots.snapshot_file(source, folder, copy_max_bytes=UNLIMITED)
    source.write_bytes(b"changed")
    assert (folder / taken.source).read_bytes() == data
    assert taken.copied
    assert taken.size_bytes == len(data)


def test_copies_are_private_and_never_collide(source: Path, folder: Path) -> None:
    """
    The folder lets nobody in; the copy keeps the file's mode, which MLflow's store hands on; and
    three copies of one file are three files.
    """
    source.chmod(0o644)
    names = {
        snapshots.snapshot_file(source, folder, copy_max_bytes=UNLIMITED).source for _ in range(3)
    }
    assert {path.name for path in folder.iterdir()} == names
    assert len(names) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names} == {0o644}
    taken = snapshots.snapshot_bytes(b"x", "x", folder)
    mode = stat.S_IMODE((folder / taken.source).stat().st_mode)
    assert mode == 0o666 & ~spool.user_umask(), "as MLflow's own text artifacts"


@pytest.mark.parametrize(("over", "is_copied"), [(0, True), (1, False)])
def test_large_file_is_only_noted(
    source: Path, folder: Path, over: int, is_copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Above the limit, and not at it, a file is noted by absolute path, size and time.
    """
    monkeypatch.chdir(source.parent)
    found = source.stat()
    taken = snapshots.snapshot_file(Path(source.name), folder, copy_max_bytes=found.st_size - over)
    assert taken.copied is is_copied
    assert (taken.size_bytes, taken.mtime_ns) == (found.st_size, found.st_mtime_ns)
    if not is_copied:
        assert taken.source == str(source)
        assert not folder.exists()


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, ".", "a b\n"])
def test_any_file_name_can_be_copied(source: Path, folder: Path, name: str) -> None:
    """
    A name at the file system's limit does not become longer than that in the spool.
    """
    taken = snapshots.snapshot_bytes(b"x", name, folder)
    assert (folder / taken.source).read_bytes() == b"x"
    if name != ".":
        renamed = source.rename(source.with_name(name))
        taken = snapshots.snapshot_file(renamed, folder, copy_max_bytes=UNLIMITED)
        assert (folder / taken.source).is_file()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [make_pipe, make_device_link, make_dangling_link, Path.mkdir])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, folder: Path, make: Callable[[Path], None]
) -> None:
    """
    Neither a pipe nor a device is waited for; nothing stays in the spool.
    """
    path = tmp_path / "odd"
    make(path)
    with pytest.raises(Unusable, match="want a file"):
        snapshots.snapshot_file(path, folder, copy_max_bytes=UNLIMITED)
    assert not folder.exists()


def test_no_room_is_an_os_error_and_leaves_nothing(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A full disk is the spool's fault and not the file's; a part of a copy is removed.
    """

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    monkeypatch.setattr("fcntl.ioctl", full)
    with pytest.raises(OSError, match="No space left"):
        snapshots.snapshot_file(source, folder, copy_max_bytes=UNLIMITED)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space left"):
        snapshots.snapshot_bytes(b"x", "a", folder)
    assert list(folder.iterdir()) == []


def test_no_descriptor_is_left_open(source: Path, folder: Path) -> None:
    """
    Copying, noting and refusing close what they opened.
    """
    before = len(os.listdir("/dev/fd"))
    for limit in (UNLIMITED, 0):
        snapshots.snapshot_file(source, folder, copy_max_bytes=limit)
    with pytest.raises(Unusable):
        snapshots.snapshot_file(source / "below", folder, copy_max_bytes=UNLIMITED)
    assert len(os.listdir("/dev/fd")) == before


def test_find_files(tmp_path: Path) -> None:
    """
    A file is itself; a folder all its files below its own name, in order, links to files too; what
    cannot be kept is named with its reason.
    """
    tree = tmp_path / "tree"
    (tree / "b" / "c").mkdir(parents=True)
    (tree / "spool").mkdir()
    for name in ("z.txt", "b/a.txt", "b/c/é.txt", ".hidden", "spool/x"):
        (tree / name).write_bytes(b"")
    (tree / "link").symlink_to("z.txt")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "round").symlink_to("b")
    os.mkfifo(tree / "pipe")
    found = snapshots.find_files(tree, leaving_out=tree / "spool")
    assert [one.name for one in found if one.problem is None] == [
        *("tree/.hidden", "tree/b/a.txt", "tree/b/c/é.txt", "tree/link", "tree/z.txt")
    ]
    assert [one.name for one in found if one.problem] == [
        "tree/dangling",
        "tree/pipe",
        "tree/round",
    ]
    assert all(one.path == tmp_path / one.name for one in found)
    alone = snapshots.find_files(tree / "z.txt", leaving_out=None)
    assert alone == [snapshots.FoundFile(tree / "z.txt", "z.txt")]
    (tmp_path / "alias").symlink_to("tree/b")
    names = [one.name for one in snapshots.find_files(tmp_path / "alias", leaving_out=None)]
    assert names == ["alias/a.txt", "alias/c/é.txt"]
    for wrong in (tree / "nowhere", ""):
        with pytest.raises(Unusable, match="want a file or folder"):
            snapshots.find_files(wrong, leaving_out=None)


def test_clashing_paths_are_found() -> None:
    """
    A path that is a folder's already, or lies in what is a file, is told of before it blocks.
    """
    paths = snapshots.ArtifactPaths()
    for good in ("report", "plots/a/b.png", "plots/a/c.png", "report"):
        assert paths.clash(good) is None
        paths.add(good)
    assert "'report' is a file" in str(paths.clash("report/page1.txt"))
    assert "'plots/a' is a folder" in str(paths.clash("plots/a"))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("", "want the artifact's path"),
        (7, "want the artifact's path"),
        ("a//b", "want a relative path"),
        ("../a", "want a relative path"),
        ("a\x00", "want a relative path"),
        ("x" * 256, "at most 255 bytes"),
        ("é" * 128, "at most 255 bytes"),
        ("a/\udc80", "want a path of UTF-8 text"),
    ],
)
def test_bad_artifact_paths_say_what_is_wanted(path: object, wanted: str) -> None:
    """
    A path that no store could keep under that name is refused with the rule that it breaks.
    """
    assert wanted in str(snapshots.artifact_problem(path))
    assert snapshots.artifact_problem("plots/" + "x" * 255) is None


def test_long_key_has_a_file_name() -> None:
    """
    A param's key becomes its file's path, or where that is too long, a hash of it.
    """
    assert snapshots.file_name_for("prompt/system") == "prompt/system"
    long = snapshots.file_name_for("é" * 130)
    assert len(long) == 32
    assert long != snapshots.file_name_for("é" * 131)


# --- JSON and genomes -----------------------------------------------------------------------------


class Colour(enum.Enum):
    """
    An enumeration.
    """

    RED = "red"


class Genome:
    """
    Something with `to_dict`, and a list that changes.
    """

    def __init__(self) -> None:
        self.traits = [0.5, np.float64(0.25)]

    def to_dict(self) -> dict[str, Any]:
        return {"traits": self.traits}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (pd.DataFrame({"a": [1]}), {"a": {"0": 1}}),
        (pd.Timestamp("2024-05-06T07:08:09"), "2024-05-06T07:08:09"),
        (datetime(2024, 5, 6, tzinfo=UTC), "2024-05-06T00:00:00Z"),
        (date(2024, 5, 6), "2024-05-06"),
        (timedelta(seconds=90), "PT90S"),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        ({3, 1} - {1}, [3]),
        ({1: "int key"}, {"1": "int key"}),
        (Genome(), {"traits": [0.5, 0.25]}),
        ({"deep": [Genome()]}, {"deep": [{"traits": [0.5, 0.25]}]}),
        (math.nan, None),
        ((1, 2), [1, 2]),
    ],
    ids=[f"value {number}" for number in range(17)],
)
def test_json_of_what_benchmarks_have(value: object, plain: object) -> None:
    """
    What a benchmark holds becomes plain JSON, indented for people.
    """
    data = snapshots.encode_json(value)
    assert json.loads(data) == plain
    assert (b"\n" in data) == isinstance(plain, dict | list)


class Endless:
    """
    Never becomes plain.
    """

    def to_dict(self) -> object:
        return self


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [object(), {(1, 2): 3}, 1j, Endless(), circle(), lambda: 0, "\ud800", {"a": Exception("x")}],
    ids=["object", "tuple key", "complex", "endless", "circle", "function", "surrogate", "inside"],
)
def test_what_json_does_not_know_is_said(value: object) -> None:
    """
    It is one kind of error, whatever the encoder's reason.
    """
    with pytest.raises(Unusable, match="want something JSON knows"):
        snapshots.encode_json(value)


def test_genome_is_copied_deeply() -> None:
    """
    What happens to the genome afterwards does not happen to the copy.
    """
    genome = Genome()
    plain = snapshots.plain_genome(genome)
    genome.traits.append(1.0)
    assert plain == {"traits": [0.5, 0.25]}
    given = {"a": [1]}
    copy = snapshots.plain_genome(given)
    given["a"].append(2)
    assert copy == {"a": [1]}


# --- tables and figures ---------------------------------------------------------------------------


def test_table_formats() -> None:
    """
    CSV without the index; JSON as MLflow's `log_table` writes it; columns as a mapping too.
    """
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[7, 8])
    assert snapshots.encode_table(frame, "t.csv") == b"a,b\n1,x\n2,\n"
    expected = {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]}
    assert json.loads(snapshots.encode_table(frame, "deep/T.JSON")) == expected
    columns = {"a": [1, 2], "b": np.array([0.5, 1.5])}
    assert snapshots.encode_table(columns, "t.csv") == b"a,b\r\n1,0.5\r\n2,1.5\r\n"
    assert json.loads(snapshots.encode_table(columns, "t.json")) == {
        "columns": ["a", "b"],
        "data": [[1, 0.5], [2, 1.5]],
    }


@pytest.mark.parametrize(
    ("table", "name", "wanted"),
    [
        ({"a": [1]}, "t.xlsx", "want a name that ends in one of .csv, .json, .parquet"),
        ({"a": [1]}, "t", "want a name that ends"),
        ({"a": [1], "b": [1, 2]}, "t.csv", "want columns of equal length"),
        ({"a": 1}, "t.csv", "want columns of equal length"),
        ({"a": [1]}, "t.parquet", "want a pandas DataFrame for .parquet"),
        ([[1]], "t.csv", "want a pandas DataFrame or a mapping of columns, got list"),
        (None, "t.json", "want a pandas DataFrame or a mapping of columns, got NoneType"),
    ],
)
def test_bad_table_says_what_is_wanted(table: object, name: str, wanted: str) -> None:
    """
    A name without a format, ragged columns, no table at all: each has its own words.
    """
    with pytest.raises(Unusable, match=wanted):
        snapshots.encode_table(table, name)


class Drawing:
    """
    As much of a matplotlib figure as is asked for.
    """

    def savefig(self, file: Any, *, format: str) -> None:
        if format == "doc":
            raise ValueError("Format 'doc' is not supported")
        file.write(format.encode())


@pytest.mark.parametrize(("name", "data"), [("a.png", b"png"), ("b/a.SVG", b"svg"), ("a", b"png")])
def test_figure_is_drawn_in_the_format_of_its_name(name: str, data: bytes) -> None:
    """
    The suffix decides; without one it is a PNG.
    """
    assert snapshots.encode_figure(Drawing(), name) == data


def test_bad_figure_says_what_is_wanted() -> None:
    """
    Neither library's figure, or a format that it cannot draw.
    """
    with pytest.raises(Unusable, match=r"written as \.doc: Format 'doc' is not supported"):
        snapshots.encode_figure(Drawing(), "a.doc")
    with pytest.raises(Unusable, match="want a matplotlib or plotly figure, got int"):
        snapshots.encode_figure(3, "a.png")
