"""Where workers do tasks: in this process, in several, or on a Ray cluster. All give futures."""

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
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import torch

from unhot.bench.privacy import send_nothing
from unhot.bench.worker import Worker, WorkerConfig
from unhot.errors import InputError
from unhot.runtime import no_progress

T = TypeVar("T")

RETRIES = 3


class Backend(Protocol):
    """Lets workers do tasks."""

    @property
    def slots(self) -> int:
        """How many tasks are done at once."""

    def submit(self, config: WorkerConfig, do: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """Begin ``do(worker, *args, *models)`` with a worker of this config, as far as it fits where that is."""

    def close(self) -> None:
        """End; what is being computed is given up."""


class Host:
    """Keeps the worker of a process from task to task; one of another config takes its place."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def do(self, config: WorkerConfig, do: Callable[..., T], *args: Any) -> T:
        """Let a worker of this config do a task."""
        if self._worker is None or self._worker.config != config:
            self._worker = Worker(config)
        return do(self._worker, *args)


HOST = Host()  # of a process that is nothing but a worker: of a pool, or of Ray


def _do(config: WorkerConfig, do: Callable[..., T], *args: Any) -> T:
    """Do a task in such a process."""
    return HOST.do(config, do, *args)


class Inline:
    """One task after the other in this process."""

    slots = 1

    def __init__(self) -> None:
        self._host = Host()

    def submit(self, config: WorkerConfig, do: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`."""
        future: Future[T] = Future()
        try:
            future.set_result(self._host.do(config, do, *args, *models))
        except Exception as error:  # a method may raise anything
            future.set_exception(error)
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._host = Host()


class Local:
    """Several processes on this machine, each with a device or a share of the cores of its own.

    Args:
        workers: The number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.slots = workers
        gpus = torch.cuda.device_count()
        threads = max(1, (os.cpu_count() or 1) // workers)
        self._free: SimpleQueue[_Process] = SimpleQueue()
        self._all = [_Process(f"cuda:{i % gpus}" if gpus else "cpu", threads) for i in range(workers)]
        for process in self._all:
            self._free.put(process)
        self._others = set(active_children())

    def submit(self, config: WorkerConfig, do: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`."""
        process = self._free.get()
        future: Future[T] = process.submit(_placed(config, process.device, process.threads), do, *args, *models)
        future.add_done_callback(lambda _: self._free.put(process))
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        for process in self._all:
            process.close()
        for child in set(active_children()) - self._others:
            child.terminate()


class _Process:
    """A process that does one task after the other, on one device."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = device, threads
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, config: WorkerConfig, do: Callable[..., T], *args: Any) -> Future[T]:
        """Begin a task; if the process was killed, in a new one."""
        while True:
            self._pool = self._pool or ProcessPoolExecutor(1, get_context("spawn"), _in_worker)
            try:
                with _unheard():
                    return self._pool.submit(_do, config, do, *args)
            except BrokenExecutor:
                self._pool = None

    def close(self) -> None:
        """Give up what is being computed."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class RayCluster:
    """A Ray cluster, or a Ray of its own on this machine.

    Models travel through Ray's object store; the data sets must be on every machine, at the same place.

    Args:
        address: The address of the cluster; None for a new one on this machine.
        cpus: CPUs for each task.
        gpus: GPUs for each task; a fraction lets several share one.
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
        """As many tasks as the cluster has room for now."""
        there = self._ray.cluster_resources()
        by_cpu = int(there.get("CPU", 0) // self._cpus) if self._cpus else 1
        return max(1, min(by_cpu, int(there.get("GPU", 0) / self._gpus)) if self._gpus else by_cpu)

    def submit(self, config: WorkerConfig, do: Callable[..., T], *args: Any, models: Sequence[Path] = ()) -> Future[T]:
        """See :meth:`Backend.submit`; a task whose worker is lost is tried again elsewhere."""
        placed = _placed(config, None if self._gpus else "cpu", max(1, int(self._cpus)))
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "max_retries": RETRIES}
        reference = self._ray.remote(_do).options(**options).remote(placed, do, *args, *map(self._sent, models))
        future: Future[T] = reference.future()
        return future

    def close(self) -> None:
        """See :meth:`Backend.close`."""
        self._ray.shutdown()

    def _sent(self, folder: Path) -> Any:
        if folder not in self._models:
            self._models[folder] = self._ray.put({p.name: p.read_bytes() for p in folder.iterdir()})
        return self._models[folder]


def _placed(config: WorkerConfig, device: str | None, threads: int) -> WorkerConfig:
    """Fit a config to a process of its own: it cannot show progress on this terminal."""
    return replace(config, device=config.device or device, threads=threads, progress=no_progress)


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
