"""
The command `allele-mlflow`: the one place that prints errors and ends with exit codes.
"""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn

import click

from allele_mlflow.cli.doctor import doctor
from allele_mlflow.cli.drill import drill
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, leave, prepare_streams
from allele_mlflow.cli.rejected import rejected
from allele_mlflow.cli.status import status
from allele_mlflow.cli.stop import stop
from allele_mlflow.cli.sync import sync
from allele_mlflow.cli.watch import watch
from allele_mlflow.errors import AlleleMlflowError, SettingsError
from allele_mlflow.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="allele-mlflow")
def commands() -> None:
    """
    Look at and deliver what the sidecar logger keeps in its spool.
    """


commands.add_command(doctor)
commands.add_command(drill)
commands.add_command(rejected)
commands.add_command(status)
commands.add_command(stop)
commands.add_command(sync)
commands.add_command(watch)


def main() -> NoReturn:
    """
    Run a command; errors become one line on stderr and an exit code.
    """
    prepare_streams()
    code: object
    try:
        code = commands.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = ExitCode.INTERRUPTED
    except click.ClickException as exc:
        with contextlib.suppress(OSError):
            exc.show(sys.stderr)
        code = exc.exit_code
    except SettingsError as exc:
        complain(str(exc))
        code = ExitCode.USAGE
    except (AlleleMlflowError, OSError) as exc:
        complain(str(exc))
        code = ExitCode.FAILED
    except SystemExit as exc:  # click's way out of a closed pipe
        code = exc.code
    leave(code if isinstance(code, int) else ExitCode.FINE)
