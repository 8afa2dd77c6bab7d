"""
Finished runs that are one too many: an engine that loses a worker runs again what it was told of by
nobody, be it that it had finished. Of two runs of one trial, the one whose result arrived counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from allele_mlflow import suite_tags as tags
from allele_mlflow.settings import Settings


def mark_superseded(settings: Settings, execution: str, counted: Collection[str]) -> list[str]:
    """
    Give the other finished runs of counted trials the kind `superseded`: nobody counts them then.

    Args:
        settings: Of the store.
        execution: Uid of the suite's own run.
        counted: Uids of the runs whose results arrived.
    Returns:
        The ids of the runs that were marked.
    Raises:
        TrackingError: the store does not answer.
    """
    from allele_mlflow.tracking.client import MlflowTracking
    from allele_mlflow.tracking.reader import open_reader

    with contextlib.closing(open_reader(settings.tracking_uri)) as reader:
        frames = reader.runs(
            with_tags={tags.EXECUTION: execution, tags.KIND: tags.RunKind.CELL},
            tag_keys=[tags.RUN_UID, tags.CELL_KEY, tags.REPEAT],
            param_keys=[],
            metric_keys=[],
        )
    told = frames.tags.pivot(index="run_id", columns="key", values="value")
    trials = dict(
        zip(told.index, zip(told[tags.CELL_KEY], told[tags.REPEAT], strict=True), strict=True)
    )
    uids = dict(told[tags.RUN_UID].items())
    settled = {trial for run_id, trial in trials.items() if uids[run_id] in counted}
    finished = frames.runs.run_id[frames.runs.status == "FINISHED"]
    surplus = [r for r in finished if trials[r] in settled and uids[r] not in counted]
    if surplus:
        with contextlib.closing(MlflowTracking(settings.tracking_uri)) as tracking:
            for run_id in surplus:
                tracking.log_batch(run_id, tags={tags.KIND: tags.RunKind.SUPERSEDED})
    return surplus
