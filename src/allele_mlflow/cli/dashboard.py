"""
`allele-mlflow dashboard`: suites, runs, alerts and deliveries in a browser.
"""

from __future__ import annotations

import contextlib
import getpass
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

from allele_mlflow import settings as settings_module
from allele_mlflow.cli.analysis_errors import tells_errors
from allele_mlflow.cli.exit_codes import ExitCode
from allele_mlflow.cli.output import Progress, complain, say, shown

DEFAULT_PORT = 5055


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The port; 0 takes any that is free.",
)
@click.option("--allow-writes", is_flag=True, help="Let the pages change things.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name that it goes by; repeatable.",
)
@click.option(
    "--beyond-this-machine", is_flag=True, help="Listen at a --host that others can reach too."
)
@click.option(
    "--gates",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What a stage asks for (TOML); by default what is usual.",
)
@click.option("--open/--no-open", "is_opened", default=False, help="Open it in a browser.")
@click.option(
    "--export",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the pages into this folder instead.",
)
@click.option("--tracking-uri", help="The store; by default the setting.")
@tells_errors
def dashboard(
    host: str,
    port: int,
    allow_writes: bool,
    hosts: Sequence[str],
    beyond_this_machine: bool,
    gates: Path | None,
    is_opened: bool,
    folder: Path | None,
    tracking_uri: str | None,
) -> ExitCode:
    """
    Show suites, runs, alerts and deliveries in a browser, until Ctrl-C.

    Writes an address with a token, which lets one browser in; when it was used, the next one.
    Without --allow-writes nothing can be changed. With --export the same pages become files, which
    open from a disk; the spools of this machine are left out.

    Exit code 0: it was ended, or written; 2: the address is taken, others could reach it and
    --beyond-this-machine was not given, or the folder holds something else; 6: the store was
    unreachable for --export.
    """
    settings = settings_module.load({"tracking_uri": tracking_uri})
    if folder is None:
        _check_reach(host, hosts, is_allowed=beyond_this_machine)
    _arrange(settings.tracking_uri)
    if folder is not None:
        return _export(settings, folder)
    from allele_mlflow.dashboard.serving import DashboardServer, open_socket
    from allele_mlflow.dashboard.source import Source
    from allele_mlflow.registry.gates import read_policies

    listening = open_socket(host, port)
    server = DashboardServer(
        Source(settings, policies=read_policies(gates) if gates is not None else None),
        listening,
        user=_user(),
        may_write=allow_writes,
        hosts=hosts,
        on_token=say,
    )
    if is_opened:
        webbrowser.open(server.address)
    server.run()
    return ExitCode.FINE


def _export(settings: settings_module.Settings, folder: Path) -> ExitCode:
    from allele_mlflow.dashboard.catalogue import PAGES
    from allele_mlflow.dashboard.export import export_pages
    from allele_mlflow.dashboard.source import Source

    source = Source(settings, spools=[])
    with contextlib.closing(source), Progress() as progress:
        count = export_pages(
            source,
            PAGES,
            folder,
            on_written=lambda done, total: progress.show(f"{done:,} of {total:,} pages"),
        )
    say(shown(f"{folder / 'index.html'}: {count:,} pages"))
    return ExitCode.FINE


def _check_reach(host: str, hosts: Sequence[str], *, is_allowed: bool) -> None:
    from allele_mlflow.dashboard.serving import is_loopback

    if is_loopback(host):
        return
    if not is_allowed:
        raise click.UsageError(
            f"--host {host}: other machines can reach that; with --beyond-this-machine it is done, "
            "and what the pages show crosses the network as plain text"
        )
    complain(
        f"listening at {host}: other machines can reach it, and see what is sent; "
        "better a tunnel (ssh -L) or a proxy with TLS"
    )
    if not hosts:
        complain("it answers to its address alone: --allow-host NAME for a name that it goes by")


def _arrange(tracking_uri: str) -> None:
    """
    Arrange this process's environment for MLflow, before it is imported.
    """
    from allele_mlflow.tracking.client import prepare_environment

    changes = prepare_environment(settings_module.environment(), tracking_uri=tracking_uri)
    for name, value in changes.items():
        settings_module.publish_variable(name, value)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
