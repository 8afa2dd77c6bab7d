"""
What `allele-mlflow watch` shows of one look at a run, as lines for a terminal of some size. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from allele_mlflow.cli.output import shown
from allele_mlflow.cli.sparklines import UNICODE, Glyphs
from allele_mlflow.cli.watch_table import KeyRow, fit, rate_text, table_lines
from allele_mlflow.queue.live import KEPT_KEYS, LivePhase, LiveView
from allele_mlflow.records import SEVERITIES
from allele_mlflow.watching.run_document import chosen_keys
from allele_mlflow.watching.run_look import RunLook

#: Resources that are shown beside the keys, in this order.
RESOURCES = re.compile(
    r"system/(process_cpu_percent|process_rss_megabytes|gpu_\d+_utilization_percentage"
    r"|gpu_\d+_memory_usage_megabytes|cgroup_memory_megabytes)"
)
MOST_RESOURCES = 8
SHOWN_PHASES = 4
#: Fewer lines than this are no table of keys.
LEAST_TABLE = 4
SHORTEST_LAG_S = 1.0
STYLES = {"RUNNING": "green", "FINISHED": "bold green", "FAILED": "bold red", "KILLED": "bold red"}


class Line(NamedTuple):
    """
    A line of a frame and how it looks where there are colours.
    """

    text: str
    style: str = ""


@dataclass(frozen=True)
class Frame:
    """
    How a run is shown.

    Args:
        width: Columns of the terminal.
        height: Its lines; None for as many as there are.
        globs: Of keys that are shown; none for all but resources.
        glyphs: What the terminal's encoding can show.
        show: Makes a user's text fit for the terminal.
    """

    width: int
    height: int | None = None
    globs: tuple[str, ...] = ()
    glyphs: Glyphs = UNICODE
    show: Callable[[str], str] = shown

    def lines(self, look: RunLook) -> list[Line]:
        """
        The lines, none wider than the terminal, and no more than it has.
        """
        head, phases = self._head(look), self._phases(look)
        if self.height is None:
            table = self._table(look, None)
        else:
            phases = phases[: max(0, self.height - len(head) - LEAST_TABLE)]
            table = self._table(look, max(0, self.height - len(head) - len(phases)))
        lines = [*head, *table, *phases][: self.height]
        return [Line(fit(text, self.width, self.glyphs), style) for text, style in lines]

    # --- what and how it is ---------------------------------------------------------------------

    def _head(self, look: RunLook) -> list[Line]:
        dot = f" {self.glyphs.dot} "
        spec = look.spec
        name = f"{spec.run_name}{dot}{spec.run_uid}" if spec.run_name else spec.run_uid
        where = f"{self.show(spec.experiment)}{dot}{self.show(name)}"
        status = [look.status, time_text(look.elapsed_s), *self._sidecar(look)]
        lines = [
            Line(where, "bold"),
            Line(dot.join(status), STYLES.get(look.status, "")),
            Line(dot.join(self._counts(look))),
        ]
        if look.state is not None and look.state.last_error:
            lines.append(Line(f"last error: {self.show(look.state.last_error)}", "red"))
        lines += self._alerts(look)
        hint = self._hint(look)
        return [*lines, Line(hint, "yellow")] if hint else lines

    def _alerts(self, look: RunLook) -> list[Line]:
        state = look.state
        if state is None or not state.last_alert:
            return []
        found = state.alert_counts
        counts = [f"{found[one]:,} {one}" for one in reversed(SEVERITIES) if found.get(one)]
        text = f"alerts: {', '.join(counts)}; last {self.show(state.last_alert)}"
        return [Line(text, "yellow")]

    def _sidecar(self, look: RunLook) -> list[str]:
        if look.is_over:
            return []
        if look.sidecar is None or not look.sidecar.is_held:
            return ["no sidecar"]
        cpu = f", {look.state.sidecar_cpu_s:,.1f} s of CPU" if look.state is not None else ""
        return [f"sidecar {look.sidecar.pid or '?'} {look.sidecar.health}{cpu}"]

    def _counts(self, look: RunLook) -> list[str]:
        ledger = look.ledger
        counts = [
            f"delivered {sum(ledger.delivered.values()):,}",
            f"pending {ledger.pending:,}",
            f"lost {ledger.lost:,}",
        ]
        if not look.is_over:
            counts.append(f"{rate_text(look.records_per_s)} records/s")
        if look.lag_s is not None and look.lag_s >= SHORTEST_LAG_S:
            counts.append(f"lag {time_text(look.lag_s)}")
        return counts

    def _hint(self, look: RunLook) -> str | None:
        if look.is_over or look.is_served:
            return None
        place = self.show(shlex.quote(str(look.folder.parents[2])))
        if look.spec.offline:
            return f"offline; delivered by: allele-mlflow sync --tracking-uri URI {place}"
        if look.is_benchmark_alive:
            return "the benchmark starts a sidecar at its next phase, param, artifact or flush"
        return f"left alone; delivered by: allele-mlflow sync {place}"

    # --- keys and resources ---------------------------------------------------------------------

    def _table(self, look: RunLook, height: int | None) -> list[Line]:
        view = look.view
        if view is None or not view.keys:
            return [Line("no readings yet", "dim")][:height]
        names = chosen_keys(view, self.globs)
        resources = [] if self.globs else shown_resources(view)
        notes = self._notes(view)
        if not (names or resources):
            notes = [Line("no key fits " + " ".join(map(self.show, self.globs)), "yellow"), *notes]
        left_out = 0
        if height is not None:
            resources = resources[: max(0, height - LEAST_TABLE - len(notes))]
            room = max(0, height - 1 - len(notes) - len(resources))
            if len(names) > room:
                left_out = len(names) - max(0, room - 1)
        if left_out:
            names = names[: len(names) - left_out]
            notes = [Line(f"and {left_out:,} more keys; --keys GLOB chooses", "dim"), *notes]
        rows = [self._row(look, view, name) for name in (*names, *resources)]
        head, *lines = map(Line, table_lines(rows, self.width, self.glyphs) or [""])
        table = [head._replace(style="dim"), *lines[: len(names)], *notes, *lines[len(names) :]]
        return table[:height] if rows else notes[:height]

    def _notes(self, view: LiveView) -> list[Line]:
        notes = []
        if view.is_ahead:
            notes.append(Line("read ahead of what waits: there may be gaps", "dim"))
        if view.left_out:
            notes.append(Line(f"{view.left_out:,} keys past {KEPT_KEYS} are left out", "dim"))
        return notes

    def _row(self, look: RunLook, view: LiveView, key: str) -> KeyRow:
        window = view.window(key)
        return KeyRow(
            self.show(key.removeprefix("system/") if view.keys[key].is_resource else key),
            [point.value for point in window],
            step=window[-1].step,
            per_s=look.rate_per_s(key),
        )

    # --- phases ---------------------------------------------------------------------------------

    def _phases(self, look: RunLook) -> list[Line]:
        view, lines = look.view, []
        if view is not None and view.open_phases:
            opened = list(reversed(view.open_phases))
            lines.append(self._phase_line("open", opened, view.open_count, look.phases_at_ns))
        if view is not None and view.closed_phases:
            by_end = sorted(view.closed_phases, key=lambda phase: phase.end_ns or 0)
            # of each name the last one
            closed = list({phase.name: phase for phase in by_end}.values())
            closed.sort(key=lambda phase: -(phase.end_ns or 0))
            lines.append(self._phase_line("closed", closed, 0, look.at_ns))
        return lines

    def _phase_line(self, what: str, phases: Sequence[LivePhase], count: int, at_ns: int) -> Line:
        texts = [
            f"{self.show(phase.name)} {'' if phase.step is None else f'(step {phase.step}) '}"
            f"{time_text(phase.age_s(at_ns))}{'' if phase.complete else ', cut off'}"
            for phase in phases[:SHOWN_PHASES]
        ]
        more = f"; and {count - len(texts):,} more" if count > len(texts) else ""
        return Line(f"{what}: {'; '.join(texts)}{more}", "cyan")


def shown_resources(view: LiveView) -> list[str]:
    """
    The resources that stand below the keys: those of the process first.
    """
    names = [name for name, key in view.keys.items() if key.is_resource]
    return sorted(filter(RESOURCES.fullmatch, names), key=_resource_rank)[:MOST_RESOURCES]


def time_text(seconds: float) -> str:
    """
    A length of time in a few characters.
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02}:{rest:02}"
    return f"{days} d {text}" if days else text


def _resource_rank(name: str) -> tuple[bool, str]:
    return not name.startswith("system/process"), name
