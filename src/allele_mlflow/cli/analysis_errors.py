"""
What goes wrong in a command that asks the store about runs, as words and exit code: once for all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import click

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, shown
from allele_mlflow.errors import AnalysisError, TrackingError

P = ParamSpec("P")


def tells_errors(command: Callable[P, ExitCode]) -> Callable[P, ExitCode]:
    """
    The command, which ends with code 2 for a selection or option that means nothing, and with 6 for
    a store that does not answer.
    """

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> ExitCode:
        try:
            return command(*args, **kwargs)
        except AnalysisError as exc:
            raise click.UsageError(shown(str(exc))) from exc
        except TrackingError as exc:
            complain(shown(str(exc)))
            return ExitCode.UNREACHABLE

    return told
