"""
What `watch` draws of a look at a run, on terminals of any size.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from allele_mlflow.cli.sparklines import ASCII
from allele_mlflow.cli.watch_frame import Frame, time_text
from allele_mlflow.cli.watch_table import KeyRow, fit, table_lines
from allele_mlflow.clock import now_ns
from allele_mlflow.queue.live import RECORD, LiveKey, LivePhase, LiveView
from allele_mlflow.records import Ledger, RunEnded, RunSpec, RunState
from allele_mlflow.sidecar.worker import SidecarStatus
from allele_mlflow.watching.run_document import document
from allele_mlflow.watching.run_look import RunLook
from allele_mlflow.watching.sidecars import Sidecar

S = 1_000_000_000
NOW = 1_000 * S
ERROR = "open http://server: no route\nto \x1b[2Jhost"


def key_of(*values: float, **more: Any) -> LiveKey:
    """
    A key with these readings.
    """
    readings = (RECORD.pack(step, step * 1000, value) for step, value in enumerate(values))
    return LiveKey(count=len(values), readings=b"".join(readings), **more)


def view_of(keys: dict[str, LiveKey], **more: Any) -> LiveView:
    """
    A view of half a second ago, whose rates are over the last ten seconds.
    """
    values = {"updated_ns": NOW - S // 2, "earlier_ns": NOW - 10 * S} | more
    return LiveView(run_uid="uid", keys=keys, **values)


def look_of(view: LiveView | None, **more: Any) -> RunLook:
    """
    A look at a run that its sidecar serves.
    """
    spec = RunSpec(
        run_uid="uid",
        run_name=more.pop("run_name", "pop-100"),
        experiment="evolution",
        created_ns=NOW - 754 * S,
        profile="p",
        owner_stream="s",
        owner_pid=1,
        offline=more.pop("offline", False),
    )
    ledger = Ledger(delivered={"metric": 12_000}, pending=34, torn=5)
    state = RunState(run_uid="uid", updated_ns=NOW, status="RUNNING", ledger=ledger, lag_s=0.2)
    status = SidecarStatus(
        pid=77, profile="p", updated_ns=now_ns(), started_ns=1, runs=["uid"], cpu_s=1.0
    )
    sidecar = Sidecar(scope=Path("/spool/scope"), profile="p", is_held=True, status=status)
    values: dict[str, Any] = {
        "folder": Path("/spool/scope/runs/uid"),
        "spec": spec,
        "state": state,
        "view": view,
        "ledger": ledger,
        "sidecar": sidecar,
        "is_benchmark_alive": True,
        "is_over": False,
        "at_ns": NOW,
    }
    return RunLook(**(values | more))


def text_of(look: RunLook, width: int = 100, **options: Any) -> str:
    """
    The frame as it stands on a terminal.
    """
    return "\n".join(line.text for line in Frame(width, **options).lines(look))


FULL = view_of(
    {
        "fitness/best": key_of(0.0, 1.0, 2.0, 7.0),
        "loss": key_of(1.0, math.nan, math.inf),
        "system/process_rss_megabytes": key_of(100.0, 200.0, is_resource=True),
        "system/process_cpu_percent": key_of(50.0, is_resource=True),
        "system/disk_usage_percentage": key_of(1.0, is_resource=True),
    },
    open_phases=[
        LivePhase(stream_id="s", instance=1, name="run", begin_ns=NOW - 20 * S),
        LivePhase(stream_id="s", instance=2, name="mutate", begin_ns=NOW - S, step=3),
    ],
    open_count=9,
    closed_phases=[
        LivePhase(
            stream_id="s", instance=i, name="select", begin_ns=i * S, end_ns=2 * i * S, step=i
        )
        for i in (5, 4)
    ],
)


def test_everything_on_a_wide_terminal() -> None:
    """Run, ledger, keys with curves, resources and phases stand where one looks for them."""
    lines = text_of(look_of(FULL)).splitlines()
    assert lines[0] == "evolution · pop-100 · uid"
    assert lines[1] == "RUNNING · 0:12:34 · sidecar 77 alive, 0.0 s of CPU"
    assert lines[2] == "delivered 12,000 · pending 34 · lost 5 · 1,204 records/s"
    table = [line.split() for line in lines[3:8]]
    assert table == [
        ["key", "last", "step", "per", "s", "min", "max"],
        ["fitness/best", "7", "3", "0.4", "0", "7", "▁▂▃█"],
        ["loss", "inf", "2", "0.3", "1", "inf", "▄?↑"],
        ["process_cpu_percent", "50", "0", "0.1", "50", "50", "▄"],
        ["process_rss_megabytes", "200", "1", "0.2", "100", "200", "▁█"],
    ]
    assert lines[8] == "open: mutate (step 3) 500 ms; run 19.5 s; and 7 more"
    assert lines[9:] == ["closed: select (step 5) 5.0 s"]


@pytest.mark.parametrize("width", [1, 2, 5, 11, 24, 40, 79, 200])
@pytest.mark.parametrize("height", [1, 2, 4, 7, 12, 40, None])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_frame_fits_any_terminal(width: int, height: int | None, count: int) -> None:
    """No line is wider than the terminal, and there are no more than it has."""
    keys = {
        f"日本語/{'k' * (i % 90)}/{i}": key_of(*map(float, range(i % 120 + 1)))
        for i in range(count)
    }
    view = view_of(FULL.keys | keys, left_out=3, is_ahead=True, open_phases=FULL.open_phases)
    state = RunState(run_uid="uid", updated_ns=NOW, last_error="error " * 50)
    lines = Frame(width, height=height).lines(look_of(view, state=state, run_name="n" * 300))
    assert lines
    assert max(cell_len(line.text) for line in lines) <= width
    assert height is None or len(lines) <= height


def test_what_does_not_fit_is_counted() -> None:
    """Of more keys than lines the first come are shown, and the number of the others."""
    view = view_of({f"k{i}": key_of(1.0) for i in range(500)}, left_out=12)
    lines = text_of(look_of(view), height=24).splitlines()
    assert len(lines) == 24
    shown = [
        line.split()[0] for line in lines if line.startswith("k") and not line.startswith("key")
    ]
    assert shown == [f"k{i}" for i in range(len(shown))]
    assert f"and {500 - len(shown)} more keys; --keys GLOB chooses" in lines
    assert "12 keys past 500 are left out" in lines
    assert "more keys" not in text_of(look_of(view))


def test_globs_choose_keys() -> None:
    """With globs only what fits one is shown, resources too; where nothing fits, that is said."""
    text = text_of(look_of(FULL), globs=("fit*", "*/disk*"))
    assert "fitness/best" in text
    assert "disk_usage" in text
    assert "loss" not in text
    assert "rss" not in text
    assert "no key fits no*" in text_of(look_of(FULL), globs=("no*",))


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"offline": True}, "offline; delivered by: allele-mlflow sync --tracking-uri URI /spool"),
        ({}, "the benchmark starts a sidecar at its next phase"),
        ({"is_benchmark_alive": False}, "left alone; delivered by: allele-mlflow sync /spool"),
    ],
)
def test_run_without_a_sidecar_says_how_to_get_one(more: dict[str, Any], wanted: str) -> None:
    """Where nobody serves a run, the frame says so, and what can be done."""
    text = text_of(look_of(FULL, sidecar=None, **more))
    assert "no sidecar" in text
    assert wanted in text
    assert "- records/s" in text  # what nobody tells is no zero
    assert " 0.4 " not in text


def test_run_that_nobody_has_looked_at() -> None:
    """A run without a state and without readings is shown with what is known."""
    text = text_of(look_of(None, state=None, ledger=Ledger()))
    assert "WAITING" in text
    assert "no readings yet" in text


def test_ended_run_has_no_rates() -> None:
    """The clock of a run stops at its end, and nothing is a second any more."""
    end = RunEnded(timestamp_ns=NOW - 700 * S, status="FAILED", slots={})
    state = RunState(run_uid="uid", updated_ns=NOW, status="FAILED", end=end, done=True)
    lines = text_of(look_of(FULL, state=state, is_over=True)).splitlines()
    assert lines[1] == "FAILED · 54.0 s"
    assert "records/s" not in lines[2]
    assert "0.4" not in "\n".join(lines)


def test_lag_and_errors_are_told() -> None:
    """A lag counts on where the sidecar is silent, and the store's last words are one line."""
    state = RunState(run_uid="uid", updated_ns=NOW - 60 * S, lag_s=5.0, last_error=ERROR)
    text = text_of(look_of(FULL, state=state))
    assert "lag 0:01:05" in text
    assert r"last error: open http://server: no route to \x1b[2Jhost" in text
    assert "- records/s" in text


