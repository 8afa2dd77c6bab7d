"""
Starting the sidecar from the benchmark's process: light, quick, and without becoming its parent.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from allele_mlflow.errors import ErrorKind, SidecarStartError
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.settings import PREFIX, Settings, environment
from allele_mlflow.sidecar.profile import lock_path

#: What a sidecar's process runs.
MODULE = "allele_mlflow.sidecar"
#: Starts its arguments in the background and ends: so the sidecar is init's child and not ours, and
#: no `os.wait()` of the benchmark's ever meets it.
SHELL = "/bin/sh"
SHELL_SCRIPT = '"$@" &'
WORKING_FOLDER = "/"
#: What the sidecar needs of the settings; the rest travels with each run.
FORWARDED = ("tracking_uri", "model_registry_uri", "idle_timeout_s", "bulk_store", "log_level")
LEFT_AT_DEFAULT = frozenset({"model_registry_uri"})


def ensure_sidecar(scope: Path, profile: str, settings: Settings) -> bool:
    """
    See to it that somebody will deliver what is in the spool; True where a process was started.

    A producer writes first and asks then: a sidecar that leaves releases its lock and looks once
    more.

    Raises:
        SidecarStartError: no process could be started; records wait in the spool.
    """
    if settings.worker == "thread":
        # the only dynamic import: the worker brings anyio and psutil, which a benchmark does not
        # want
        importlib.import_module("allele_mlflow.sidecar.thread").ensure_thread(
            scope, profile, settings
        )
        return False
    if is_locked(lock_path(scope, profile)):
        return False
    _start_process(scope, profile, settings)
    return True


def _start_process(scope: Path, profile: str, settings: Settings) -> None:
    arguments = [
        *module_command(MODULE),
        "--scope",
        str(scope),
        "--profile",
        profile,
    ]
    shelled = [SHELL, "-c", SHELL_SCRIPT, "allele-mlflow-sidecar", *arguments]
    has_shell = os.access(SHELL, os.X_OK)
    log = None
    try:
        log = os.open(
            scope / f"sidecar-{profile}.log",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
            0o600,
        )
        process = subprocess.Popen(
            shelled if has_shell else arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,  # a file, for a pipe that nobody reads fills up
            stderr=log,
            cwd=WORKING_FOLDER,
            env=sidecar_environment(settings),
            start_new_session=True,
        )
        if has_shell:
            process.wait(timeout=5.0)
        else:
            process.returncode = 0  # nobody will wait for it
    except (OSError, subprocess.SubprocessError) as exc:
        raise SidecarStartError(
            f"the sidecar could not be started ({exc}); records wait in {scope}",
            kind=ErrorKind.SIDECAR_START,
            scope=str(scope),
        ) from exc
    finally:
        if log is not None:
            with contextlib.suppress(OSError):
                os.close(log)


def module_command(module: str) -> list[str]:
    """
    The command that runs a module of ours as the sidecar is run.
    """
    # -P: a local mlflow.py must not shadow the real one
    return [sys.executable, "-P", "-m", module]


def is_sidecar_command(command: Sequence[str]) -> bool:
    """
    Whether a process of this command line is a sidecar, or the shell that starts one.
    """
    return MODULE in command


def sidecar_environment(settings: Settings) -> dict[str, str]:
    """
    The environment in which a sidecar of these settings is started.
    """
    environ = environment()
    # the program's filters are not ours: with "error" MLflow's own deprecations would end it
    environ.pop("PYTHONWARNINGS", None)
    for name in FORWARDED:
        # a default would count as said there, and make another profile of it
        if name in settings.origins or name not in LEFT_AT_DEFAULT:
            environ[PREFIX + name.upper()] = str(getattr(settings, name))
    package = Path(__file__).resolve().parents[2]
    if package.name not in ("site-packages", "dist-packages"):
        # a source checkout: it holds nothing but us, so it shadows nothing
        path = [str(package), *environ.get("PYTHONPATH", "").split(os.pathsep)]
        environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path if entry)
    elif environ.get("PYTHONPATH"):
        entries = environ["PYTHONPATH"].split(os.pathsep)
        environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(e) for e in entries if e)
    return environ
