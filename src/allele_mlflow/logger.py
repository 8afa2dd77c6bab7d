"""
Where a run begins: `start_logger` and `attach`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from allele_mlflow import settings as settings_module
from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.disabled import DisabledRunLogger
from allele_mlflow.environment.affinity import count_usable_cpus
from allele_mlflow.errors import (
    DeliveryError,
    ErrorKind,
    QueueError,
    RecordError,
)
from allele_mlflow.given_alerts import NO_ALERTS, GivenAlerts, file_of, find_alerts
from allele_mlflow.log_context import bound_correlation_id
from allele_mlflow.mistakes import Mistakes
from allele_mlflow.notices import DeliveryNotices
from allele_mlflow.open_loggers import forget_logger, remember_logger
from allele_mlflow.queue import plain, spool, spool_index
from allele_mlflow.queue.claim import claim_run
from allele_mlflow.queue.locks import process_start_time
from allele_mlflow.queue.room import quota_bytes
from allele_mlflow.queue.writer import StreamWriter
from allele_mlflow.records import RunSpec
from allele_mlflow.run_logger import RunLogger
from allele_mlflow.settings import HANDLE_VARIABLE, Settings, mask_secrets
from allele_mlflow.sidecar.profile import profile_of
from allele_mlflow.tracking import limits


def start_logger(
    experiment: str,
    *,
    run_name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    parent: RunLogger | str | None = None,
    run_id: str | None = None,
    run_uid: str | None = None,
    correlation_id: str | None = None,
    settings: Settings | None = None,
    on_error: Callable[[str], None] | None = None,
    on_lag: Callable[[float], None] | None = None,
    alerts: str | os.PathLike[str] | Iterable[object] | None = None,
    **overrides: Any,
) -> RunLogger:
    """
    Start logging a run; returns in milliseconds, for the sidecar creates it in MLflow.

    Args:
        experiment: Its name, behind the setting `experiment_prefix`.
        run_name: Shown in MLflow.
        params: Parameters of the run.
        tags: Tags of the run.
        parent: The run above this one: its logger, its handle (`log.handle()`), or its MLflow id.
        run_id: Go on with an existing MLflow run.
        run_uid: Join the run of that uid: the first process to start it creates it. Where its owner
            is gone, after a crash or a preemption, this process resumes it: steps and params may
            overlap, and the run ends as this part of it does.
        correlation_id: Tag `allele.correlation_id`, and in log lines (`LogContextHandler`). By
            default the parent's, else that of the `correlation_context` around, else the run's uid.
        settings: Ready settings instead of those of the environment.
        on_error: Called with a text at the first mistake of each key, when the sidecar cannot
            start, and with the store's words when it refuses or fails, once a minute at most.
        on_lag: Called with seconds, once a second at most, while delivery is more than the setting
            `max_lag_s` behind. Both are called in the caller's thread, at slow points only: a new
            segment, the end of a phase, params, tags, artifacts, `flush`, `close`.
        alerts: A file of rules (as the setting `alerts`), or rules: `AlertRule`, ours or Allele's.
        **overrides: Settings by their lower-case names, e.g. `tracking_uri=`,
            `metrics_batch_size=`.
    Raises:
        SettingsError: an unknown setting or a bad value, before any work is done.
        RecordError: an experiment name that MLflow cannot hold, a `run_uid` that can be no name, or
            a `parent`, `run_id` or `run_name` that is none; with `strict=True` also bad params and
            tags.
    """
    overrides |= file_of(alerts)
    if settings is None:
        settings = settings_module.load(overrides)
    elif overrides:
        settings = _overridden(settings, overrides)
    name = f"{settings.experiment_prefix}{experiment}"
    if not _is_text(experiment) or not 1 <= len(name) <= limits.EXPERIMENT_NAME_LENGTH:
        wanted = f"text, 1 to {limits.EXPERIMENT_NAME_LENGTH} characters with the prefix"
        raise _bad_argument("experiment", experiment, wanted)
    if parent is not None and not isinstance(parent, (RunLogger, str)):
        raise _bad_argument("parent", parent, "a logger, its handle, or the MLflow id of a run")
    if run_id is not None and not (_is_text(run_id) and run_id):
        raise _bad_argument("run_id", run_id, "the MLflow id of a run, as text")
    handle = parent.handle() if isinstance(parent, RunLogger) else parent or ""
    is_here = os.sep in handle  # a folder of a spool; no id of MLflow's is one
    if correlation_id is None and isinstance(parent, RunLogger):
        correlation_id = parent.correlation_id
    elif correlation_id is None and is_here:
        correlation_id = _known_correlation_id(Path(handle))
    return _start(
        name,
        settings=settings,
        run_name=run_name,
        params=params,
        tags=tags,
        parent_run_uid=Path(handle).name if is_here else None,
        parent_folder=handle if is_here else "",
        parent_run_id=handle if handle and not is_here else None,
        run_id=run_id,
        run_uid=run_uid,
        correlation_id=correlation_id,
        on_error=on_error,
        on_lag=on_lag,
        alerts=find_alerts(settings.alerts, alerts) if settings.enabled else NO_ALERTS,
    )


def attach(handle: str | None = None) -> RunLogger:
    """
    Log into a run that another process of this machine has started.

    Args:
        handle: What `log.handle()` gave there; by default found in the environment, which a child
            process inherits.
    Raises:
        QueueError: there is no run to attach to.
    """
    found = handle or settings_module.variable(HANDLE_VARIABLE)
    settings = settings_module.load(forgive_unknown=True)
    if not settings.enabled:
        return _disabled(settings, "")
    folder = Path(found) if found else None
    spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec) if folder is not None else None
    if folder is None or spec is None:
        where = f"{found} is no run of a spool here" if found else f"{HANDLE_VARIABLE} is not set"
        raise QueueError(
            f"no run to attach to: {where}",
            kind=ErrorKind.QUEUE_UNAVAILABLE,
            handle=found,
        )
    settings = _of_the_run(settings, spec, folder)
    mistakes = Mistakes(None)
    stream = StreamWriter(
        folder,
        check_key=limits.check_key,
        strict=settings.strict,
        quota_bytes=spec.spool_quota_bytes,
        on_mistake=mistakes.warn_once,
    )
    log = RunLogger(
        stream=stream,
        settings=settings,
        experiment=spec.experiment,
        run_uid=spec.run_uid,
        correlation_id=spec.correlation_id or spec.run_uid,
        folder=folder,
        profile=spec.profile,
        is_owner=False,
        mistakes=mistakes,
        notices=_notices(settings, None, None),
        start_child=_start,
        on_close=forget_logger,
    )
    log._alerts = GivenAlerts(spec.alert_rules, spec.alerts_file)
    remember_logger(log, is_published=False)
    return log


def _notices(
    settings: Settings,
    on_error: Callable[[str], None] | None,
    on_lag: Callable[[float], None] | None,
) -> DeliveryNotices:
    return DeliveryNotices(
        on_error, on_lag, max_lag_s=settings.max_lag_s, started_s=now_monotonic_s()
    )


def _of_the_run(settings: Settings, spec: RunSpec, folder: Path) -> Settings:
    """
    The attached process's settings, with the run's own where they say where and how it is
    delivered. A store whose address holds secrets is that of the environment.
    """
    said: dict[str, Any] = {
        "spool_dir": str(folder.parent.parent.parent),
        "delivery": spec.delivery,
    }
    if spec.offline:
        said["tracking_uri"] = "offline"
    elif spec.tracking_uri_masked and "***" not in spec.tracking_uri_masked:
        said["tracking_uri"] = spec.tracking_uri_masked
    return _overridden(settings, said)


def _overridden(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """
    Ready settings with some changed: what was said there counts as said, and no environment.
    """
    unsaid = settings_module.load(environ={})
    said = {
        name: value
        for name, default in settings_module.DEFAULTS.items()
        if (value := getattr(settings, name)) not in (default, getattr(unsaid, name))
        or name in settings.origins
    }
    return settings_module.load(said | dict(overrides), environ={})


def _start(
    experiment: str,
    *,
    settings: Settings,
    run_name: str | None,
    params: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None,
    parent_run_uid: str | None = None,
    parent_folder: str = "",
    parent_run_id: str | None = None,
    run_id: str | None = None,
    run_uid: str | None = None,
    correlation_id: str | None = None,
    on_error: Callable[[str], None] | None = None,
    on_lag: Callable[[float], None] | None = None,
    alerts: GivenAlerts = NO_ALERTS,
) -> RunLogger:
    if not settings.enabled:
        return _disabled(settings, experiment)
    mistakes = Mistakes(on_error)
    is_named = run_uid is not None
    run_uid = _checked_uid(run_uid) if is_named else spool.new_uid()
    scope, profile = _open_place(settings, mistakes)
    folder = scope / spool.RUNS / run_uid if scope is not None else None
    is_owner, claim = (True, None) if folder is None else claim_run(folder)
    said = _said_correlation_id(correlation_id)
    if is_named and folder is not None and not (is_owner and said):
        said = _known_correlation_id(folder) or said
    quota = quota_bytes(scope, settings.spool_quota_bytes) if scope is not None else 0
    stream = StreamWriter(
        folder,
        check_key=limits.check_key,
        strict=settings.strict,
        quota_bytes=quota,
        on_mistake=mistakes.warn_once,
    )
    log = RunLogger(
        stream=stream,
        settings=settings,
        experiment=experiment,
        run_uid=run_uid,
        correlation_id=said or run_uid,
        folder=folder,
        profile=profile,
        is_owner=is_owner,
        mistakes=mistakes,
        notices=_notices(settings, on_error, on_lag),
        start_child=_start,
        on_close=forget_logger,
    )
    log._alerts = alerts
    short_tags = _short_tags(tags) if is_owner else {}
    if folder is not None and is_owner:
        spec = _spec(log, stream, quota, run_name, short_tags)
        spec = msgspec.structs.replace(
            spec,
            run_id=run_id,
            parent_run_id=parent_run_id,
            parent_run_uid=parent_run_uid,
            parent_folder=parent_folder,
            alert_rules=alerts.rules,
            alerts_file=alerts.file,
        )
        log._unwritten_spec, log._part_ns = spec, spec.created_ns
        log._write_spec()
    if claim is not None:
        claim.release()
    remember_logger(log, is_published=True)
    try:
        log.tags(
            {
                k: v
                for k, v in log._pairs("tags", tags or {})
                if folder is None or k not in short_tags
            }
        )
        log.params(params or {})
    except RecordError:  # strict: whoever gets no logger cannot close one
        with contextlib.suppress(DeliveryError):
            log._close("FAILED", "RecordError", waits=False)
        raise
    log._respawn(is_forced=True)
    return log


def _spec(
    log: RunLogger,
    stream: StreamWriter,
    quota: int,
    run_name: str | None,
    tags: dict[str, str],
) -> RunSpec:
    settings = log.settings
    return RunSpec(
        run_uid=log.run_uid,
        experiment=log.experiment,
        created_ns=now_ns(),
        profile=log._profile,
        owner_stream=stream.stream_id,
        owner_pid=os.getpid(),
        owner_start=process_start_time(os.getpid()) or 0,
        run_name=None if run_name is None else _text(run_name)[: limits.RUN_NAME_LENGTH],
        correlation_id=log.correlation_id,
        tags=tags,
        tracking_uri_masked=mask_secrets(settings.tracking_uri),
        artifact_location=settings.experiment_artifact_location,
        batch_size=settings.batch_size,
        flush_interval_s=settings.flush_interval_s,
        sample_interval_s=settings.sample_interval_s,
        sidecar_cpu_percent=settings.sidecar_cpu_percent,
        max_lag_s=settings.max_lag_s,
        delivery=settings.delivery,
        durability=settings.durability,
        sampling=settings.sampling,
        spool_quota_bytes=quota,
        offline=settings.is_offline,
        host=os.uname().nodename,
        source=_text(sys.argv[0]) if sys.argv else "",
        working_folder=_working_folder(),
        visible_devices=settings_module.variable("CUDA_VISIBLE_DEVICES"),
        executable=sys.executable or "",
        usable_cpu_count=count_usable_cpus(),
        thread_limits=settings_module.thread_limits(),
    )


def _said_correlation_id(correlation_id: object) -> str:
    """
    What the caller said, or the code around; empty where nobody did.
    """
    said = _text(correlation_id) if correlation_id is not None else ""
    return said[: limits.TAG_VALUE_LENGTH] or bound_correlation_id() or ""


def _known_correlation_id(folder: Path) -> str | None:
    """
    That of a run which others have started: the same job, if another part of it.
    """
    for place in (folder, folder.parent.parent / spool.DONE / folder.name):
        spec = spool.read_struct(place / spool.RUN_FILE, RunSpec)
        if spec is not None:
            return spec.correlation_id
    return None


def _short_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """
    The tags that the run can be created with; the others go through `tag`, which says what is
    wrong.
    """
    short = {}
    for key, value in tags.items() if isinstance(tags, Mapping) else ():
        try:
            text = _text(value)
        except Exception:  # noqa: BLE001 - the call's border: __str__ is the caller's code; `tag` counts it
            continue
        if limits.check_key(key) is None and len(text) <= limits.TAG_VALUE_LENGTH:
            short[str.__str__(key)] = text
    return short


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _working_folder() -> str:
    try:
        return _text(os.getcwd())
    except OSError:
        return ""  # removed under us


def _checked_uid(run_uid: object) -> str:
    """
    The uid, if it can be a folder's name.
    """
    if isinstance(run_uid, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", run_uid):
        return run_uid
    wanted = "1 to 100 letters, digits, '_', '-' or '.', not beginning with '.' or '-'"
    raise _bad_argument("run_uid", run_uid, wanted)


def _is_text(value: object) -> bool:
    """
    Whether it is text that any store can keep.
    """
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _bad_argument(name: str, value: object, wanted: str) -> RecordError:
    shown = plain.shown(value)
    return RecordError(
        f"{name}={shown}: want {wanted}", kind=ErrorKind.BAD_VALUE, name=name, value=shown
    )


def _open_place(settings: Settings, mistakes: Mistakes) -> tuple[Path | None, str]:
    """
    The scope's folder and the profile of whoever delivers from it; None where there is none.
    """
    try:
        scope = _open_scope(Path(settings.spool_dir))
        return scope, _profile(scope, settings)
    except (QueueError, OSError) as exc:
        problem = str(exc)
    fallback = spool_index.state_folder() / "spool"
    try:
        scope = _open_scope(fallback)
        profile = _profile(scope, settings)
    except (QueueError, OSError):
        mistakes.warn_once(
            "spool", f"{problem}, nor can {fallback}: nothing of this run will be kept"
        )
        return None, ""
    mistakes.warn_once("spool", f"{problem}; using {fallback}")
    return scope, profile


def _open_scope(spool_dir: Path) -> Path:
    """
    As `spool.open_scope`; a spool that is new on this machine, or since its last start, is noted in
    the index.
    """
    is_new = not (spool_dir / spool.scope_name()).exists()
    scope = spool.open_scope(spool_dir)
    if is_new:
        spool_index.register(spool_dir)
    return scope


def _profile(scope: Path, settings: Settings) -> str:
    profile = profile_of(scope, settings)
    return f"{profile}-thread-{os.getpid()}" if settings.worker == "thread" else profile


def _disabled(settings: Settings, experiment: str) -> RunLogger:
    log = DisabledRunLogger(settings, experiment, on_close=forget_logger)
    remember_logger(log, is_published=False)
    return log
