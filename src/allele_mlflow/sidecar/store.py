"""
Opening the tracking store that the settings name; where mlflow is first imported.
"""

from __future__ import annotations

from allele_mlflow.errors import ErrorKind, PermanentTrackingError, TransientTrackingError
from allele_mlflow.settings import Settings, environment, publish_variable
from allele_mlflow.tracking.protocol import Tracking


def open_store(settings: Settings, *, owns_process: bool = True) -> Tracking:
    """
    The store behind `settings.tracking_uri`. Takes seconds the first time: it imports mlflow.

    Args:
        settings: Which store.
        owns_process: Whether MLflow's environment may be arranged for delivery alone; not so in the
            benchmark's own process.
    Raises:
        TransientTrackingError: mlflow cannot be imported, or the store not be opened, at present.
    """
    try:
        # here and not at the top: a sidecar samples from its first moment, and quiet delivery
        # must not import mlflow beside a running benchmark
        from allele_mlflow.tracking.client import MlflowTracking, prepare_environment

        if owns_process:
            changes = prepare_environment(environment(), tracking_uri=settings.tracking_uri)
            for name, value in changes.items():
                publish_variable(name, value)
        return MlflowTracking(settings.tracking_uri, is_bulk=settings.bulk_store == "auto")
    except ImportError as exc:
        raise TransientTrackingError(
            f"mlflow cannot be imported ({exc}); records wait in the spool",
            kind=ErrorKind.STORE_UNREACHABLE,
        ) from exc
    except PermanentTrackingError as exc:
        # a store that cannot be opened is nobody's bad record: wait for it
        raise TransientTrackingError(exc.message, kind=exc.kind) from exc
