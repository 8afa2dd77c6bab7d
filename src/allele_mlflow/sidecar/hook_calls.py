"""
Calling one hook: a program gets the alert on its standard input, an address as a POST. Blocks, so
for worker threads; bounded by the hook's time-out; never raises.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from allele_mlflow.alerts.rules import Hook
from allele_mlflow.settings import mask_secrets
from allele_mlflow.version import __version__

#: Of what a command says on its standard error.
TOLD_BYTES = 500


def call_hook(hook: Hook, payload: bytes, folder: Path) -> str | None:
    """
    Call it; None where it went well, else what went wrong, without secrets.

    Args:
        hook: The hook.
        payload: What it gets, JSON.
        folder: Where a command runs.
    """
    try:
        return _run(hook, payload, folder) if hook.command else _post(hook, payload)
    except Exception as exc:  # noqa: BLE001 - a worker task's border: a hook costs nothing but itself
        return type(exc).__name__  # its words may quote the address


def _run(hook: Hook, payload: bytes, folder: Path) -> str | None:
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                hook.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,  # a file: a child of its that holds a pipe would keep us waiting
                cwd=folder,
                start_new_session=True,
            )
        except OSError as exc:
            return f"cannot be started: {exc.strerror}"
        with process:
            try:
                process.communicate(payload, timeout=hook.timeout_s)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it has started too
                return f"not done within {hook.timeout_s:g} s, and killed"
        if process.returncode == 0:
            return None
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - TOLD_BYTES))
        told = " ".join(errors.read().decode("utf-8", "replace").split())
    return f"exit code {process.returncode}" + (f": {mask_secrets(told)}" if told else "")


def _post(hook: Hook, payload: bytes) -> str | None:
    import urllib.error
    import urllib.request

    class _NoRedirects(urllib.request.HTTPRedirectHandler):
        # a POST would go on as a GET, and credentials to somebody else
        def redirect_request(self, *_: object) -> None:
            return None

    address, authorisation = split_credentials(hook.webhook)
    request = urllib.request.Request(
        address,
        data=payload,
        headers={
            "Content-Type": "application/json",
            "User-Agent": f"allele-mlflow/{__version__}",
            **({"Authorization": authorisation} if authorisation else {}),
        },
        method="POST",
    )
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=hook.timeout_s):
            return None
    except urllib.error.HTTPError as exc:
        exc.close()
        return f"answered {exc.code}"
    except urllib.error.URLError as exc:
        return f"not reached: {mask_secrets(str(exc.reason))}"
    except TimeoutError:
        return f"no answer within {hook.timeout_s:g} s"


def split_credentials(address: str) -> tuple[str, str | None]:
    """
    An address without the user and password in it, and the header that says them.
    """
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, None
    plain = ":".join(unquote(part) for part in user.split(":", 1))
    token = base64.b64encode(plain.encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {token}"
