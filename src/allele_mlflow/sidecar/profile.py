"""
Which sidecar serves which producer: one for each spool, store, credentials, Python and version of
ours.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from allele_mlflow.queue import spool
from allele_mlflow.queue.locks import is_locked
from allele_mlflow.records import SPOOL_FORMAT, RunSpec
from allele_mlflow.settings import Settings, environment
from allele_mlflow.version import __version__

CREDENTIAL_PREFIXES = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_")
PROXY_VARIABLES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"})
SALT_FILE = ".salt"


def profile_of(scope: Path, settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """
    A salted digest of everything that makes two producers need two sidecars; tells no secret.
    """
    environ = environment() if environ is None else environ
    parts = [
        str(os.getuid()),
        settings.tracking_uri,
        # the default one lies in the working folder, which makes no difference to delivery
        settings.model_registry_uri if "model_registry_uri" in settings.origins else "",
        settings.bulk_store,
        sys.executable,
        __version__,
        str(SPOOL_FORMAT),
    ]
    parts += [
        f"{name}={value}"
        for name, value in sorted(environ.items())
        if name.startswith(CREDENTIAL_PREFIXES) or name.upper() in PROXY_VARIABLES
    ]
    digest = hashlib.sha256(_salt(scope))
    digest.update("\0".join(parts).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def lock_path(scope: Path, profile: str) -> Path:
    """
    The file whose lock the profile's sidecar holds.
    """
    return scope / f"sidecar-{profile}.lock"


def is_served(scope: Path, spec: RunSpec) -> bool:
    """
    Whether a sidecar lives that will deliver the run; nobody delivers an offline one by himself.
    """
    return not spec.offline and is_locked(lock_path(scope, spec.profile))


def _salt(scope: Path) -> bytes:
    path = scope / SALT_FILE
    try:
        salt = path.read_bytes()
    except FileNotFoundError:
        fresh = scope / f"{SALT_FILE}.{spool.new_uid()}"
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, os.urandom(32))
        finally:
            os.close(descriptor)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # somebody was first; theirs counts
        finally:
            fresh.unlink()
        salt = path.read_bytes()
    return salt
