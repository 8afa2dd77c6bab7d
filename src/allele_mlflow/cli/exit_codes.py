"""
What the commands end with.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """
    Append only: scripts know the numbers.
    """

    FINE = 0
    #: Something of the environment, the output among it; of a comparison: a regression.
    FAILED = 1
    #: A wrong argument or setting.
    USAGE = 2
    #: Some cells of a suite failed, or were not run.
    CELLS_FAILED = 3
    #: Evidence was asked for, and the data do not decide.
    INCONCLUSIVE = 4
    #: What was asked for could not be tried here at all.
    NOTHING_MEASURED = 5
    UNREACHABLE = 6
    #: Records were refused, dropped, torn or cannot be read.
    LOST = 7
    INTERRUPTED = 130
