"""
`allele-mlflow registry`: genomes and components, who holds which stage, and how it came about.
"""

from __future__ import annotations

from typing import Any

import click

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, shown
from allele_mlflow.cli.registry import comparing, moves, records, versions
from allele_mlflow.errors import (
    AnalysisError,
    NotFoundError,
    PromotionRefusedError,
    RegistryError,
    TrackingError,
)


class _Commands(click.Group):
    """
    Errors of the registry become exit codes, for every command of the group.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PromotionRefusedError as exc:
            complain(shown(str(exc)))
            return ExitCode.FAILED
        except (NotFoundError, RegistryError, AnalysisError) as exc:
            raise click.UsageError(shown(str(exc))) from exc
        except TrackingError as exc:
            complain(shown(str(exc)))
            return ExitCode.UNREACHABLE


@click.group(cls=_Commands)
def registry() -> None:
    """
    Keep genomes and components as versions of models in MLflow's registry (setting
    MODEL_REGISTRY_URI), promote them on evidence, and tell who did what and why.

    A version is written as NAME/NUMBER or NAME@STAGE. Exit code 1: a promotion was refused, or
    `verify` found something; 2: there is no such model or version, or the registry is disabled; 6:
    the store was unreachable.
    """


for _command in (*versions.COMMANDS, *comparing.COMMANDS, *moves.COMMANDS, *records.COMMANDS):
    registry.add_command(_command)
