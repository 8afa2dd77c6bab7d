"""
A process that ends by SIGKILL at a named step, the n-th time it comes there.

Run as `python -m allele_mlflow.drill.doomed STEP:N --scope ... --profile ...` it is a sidecar; a
benchmark calls `arm`. Nothing of this is in the code that is attacked: a step's method is wrapped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from itertools import count
from typing import Any, NamedTuple

from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.queue.stream_files import StreamFiles
from allele_mlflow.queue.stream_reader import StreamReader
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.sidecar.run_store import RunStore


class Step(NamedTuple):
    """
    Before or after a call of which function the process dies.
    """

    owner: Any
    function: str
    is_after: bool


#: Of the sidecar: between reading, sending, and moving the cursor; while a run is made or archived.
SIDECAR_STEPS = {
    "before-read": Step(RunReader, "read", False),
    "before-send": Step(RunStore, "perform", False),
    "after-send": Step(RunStore, "perform", True),
    "before-cursor": Step(StreamReader, "commit", False),
    "after-cursor": Step(StreamReader, "_store_cursor", True),
    "after-commit": Step(StreamReader, "commit", True),
    "before-create-run": Step(RunStore, "_create_run", False),
    "after-create-run": Step(RunStore, "_create_run", True),
    "before-archive": Step(RunReader, "archive", False),
}
#: Of the benchmark: the steps of a segment's roll, and of a new key.
ROLL_STEPS = {
    "before-segment": Step(spool, "make_segment", False),
    "after-allocate": Step(spool, "allocate", True),
    "after-segment": Step(spool, "make_segment", True),
    "after-spare": Step(StreamFiles, "_take_spare", True),
    "before-map": Step(StreamFiles, "_target", False),
    "after-map": Step(StreamFiles, "_target", True),
    "after-lane": Step(StreamFiles, "new_lane", True),
    "after-roll": Step(StreamWriter, "_roll", True),
    "before-key": Step(StreamFiles, "append", False),
    "after-key": Step(StreamFiles, "append", True),
}
STEPS = SIDECAR_STEPS | ROLL_STEPS


def arm(text: str) -> None:
    """
    From now on this process dies at the step `NAME:N`, when it comes there the N-th time.

    Raises:
        KeyError: there is no such step.
    """
    name, _, number = text.partition(":")
    step = STEPS[name]
    remaining = count(int(number or 1) - 1, -1).__next__  # atomic: threads come here at once
    original: Callable[..., Any] = getattr(step.owner, step.function)

    @wraps(original)
    def doomed(*args: Any, **options: Any) -> Any:
        if not step.is_after and remaining() <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if step.is_after and remaining() <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(step.owner, step.function, doomed)


if __name__ == "__main__":
    from allele_mlflow.sidecar.__main__ import main

    arm(sys.argv.pop(1))
    main()
