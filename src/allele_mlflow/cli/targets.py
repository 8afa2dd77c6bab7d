"""
Which store a waiting run goes to: its own, as far as the spool may know it.
"""

from __future__ import annotations

import msgspec

from allele_mlflow.records import RunSpec
from allele_mlflow.settings import Settings, mask_secrets

MASK = "***"


def find_target(spec: RunSpec, setting_uri: str, *, is_explicit: bool) -> str | None:
    """
    The address to deliver a run to, or None where only the user knows it.

    Args:
        spec: What the logger wrote about the run; secrets of its address are masked.
        setting_uri: The tracking URI of the caller's settings.
        is_explicit: Whether that was said for all runs, on the command line.
    """
    if is_explicit:
        return setting_uri
    own = spec.tracking_uri_masked
    if not spec.offline:
        if own and MASK not in own and mask_secrets(own) == own:
            return own
        return setting_uri if own and mask_secrets(setting_uri) == own else None
    return setting_uri if setting_uri != "offline" else None


def adapt_spec(spec: RunSpec, settings: Settings) -> RunSpec:
    """
    The run's description for the store of `settings`: what was meant for another one is replaced.
    """
    store = mask_secrets(settings.tracking_uri)
    if not spec.offline and store == spec.tracking_uri_masked:
        return spec
    return msgspec.structs.replace(
        spec,
        tracking_uri_masked=store,
        # ids of a run that is to go on mean nothing in another store
        run_id=spec.run_id if spec.offline else None,
        parent_run_id=spec.parent_run_id if spec.offline else None,
        artifact_location=settings.experiment_artifact_location,
        batch_size=settings.batch_size,
    )


def explain_left(spec: RunSpec) -> str:
    """
    Why a run without a target was left, and what to do.
    """
    if spec.offline:
        return "it was logged offline, and the setting tracking_uri is offline; give --tracking-uri"
    store = spec.tracking_uri_masked
    if not store:
        return "the spool does not name its store; give --tracking-uri"
    return (
        f"the secrets of its store {store} are not in the spool; give --tracking-uri, or set "
        "ALLELE_MLFLOW_TRACKING_URI to the whole address"
    )
