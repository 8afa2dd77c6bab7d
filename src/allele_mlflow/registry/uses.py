"""
Which runs used a version: from what they say of themselves, and the journal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from allele_mlflow.clock import read_iso
from allele_mlflow.references import USES_PREFIX, Reference, decode_uses
from allele_mlflow.registry.journal import Chain, Standing, replay
from allele_mlflow.tracking.limits import check_key

if TYPE_CHECKING:  # pandas is read where it is needed
    import pandas as pd

    from allele_mlflow.tracking.frames import Reader


class Use(NamedTuple):
    """
    A run that used a version: how it named it, and from when on.
    """

    run_id: str
    run_name: str
    reference: str
    time: str


class Past:
    """
    Which version a reference meant when, by the journal of a model.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        # as `Chain.standing`: it counts up to the first entry that says it is later
        self._times = list(accumulate((read_iso(one.time) for one in chain.entries), max))
        #: Between two entries nothing changes, and is worked out once.
        self._known: dict[int, Standing] = {}

    def version(self, reference: Reference, time: str) -> int | None:
        """
        The version; None where nobody held the stage then.

        Args:
            reference: Of this model.
            time: UTC, ISO 8601.
        """
        if reference.stage is None:
            return reference.number
        count = bisect_right(self._times, read_iso(time))
        if count not in self._known:
            self._known[count] = replay(self._chain.entries[:count])
        return self._known[count].holders.get(reference.stage)


def read_uses(reader: Reader, chain: Chain, name: str, version: int) -> list[Use]:
    """
    The runs that said that they used a version of a model, newest first, each once.

    Args:
        reader: Of the store of runs.
        chain: The model's journal.
        name: Of the model.
        version: Of it.
    Raises:
        TrackingError: the store does not answer.

    Cost: reads the runs that used any version of the model.
    """
    key = f"{USES_PREFIX}{name}"
    if check_key(key) is not None:
        return []  # no run can have such a tag
    found = reader.runs(with_tags={key: None}, tag_keys=[key], param_keys=[], metric_keys=[])
    texts = dict(zip(found.tags["run_id"], found.tags["value"], strict=True))
    return list(_uses(found.runs, texts, Past(chain), Reference(name, version, None)))


def _uses(
    runs: pd.DataFrame, texts: dict[str, str], past: Past, wanted: Reference
) -> Iterator[Use]:
    for run_id, run_name in runs[["run_id", "name"]].itertuples(index=False, name=None):
        for meant, time in decode_uses(texts.get(run_id, "")):
            if meant.name == wanted.name and past.version(meant, time) == wanted.number:
                yield Use(run_id, str(run_name), str(meant), time)
                break
