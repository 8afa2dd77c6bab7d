"""
The command `allele-mlflow`: the one place that prints errors and ends with exit codes.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import NoReturn

import click

from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import complain, leave, prepare_streams
from allele_mlflow.errors import AlleleMlflowError, MatrixError, SettingsError
from allele_mlflow.version import __version__

#: Every command, and what it does in a line. Module and function have its name, but for those in
#: `_PLACES`, and are imported when it is called: `status` need not wait for what `run` plots with.
COMMANDS = {
    "alerts": "Show the alerts of a run or an experiment.",
    "anomalies": "Find what is wrong within runs.",
    "anytime": "Show how good searches are after how many evaluations.",
    "compare": "Compare suites, cells or runs with statistics.",
    "confirm": "Run two commits in turn: is one worse?",
    "dashboard": "Show suites, runs and deliveries in a browser.",
    "design": "Say what a suite can show, before it is run.",
    "doctor": "Check this machine, its spool and its store.",
    "drill": "Try the guarantees on this machine.",
    "export": "Write experiments as CSV, Parquet or JSON.",
    "gc": "Delete old artifacts that nothing reaches.",
    "import": "Log the results of a finished matrix of Allele's.",
    "pin": "Keep the artifacts of a run.",
    "predictions": "Score predictions against what came.",
    "recommendations": "Recommend what to try next, and hold advice to account.",
    "reevaluate": "Measure a registered genome again.",
    "registry": "Keep genomes and components, promote them on evidence.",
    "rejected": "List what was refused, and submit it again.",
    "report": "Write a report of a suite, a run or an experiment.",
    "reproduce": "Run a suite's cell again, from MLflow alone.",
    "run": "Run a matrix suite of benchmarks.",
    "status": "Show the runs in your spools.",
    "stop": "Stop sidecars.",
    "sync": "Deliver what waits in a spool.",
    "trend": "Find what changed in the history of a suite.",
    "watch": "Show a live run in the terminal.",
}
_PLACES = {"import": ("import_results", "import_command")}


class _Commands(click.Group):
    """
    The commands, each imported when it is called.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        place, name = _PLACES.get(cmd_name, (cmd_name, cmd_name))
        module = importlib.import_module(f"allele_mlflow.cli.{place}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="allele-mlflow")
def commands() -> None:
    """
    Run suites of benchmarks, watch and deliver what the sidecar logger keeps in its spool.
    """


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
    except (SettingsError, MatrixError) as exc:
        complain(str(exc))
        code = ExitCode.USAGE
    except (AlleleMlflowError, OSError) as exc:
        complain(str(exc))
        code = ExitCode.FAILED
    except SystemExit as exc:  # click's way out of a closed pipe
        code = exc.code
    leave(code if isinstance(code, int) else ExitCode.FINE)