def test_names_move_no_cursor() -> None:
    """Escapes and markup in names, keys and phases are text."""
    nasty = "a\x1b[2J\n[bold]b"
    phase = LivePhase(stream_id="s", instance=1, name=nasty, begin_ns=1)
    view = view_of({nasty: key_of(1.0)}, open_phases=[phase], open_count=1)
    text = text_of(look_of(view, run_name=nasty), width=300)
    assert "\x1b" not in text
    assert text.count(r"a\x1b[2J [bold]b") == 3


def test_frame_in_ascii() -> None:
    """Where the encoding has nothing else, a frame is ASCII."""
    assert text_of(look_of(FULL), width=30, glyphs=ASCII).isascii()


def test_curve_takes_the_room_that_is_left() -> None:
    """Numbers and key give way to each other in an order, and the newest value stays."""
    row = KeyRow("fitness/best", [float(i) for i in range(120)], step=5, per_s=1234.5)
    heads = {width: table_lines([row], width)[0].split() for width in (20, 38, 60, 120)}
    assert heads[20] == ["key", "last"]
    assert heads[38] == ["key", "last", "step"]
    assert heads[60] == ["key", "last", "step", "per", "s", "min", "max"]
    assert "119" in table_lines([row], 20)[1]
    assert "1,234" in table_lines([row], 120)[1]
    assert "█" in table_lines([row], 38)[1]
    assert table_lines([], 80) == []


