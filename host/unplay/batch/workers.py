"""Who does the work: processes of this machine, or a dask cluster. A worker that dies costs no result."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from types import FrameType
from typing import Any, Protocol, TypeVar

from unplay.errors import BadInputError, UnplayError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

ATTEMPTS = 3
"""A recording at which this many workers died is given up: it may be what kills them."""

CONNECT_S = 10

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""

KEPT_BYTES = 1 << 28
LARGEST_KEPT_BYTES = 1 << 25
"""How much freed memory a worker keeps; the largest array that is taken from it (glibc allows no more)."""


class WorkerDiedError(UnplayError):
    """A process ended while it worked, with nobody else to blame than what it worked at."""


class WorkersLostError(BadInputError):
    """All workers are out of reach."""


class Workers(Protocol):
    """n_at_once: how many tasks to have under way. died: what a future raises when its worker is gone."""

    @property
    def died(self) -> tuple[type[BaseException], ...]: ...

    @property
    def n_at_once(self) -> int: ...

    def submit(self, work: Callable[[Task], Outcome], task: Task) -> Future[Outcome]: ...

    def close(self) -> None: ...


class LocalWorkers:
    """n processes of this machine, each an executor of its own: when one dies only its own task fails."""

    died: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, n: int) -> None:
        self.n_at_once = n
        self._all = [_new_process() for _ in range(n)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for k in range(n):
            self._free.put(k)

    def submit(self, work: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        """The future of work(task); waits until a process is free."""
        k = self._free.get()
        future = self._all[k].submit(_interruptible, work, task)
        future.add_done_callback(lambda ended: self._release(k, ended))
        return future

    def close(self) -> None:
        for process in self._all:
            process.shutdown(cancel_futures=True)

    def _release(self, k: int, ended: Future) -> None:
        if not ended.cancelled() and isinstance(ended.exception(), BrokenProcessPool):
            self._all[k].shutdown(wait=False)
            self._all[k] = _new_process()
        self._free.put(k)


class Cluster:
    """The workers of a dask.distributed scheduler: they need unplay, and see the files by the same paths."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
            from distributed.comm.addressing import get_address_host_port, normalize_address
            from distributed.scheduler import KilledWorker
        except ImportError as error:
            raise BadInputError(
                "--scheduler needs dask.distributed, which is not installed: pip install 'unplay[cluster]'."
            ) from error
        self.died = (KilledWorker,)
        try:
            # a client that could not be made is closed with a traceback, so the address is looked at before
            get_address_host_port(normalize_address(address), strict=True)
            self._client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"There is no dask scheduler at {address} ({error}): start one with `dask scheduler`, and "
                "workers with `dask worker ADDRESS --nthreads 1`."
            ) from error
        self._executor = self._client.get_executor(pure=False)
        try:
            self._require_workers(address)
            self._require_one_version()
        except BadInputError:
            self.close()
            raise

    def _require_workers(self, address: str) -> None:
        try:
            self._client.wait_for_workers(1, CONNECT_S)
        except TimeoutError as error:
            raise BadInputError(
                f"The dask scheduler at {address} has no workers: start some with "
                f"`dask worker {address} --nthreads 1`."
            ) from error

    def _require_one_version(self) -> None:
        """Raises BadInputError where the scheduler or a worker has no unplay, or another."""
        found: Any = self._client.run(version, "unplay", on_error="return")
        try:
            found["the scheduler"] = self._client.run_on_scheduler(version, "unplay")
        except PackageNotFoundError as error:
            found["the scheduler"] = error
        ours = version("unplay")
        for where, theirs in found.items():
            if theirs != ours:
                has = "no unplay" if isinstance(theirs, Exception) else f"unplay {theirs}"
                raise BadInputError(
                    f"{where} has {has}, and here is {ours}: install 'unplay[cluster]' of one version on all "
                    "machines."
                )

    @property
    def n_at_once(self) -> int:
        """Two for each thread, so that none waits for us."""
        threads_of_workers: Any = self._client.nthreads()
        return 2 * max(1, sum(threads_of_workers.values()))

    def submit(self, work: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        return self._executor.submit(_worked_at, work, task)

    def close(self) -> None:
        self._client.close()


def outcomes(
    work: Callable[[Task], Outcome], tasks: Iterable[Task], workers: Workers
) -> Iterator[tuple[Task, Outcome | WorkerDiedError]]:
    """Each task with what work(task) returned, in the order in which they end; a few are under way at a time.

    A task whose worker died is given to another, ATTEMPTS times in all; what it has done must bear being
    done again. Raises WorkersLostError.
    """
    rest = iter(tasks)
    running: dict[Future[Outcome], tuple[Task, int]] = {}
    while True:
        for task in islice(rest, max(0, workers.n_at_once - len(running))):
            running[workers.submit(work, task)] = (task, 1)
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task, n_attempts = running.pop(future)
            try:
                yield task, future.result()
            except workers.died:
                if n_attempts < ATTEMPTS:
                    running[workers.submit(work, task)] = (task, n_attempts + 1)
                else:
                    yield task, WorkerDiedError("its worker died each time, perhaps for want of memory")
            except CancelledError as error:
                raise WorkersLostError(
                    "The scheduler was lost; run the command again when it is back: what is done stands."
                ) from error


def _new_process() -> ProcessPoolExecutor:
    """A process that starts from nothing: what was forked from a process with threads may hang."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin)


def _begin() -> None:
    """One thread a process; and an end with its parent, which would else be waited for for ever."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, _leave)
    _keep_freed_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _interruptible(work: Callable[[Task], Outcome], task: Task) -> Outcome:
    """work(task). Ctrl-C, which a terminal gives to all processes, ends the work so that it tidies up; a
    worker that has nothing to do leaves without a word."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work(task)
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _worked_at(work: Callable[[Task], Outcome], task: Task) -> Outcome:
    """work(task), on a worker that somebody else has started."""
    _keep_freed_memory()
    return work(task)


def _keep_freed_memory() -> None:
    """Have this process use freed memory again instead of giving it back, where its C library is glibc.

    Arrays of some megabytes are taken and freed all the time while a recording is cleaned, and the system
    zeroes every page that is taken anew. Dask's workers give back all above 64 kB (MALLOC_TRIM_THRESHOLD_);
    half of their time went there.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
