"""Where pieces of work are computed: in this process, in several, or on a Ray cluster. All give futures."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from unhot.bench.privacy import send_nothing
from unhot.bench.work import WorkerConfig
from unhot.errors import InputError
from unhot.runtime import no_progress

T = TypeVar("T")

RETRIES = 3


class Backend(Protocol):
    """Computes pieces of work."""

    @property
    def slots(self) -> int:
        """How many pieces are computed at once."""

    def submit(self, function: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """Begin ``function(*args, *models)``, where a :class:`WorkerConfig` among ``args`` is made to fit."""

    def close(self) -> None:
        """End; what is being computed is given up."""


class Inline:
    """One piece after the other in this process."""

    slots = 1

    def submit(self, function: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, *models))
        except Exception as error:  # a method may raise anything
            future.set_exception(error)
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""


class Local:
    """Several processes on this machine, each with a device or a share of the cores of its own.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        gpus = torch.cuda.device_count()
        self._devices = [f"cuda:{i % gpus}" if gpus else "cpu" for i in range(workers)]
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._pool: ProcessPoolExecutor | None = None
        self._others = set(active_children())

    def submit(self, function: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`."""
        device = self._devices.pop(0)
        placed = [_placed(a, device, self._threads) for a in args]
        # a worker that is killed breaks the pool: all that was in it fails, and a new pool takes the next piece
        for _ in range(2):
            self._pool = self._pool or ProcessPoolExecutor(self.slots, get_context("spawn"), _in_worker)
            try:
                with _unheard():
                    future: Future[T] = self._pool.submit(function, *placed, *models)
                break
            except BrokenExecutor:
                self._pool = None
        future.add_done_callback(lambda _: self._devices.append(device))
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - self._others:
                child.terminate()


class RayCluster:
    """A Ray cluster, or a Ray of its own on this machine.

    Models travel through Ray's object store; the data sets must be on every machine, at the same place.

    Args:
        address: Of the cluster; None for a new one on this machine.
        cpus: For each piece of work.
        gpus: For each piece of work; a fraction lets several share one.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0) -> None:
        send_nothing()
        try:
            import ray
        except ImportError as error:
            raise InputError("Ray is not installed. Install it with: pip install 'unhot[ray]'.") from error
        self._ray, self._cpus, self._gpus = ray, cpus, gpus
        self._models: dict[Path, Any] = {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            if address is None:
                raise
            raise InputError(f"There is no Ray cluster at {address!r}. Check --ray-address.") from error

    @property
    def slots(self) -> int:
        """As many pieces as the cluster has room for now."""
        there = self._ray.cluster_resources()
        by_cpu = int(there.get("CPU", 0) // self._cpus) if self._cpus else 1
        return max(1, min(by_cpu, int(there.get("GPU", 0) / self._gpus)) if self._gpus else by_cpu)

    def submit(self, function: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`; a piece whose worker is lost is tried again elsewhere."""
        threads = max(1, int(self._cpus))
        placed = [_placed(a, None if self._gpus else "cpu", threads) for a in args]
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": RETRIES}
        reference = self._ray.remote(function).options(**options).remote(*placed, *map(self._sent, models))
        future: Future[T] = reference.future()
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._ray.shutdown()

    def _sent(self, folder: Path) -> Any:
        if folder not in self._models:
            self._models[folder] = self._ray.put({p.name: p.read_bytes() for p in folder.iterdir()})
        return self._models[folder]


def _placed(argument: Any, device: str | None, threads: int) -> Any:
    """Give a place to a worker: it cannot show progress on this terminal."""
    if not isinstance(argument, WorkerConfig):
        return argument
    return replace(argument, device=argument.device or device, threads=threads, progress=no_progress)


@contextmanager
def _unheard() -> Iterator[None]:
    """Let processes that are started in the block not hear Ctrl-C, from their first import on; this one hears it later.

    Windows has no such thing: there a worker hears it until it ignores it itself.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows what is going on
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent has ended, however that ended: nobody is left to take what it computes."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
