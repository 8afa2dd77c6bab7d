"""
The hooks of one run: which alert calls which, how often, and the calls on their way.

Hooks stand in the user's own rules file and nowhere else: neither the spool nor the program that
logs can make the sidecar run anything. Calls are made in worker threads, so that no record waits
for one; what goes wrong is logged.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread

from allele_mlflow.alerts.rules import Hook, RuleSet
from allele_mlflow.clock import now_monotonic_s, now_ns
from allele_mlflow.errors import SettingsError
from allele_mlflow.records import AlertRaised, RunSpec
from allele_mlflow.rules_file import read_rules
from allele_mlflow.sidecar.hook_calls import call_hook

_logger = logging.getLogger(__name__)

#: Calls of one run at once, and how many may wait.
PARALLEL_CALLS = 4
MOST_WAITING = 100
#: An alert that is found later than that is no news: it calls nobody.
STALE_NS = 3600 * 1_000_000_000
#: A thread may take so much longer than its time-out to come back.
GRACE_S = 2.0
_MINUTE_S = 60.0


class HookLimits:
    """
    How often hooks may be called. Pure; not thread-safe.

    Args:
        per_minute: All of a run together.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._calls_s: deque[float] = deque()
        self._last_s: dict[tuple[str, Hook], float] = {}

    def may_call(self, name: str, hook: Hook, now_s: float) -> bool:
        """
        Whether a hook may be called for alerts of a name now; then it counts as called.
        """
        while self._calls_s and now_s - self._calls_s[0] >= _MINUTE_S:
            self._calls_s.popleft()
        last_s = self._last_s.get((name, hook))
        is_rested = last_s is None or now_s - last_s >= hook.every_s
        if not is_rested or len(self._calls_s) >= self._per_minute:
            return False
        self._calls_s.append(now_s)
        self._last_s[name, hook] = now_s
        return True


class _Job(NamedTuple):
    hook: Hook
    name: str
    payload: bytes


class Hooks:
    """
    The hooks of one run. For the event loop.
    """

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._rules: RuleSet | None = None if spec.alerts_file else RuleSet()
        self._limits = HookLimits(0)
        self._jobs: deque[_Job] = deque()
        self._calling: list[Hook] = []
        self._news = anyio.Event()
        self._done = anyio.Event()
        self._limiter = anyio.CapacityLimiter(PARALLEL_CALLS)
        self._threads = anyio.CapacityLimiter(1000)  # those of hooks that hang keep theirs
        #: Calls that were not made, for they were too many.
        self.left_out = 0

    def offer(self, alert: AlertRaised, payload: Callable[[int], bytes]) -> None:
        """
        Call what is to be called for an alert; returns at once.

        Args:
            alert: The alert.
            payload: Gives what a hook gets, from the number of calls left out so far.
        """
        for hook in self._load().hooks_for(alert):
            if now_ns() - alert.timestamp_ns > STALE_NS:
                _logger.info("run %s: alert too old for a hook", self._spec.run_uid)
                return
            is_room = len(self._jobs) < MOST_WAITING
            if not is_room or not self._limits.may_call(alert.name, hook, now_monotonic_s()):
                self.left_out += 1
                continue
            self._jobs.append(_Job(hook, alert.name, payload(self.left_out)))
            self._news.set()

    async def run(self) -> None:
        """
        Make the calls, until it is cancelled.
        """
        async with anyio.create_task_group() as group:
            while True:
                await self._news.wait()
                self._news = anyio.Event()
                while self._jobs:
                    job = self._jobs.popleft()
                    self._calling.append(job.hook)
                    group.start_soon(self._call, job)

    async def finish(self) -> None:
        """
        Wait for the calls that are under way or wait, as long as the longest time-out at most.
        """
        waiting = [*self._calling, *(job.hook for job in self._jobs)]
        with anyio.move_on_after(max((hook.timeout_s for hook in waiting), default=0.0)):
            while self._jobs or self._calling:
                await self._done.wait()

    async def _call(self, job: _Job) -> None:
        hook = job.hook
        problem: str | None = f"no end within {hook.timeout_s:g} s"
        try:
            async with self._limiter:
                with anyio.move_on_after(hook.timeout_s + GRACE_S):
                    work = partial(call_hook, hook, job.payload, self._folder())
                    problem = await anyio.to_thread.run_sync(
                        work, abandon_on_cancel=True, limiter=self._threads
                    )
        finally:
            self._calling.remove(hook)
            self._done.set()
            self._done = anyio.Event()
        if problem is not None:
            _logger.warning(
                "run %s: hook %s of alert %r: %s", self._spec.run_uid, hook.label, job.name, problem
            )

    def _folder(self) -> Path:
        folder = self._spec.working_folder
        return Path(folder) if folder and os.path.isdir(folder) else Path("/")

    def _load(self) -> RuleSet:
        """
        The file with the hooks, read at the first alert; nothing where it is not the user's own.
        """
        if self._rules is None:
            self._rules = self._read(Path(self._spec.alerts_file))
            self._limits = HookLimits(self._rules.hooks_per_minute)
        return self._rules

    def _read(self, file: Path) -> RuleSet:
        try:
            found = file.stat()
            # whoever can write the spool, or the file, could have us run anything
            is_own = found.st_uid in (0, os.getuid()) and not found.st_mode & stat.S_IWOTH
            if is_own:
                return read_rules(file)
            problem = "want a file that is yours, and that not everybody can write"
        except (SettingsError, OSError) as exc:
            problem = str(exc)
        _logger.warning("run %s: no hooks: %s: %s", self._spec.run_uid, file, problem)
        return RuleSet()
