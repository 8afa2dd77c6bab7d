"""
The command `allele-mlflow`: the one place that prints errors and picks exit codes.

Exit codes: 0 fine, 2 usage or configuration, 6 store unreachable, 7 records lost, 130 interrupted.
"""

from __future__ import annotations

import sys

import click

from allele_mlflow.cli.status import status
from allele_mlflow.cli.sync import sync
from allele_mlflow.errors import AlleleMlflowError, SettingsError
from allele_mlflow.version import __version__

USAGE, INTERRUPTED, FAILED = 2, 130, 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="allele-mlflow")
def commands() -> None:
    """
    Look at and deliver what the sidecar logger keeps in its spool.
    """


commands.add_command(status)
commands.add_command(sync)


def main() -> None:
    """
    Run a command; errors become one line on stderr and an exit code.
    """
    try:
        code = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except SettingsError as exc:
        click.echo(f"allele-mlflow: {exc}", err=True)
        code = USAGE
    except AlleleMlflowError as exc:
        click.echo(f"allele-mlflow: {exc}", err=True)
        code = FAILED
    sys.exit(code if isinstance(code, int) else 0)
