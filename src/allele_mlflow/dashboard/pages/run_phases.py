"""
The phases of a run that a spool of this machine holds: MLflow has them only when it is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from allele_mlflow.analysis.frames import PHASES, shaped
from allele_mlflow.queue.live import LivePhase
from allele_mlflow.records import PhaseSpan
from allele_mlflow.sampling.phase_summary import phases_document
from allele_mlflow.sampling.phases import PhaseRow
from allele_mlflow.sidecar.run_files import RunFiles
from allele_mlflow.watching.run_look import RunLook


class WaitingPhases(NamedTuple):
    """
    Columns of `analysis.frames.PHASES`, and `key` and `value` of the metrics that they add up to.
    """

    rows: pd.DataFrame
    metrics: pd.DataFrame


def waiting_phases(look: RunLook) -> WaitingPhases:
    """
    The phases of a run by its files, each once; one that is open ends, not complete, where it was
    seen last.

    Cost: the whole file of phases is read.
    """
    document = phases_document(_rows(look))
    rows = pd.DataFrame(document["rows"])
    if len(rows):
        rows["begin"] = pd.to_datetime(rows["begin"], utc=True, format="ISO8601")
    sums = [
        (f"phase/{name}/{field}", value)
        for name, told in document["summary"].items()
        for field, value in told.items()
    ]
    metrics = pd.DataFrame(sums, columns=["key", "value"])
    return WaitingPhases(shaped(rows, PHASES), metrics)


def _rows(look: RunLook) -> Iterator[PhaseRow]:
    """
    Closed ones before open ones: a phase counts as it comes first.
    """
    files = RunFiles(look.folder)
    yield from files.phase_rows()
    if look.view is not None:
        yield from _seen(look.view.closed_phases, look.phases_at_ns)
        yield from _seen(look.view.open_phases, look.phases_at_ns)


def _seen(phases: Iterable[LivePhase], at_ns: int) -> Iterator[PhaseRow]:
    for one in phases:
        is_open = one.end_ns is None
        yield PhaseRow(
            span=PhaseSpan(
                stream_id=one.stream_id,
                instance=one.instance,
                name=one.name,
                begin_ns=one.begin_ns,
                end_ns=max(one.begin_ns, at_ns if one.end_ns is None else one.end_ns),
                cpu_s=None,
                step=one.step,
                complete=one.complete and not is_open,
            )
        )
