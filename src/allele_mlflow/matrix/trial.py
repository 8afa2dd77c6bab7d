"""
One trial, in whatever process: start its run, warm up, call the benchmark, keep what came out.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

from allele_mlflow import suite_tags as tags
from allele_mlflow.clock import now_monotonic_s, process_cpu_s
from allele_mlflow.errors import AlleleMlflowError
from allele_mlflow.log_context import correlation_context
from allele_mlflow.logger import start_logger
from allele_mlflow.matrix.benchmark import (
    call_benchmark,
    check_objectives,
    find_benchmark,
    full_params,
)
from allele_mlflow.matrix.log_tail import read_tail
from allele_mlflow.matrix.messages import (
    FILES_FOLDER,
    HANDLE_FILE,
    LOG_FILE,
    CellJob,
    CellReport,
    CellRequest,
    failure_of,
)
from allele_mlflow.matrix.suite_alerts import read_alerts
from allele_mlflow.queue import spool
from allele_mlflow.queue.run_reader import RunReader
from allele_mlflow.records import RunSpec
from allele_mlflow.run_logger import RunLogger

#: Slots at the end of a stream in which objectives that were logged are looked for.
NEWEST_SLOTS = 1 << 16
#: Artifact of the run.
LOG_ARTIFACT = "allele/log_tail.txt"
SECONDS_METRIC = "trial/seconds"
WARM_UP_METRIC = "trial/warm_up_seconds"


def run_trial(job: CellJob) -> CellReport:
    """
    Run one trial in this process; what became of it, also where it failed.
    """
    request, folder = job.request, Path(job.folder)
    trial = _Trial(request, folder)
    try:
        log = _start(request, job.run_uid)
    except AlleleMlflowError as exc:
        return _failed(exc, trial)
    if log.handle():
        spool.write_whole(folder / HANDLE_FILE, log.handle().encode())
    try:
        context = correlation_context(
            request.correlation_id or None, run_uid=log.run_uid, cell=request.cell
        )
        with log, context:
            trial.run(log)
    except BaseException as exc:  # noqa: BLE001 - a border: the benchmark's own code; it is reported
        return _failed(exc, trial)
    return trial.report()


def _start(request: CellRequest, run_uid: str) -> RunLogger:
    return start_logger(
        request.experiment,
        run_name=request.cell,
        run_uid=run_uid,
        parent=request.parent or request.parent_run_id,
        correlation_id=request.correlation_id,
        tags=request.tags,
        alerts=read_alerts(request.alerts) or None,
        **(request.settings | {"exit": "detach", "enabled": request.is_tracked}),
    )


class _Trial:
    """
    How far a trial is.
    """

    def __init__(self, request: CellRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._warm_up_s: list[float] = []
        self._metrics: dict[str, float] = {}
        self._seconds: float | None = None
        self._cpu_s: float | None = None
        #: What was logged last, where there is no spool to read it from.
        self._last = LastValues()
        #: What the process writes, where that goes to a file.
        self.log_file = folder / LOG_FILE

    def run(self, log: RunLogger) -> None:
        request = self._request
        if not request.is_tracked:
            self._last.listen(log)
        files = self._folder / FILES_FOLDER
        files.mkdir(mode=0o700, exist_ok=True)
        log.tags(place_tags())
        log.params(request.params)  # known even where the benchmark cannot be imported
        try:
            function = find_benchmark(request.benchmark, Path(request.folder))
            defaults = full_params(function, request.params)
            log.params({name: v for name, v in defaults.items() if name not in request.params})
            log.param("seed", request.seed)
            offered = {"seed": request.seed, "folder": files}
            self._warm_up(function, offered, log)
            begin_s, begin_cpu_s = now_monotonic_s(), process_cpu_s()
            try:
                returned = call_benchmark(function, request.params, offered | {"log": log})
            except SystemExit as exc:
                if exc.code not in (None, 0):
                    raise
                returned = {}
            finally:
                self._seconds = now_monotonic_s() - begin_s
                self._cpu_s = process_cpu_s() - begin_cpu_s
            self._keep_metrics(log, returned)
        except BaseException:  # nothing is kept from anybody: it goes on as it is
            self._keep_log(log)
            raise
        finally:
            if self._seconds is not None:
                log.metric(SECONDS_METRIC, self._seconds)
            self._keep_artifacts(log, files)

    def report(self) -> CellReport:
        """
        That of a trial that finished.
        """
        return CellReport(status="finished", **self.found())

    def found(self) -> dict[str, Any]:
        """
        What there is, however it ended.
        """
        return {
            "metrics": self._metrics,
            "seconds": self._seconds,
            "warm_up_s": self._warm_up_s,
            "cpu_s": self._cpu_s,
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def _warm_up(
        self, function: Callable[..., Any], offered: dict[str, Any], log: RunLogger
    ) -> None:
        if not self._request.warm_ups:
            return
        with start_logger(self._request.experiment, enabled=False) as silent:
            for number in range(self._request.warm_ups):
                begin_s = now_monotonic_s()
                call_benchmark(function, self._request.params, offered | {"log": silent})
                self._warm_up_s.append(now_monotonic_s() - begin_s)
                log.metric(WARM_UP_METRIC, self._warm_up_s[-1], number)

    def _keep_metrics(self, log: RunLogger, returned: dict[str, float]) -> None:
        objectives = self._request.objectives
        logged = newest_values(log) if returned or objectives else {}
        logged |= self._last.values
        # a second point at step 0 would spoil the curve of a metric that was logged step by step
        log.metrics({name: value for name, value in returned.items() if name not in logged})
        wanted = {name: logged[name] for name in objectives if name in logged}
        self._metrics = wanted | returned
        check_objectives(logged | self._metrics, objectives)

    def _keep_log(self, log: RunLogger) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed or replaced by the benchmark
                stream.flush()
        text = read_tail(self.log_file)
        if text:
            log.text(text, LOG_ARTIFACT)

    def _keep_artifacts(self, log: RunLogger, files: Path) -> None:
        for path in matching_files(files, self._request.artifacts):
            parent = path.relative_to(files).parent.as_posix()
            log.artifact(path, None if parent == "." else parent)


class LastValues:
    """
    The last value of each key that a logger which keeps nothing is given.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def listen(self, log: RunLogger) -> None:
        """
        Take the place of the logger's calls for metrics.
        """
        log.metric = self._metric
        log.metrics = self._metrics
        log.series = self._series

    def _metric(self, key: str, value: Any, step: SupportsIndex | None = None) -> None:
        with contextlib.suppress(TypeError, ValueError):  # what the real one would count
            self.values[key] = float(value)

    def _metrics(self, mapping: Mapping[str, Any], step: SupportsIndex | None = None) -> None:
        for key, value in mapping.items():
            self._metric(key, value)

    def _series(self, key: str, values: Any, first_step: SupportsIndex = 0) -> None:
        if len(values):
            self._metric(key, values[-1])


def newest_values(log: RunLogger) -> dict[str, float]:
    """
    What was logged last under each key of a run, as far as the spool still holds it.
    """
    folder = Path(log.handle())
    spec = spool.read_struct(folder / spool.RUN_FILE, RunSpec) if log.handle() else None
    if spec is None:
        return {}
    reader = RunReader(folder, spec)
    try:
        reader.listen()
        return {reading.key: reading.value for reading in reader.newest_readings(NEWEST_SLOTS)}
    finally:
        reader.close()


def place_tags() -> dict[str, str]:
    """
    Where a cell runs, and how busy it is there.
    """
    found = {tags.HOST: os.uname().nodename}
    with contextlib.suppress(OSError):
        found[tags.LOAD] = f"{os.getloadavg()[0]:.2f}"
    return found


def matching_files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """
    The files below a folder that match one of these globs, each once.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                found[path] = None
    return list(found)


def peak_rss_bytes() -> int:
    """
    Most resident memory that this process has had.
    """
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _failed(exc: BaseException, trial: _Trial) -> CellReport:
    failure = failure_of(exc, log_tail=read_tail(trial.log_file))
    return CellReport(status="failed", failure=failure, **trial.found())
