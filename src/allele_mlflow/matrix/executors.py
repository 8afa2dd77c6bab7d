"""
Where cells run: any `concurrent.futures.Executor`, by a name.

    inline            in this process, one after the other: no isolation, no time-out, for debuggers
    process:N         N at a time on this machine, each in a process of its own
    dask:local        on workers that are started here for the suite (extra `dask`)
    dask:ADDRESS      on the workers of a running Dask cluster
    module:factory    on whatever executor a function of yours returns (executorlib, mpi4py, ...)

Whatever carries it, what it runs is a supervisor that gives the cell a process of its own, so a
cell that is killed breaks no pool. All but `inline`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from allele_mlflow.errors import ErrorKind, MatrixError
from allele_mlflow.matrix import supervisor

#: Attempts that are handed to an executor of unknown size at once.
UNKNOWN_WIDTH = 64
#: Of a cluster, attempts that wait beside each one that runs, so that no worker waits for us.
QUEUED_PER_WORKER = 2

Work = Callable[[bytes], bytes]


class CellExecutor:
    """
    An executor as the runner uses it: submits attempts, knows how many at once.

    Attributes:
        name: As the suite says it.
        width: Attempts at once.
        is_local: Whether cells run on this machine, and end when the runner does.
    """

    def __init__(
        self,
        name: str,
        executor: Executor,
        *,
        width: int,
        is_local: bool,
        work: Work = supervisor.run_cell,
        submit_options: dict[str, Any] | None = None,
        closing: ExitStack | None = None,
    ) -> None:
        self.name = name
        self.width = width
        self.is_local = is_local
        self._executor = executor
        self._work = work
        self._options = submit_options or {}
        self._closing = closing or ExitStack()
        self._futures: set[Future[bytes]] = set()

    def submit(self, request: bytes, *, name: str) -> Future[bytes]:
        """
        Have an attempt run; its result is an encoded `CellResult`.

        Args:
            request: An encoded `CellRequest`.
            name: Unique among all attempts, for engines that run what is lost once more.
        """
        options = dict(self._options)
        if "key" in options:
            options["key"] = name
        future: Future[bytes] = self._executor.submit(self._work, request, **options)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def close(self, *, waits: bool) -> None:
        """
        Give the executor back.

        Args:
            waits: For what still runs; else it is left to itself.
        """
        for future in list(self._futures):
            future.cancel()  # those that have begun go on
        self._executor.shutdown(wait=waits)
        if self.is_local and waits:
            supervisor.close_servers()
        self._closing.close()


class _InlineExecutor(Executor):
    """
    Runs what it is given in the calling thread, at once.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        See `Executor`.
        """
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - an executor's border: it belongs to the future
            future.set_exception(exc)
        return future


def open_executor(name: str, folder: Path) -> CellExecutor:
    """
    The executor of that name.

    Args:
        name: See the module.
        folder: The suite's, for factories beside it.
    Raises:
        MatrixError: there is none of that name, or it cannot be had here.
    """
    kind, _, rest = name.partition(":")
    if name == "inline":
        return CellExecutor(
            name, _InlineExecutor(), width=1, is_local=True, work=supervisor.run_inline
        )
    if kind == "process":
        width = _width(name, rest)
        pool = ThreadPoolExecutor(width, thread_name_prefix="allele-mlflow-cell")
        return CellExecutor(name, pool, width=width, is_local=True)
    if kind == "dask":
        return _open_dask(name, rest)
    if not rest:
        raise _bad(name, "want inline, process:N, dask:local, dask:ADDRESS or module:factory")
    return _open_factory(name, kind, rest, folder)


def _width(name: str, text: str) -> int:
    if text in ("", "auto"):
        return os.cpu_count() or 1
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise _bad(name, "want process:N with N from 1 to 10,000, or process:auto")
    return int(text)


def _open_dask(name: str, where: str) -> CellExecutor:
    try:
        from dask.distributed import Client
    except ImportError as exc:
        raise _bad(name, "Dask is not installed: pip install 'allele-mlflow[dask]'") from exc
    if not where:
        raise _bad(name, "want dask:local, or dask:ADDRESS as in dask:tcp://host:8786")
    closing = ExitStack()
    try:
        # cells are processes of their own: one thread a worker process is what runs one cell
        options: dict[str, Any] = (
            {"n_workers": os.cpu_count(), "threads_per_worker": 1, "dashboard_address": None}
            if where == "local"
            else {"address": where, "timeout": "30s"}
        )
        client = closing.enter_context(Client(set_as_default=False, **options))
        width = sum(client.nthreads().values())
    except (OSError, TimeoutError) as exc:
        closing.close()
        raise _bad(name, f"there is no such cluster ({exc})") from exc
    if not width:
        closing.close()
        raise _bad(name, "the cluster has no worker")
    return CellExecutor(
        name,
        client.get_executor(pure=False, retries=0),
        width=width * QUEUED_PER_WORKER,
        is_local=False,
        submit_options={"key": None},
        closing=closing,
    )


def _open_factory(name: str, module: str, function: str, folder: Path) -> CellExecutor:
    for entry in (str(Path.cwd()), str(folder)):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as exc:
        raise _bad(name, f"want inline, process:N, dask:... or a factory of yours ({exc})") from exc
    executor = factory()
    if not isinstance(executor, Executor) and not hasattr(executor, "submit"):
        raise _bad(
            name, f"it returned {type(executor).__name__}: want a concurrent.futures.Executor"
        )
    width = getattr(executor, "_max_workers", None)
    return CellExecutor(
        name,
        executor,
        width=width if isinstance(width, int) and width > 0 else UNKNOWN_WIDTH,
        is_local=False,
    )


def _bad(name: str, what: str) -> MatrixError:
    return MatrixError(f"executor {name!r}: {what}", kind=ErrorKind.BAD_SUITE, name=name)
