"""
A spooled run with one damaged file, delivered by the sidecar's coroutine: it ends, fails nowhere,
and gives no reading another's name.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import anyio
import pytest

from allele_mlflow.queue import layout, spool
from allele_mlflow.testing import MemoryTracking
from tests.integration.spooled_runs import end_run, log_everything, make_worker, serve, start_run

SEEDS = 10
#: Damage within the first bytes: most of a segment is empty.
REACH = 12_000


def damage(data: bytearray, chance: random.Random) -> None:
    """
    Change some bytes, cut off the rest, or append noise.
    """
    at = chance.randrange(min(len(data), REACH))
    span = len(data[at : at + 64])
    match chance.choice(["flip", "zero", "cut", "noise", "extend"]):
        case "flip":
            data[at] ^= 1 << chance.randrange(8)
        case "zero":
            data[at : at + span] = bytes(span)
        case "cut":
            del data[at:]
        case "noise":
            data[at : at + span] = chance.randbytes(span)
        case _:
            data += chance.randbytes(100)


@pytest.mark.parametrize("name", [layout.EVENT_LOG, layout.STREAM_PAGE, "m-00000000.seg"])
def test_damaged_file_fails_no_run(tmp_path: Path, name: str) -> None:
    """A damaged file fails no run, and readings that were not touched keep name and value."""
    run, writer = start_run(tmp_path / "whole")
    stream_id = writer.stream_id
    log_everything(writer)
    end_run(writer)
    for seed in range(SEEDS):
        copy = tmp_path / str(seed)
        shutil.copytree(tmp_path / "whole", copy)
        target = copy / run.relative_to(tmp_path / "whole")
        file = target / spool.STREAMS / stream_id / name
        data = bytearray(file.read_bytes())
        damage(data, random.Random(f"{name} {seed}"))
        file.write_bytes(data)
        tracking = MemoryTracking()
        worker = make_worker(target, tracking, is_drain=True)
        anyio.run(serve, worker)
        assert not worker.has_gaps, seed
        rows = [row for stored in tracking.runs.values() for row in stored.metrics]
        if not name.startswith("m-"):
            named = [row for row in rows if row.key.startswith("m/")]
            assert all(row.key == f"m/{row.step % 3}" for row in named), seed
            assert all(row.value == row.step for row in named), seed