@pytest.mark.parametrize(
    ("text", "width", "wanted"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("abcd", 0, ""),
        ("日本語", 5, "日本…"),
        ("日本", 2, "…"),
    ],
)
def test_fitting(text: str, width: int, wanted: str) -> None:
    """A text that is cut ends with a mark, and wide characters are two cells."""
    assert fit(text, width) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.0, "0 ms"),
        (0.25, "250 ms"),
        (1.0, "1.0 s"),
        (59.94, "59.9 s"),
        (61.0, "0:01:01"),
        (90061.0, "1 d 1:01:01"),
    ],
)
def test_lengths_of_time(seconds: float, wanted: str) -> None:
    """A length of time is short and has a unit."""
    assert time_text(seconds) == wanted


def test_document_keeps_odd_numbers() -> None:
    """JSON has no NaN: odd values are texts, and what is not known is null."""
    found = document(look_of(FULL))
    keys = {key["key"]: key for key in found["keys"]}
    assert keys["loss"]["value"] == "Infinity"
    assert [value for _, _, value in keys["loss"]["window"]] == [1.0, "NaN", "Infinity"]
    assert (keys["loss"]["min"], keys["loss"]["max"]) == (1.0, "Infinity")
    assert keys["system/process_cpu_percent"]["resource"]
    assert [phase["name"] for phase in found["phases"]["open"]] == ["run", "mutate"]
    unknown = document(look_of(FULL, sidecar=None))
    assert {key["per_s"] for key in unknown["keys"]} == {None}
    assert (unknown["records_per_s"], unknown["lag_s"]) == (None, None)
    assert [key["key"] for key in document(look_of(FULL), ["l*"])["keys"]] == ["loss"]
    assert document(None) == {"run": None}
