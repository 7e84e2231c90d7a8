"""What runs on a machine of the Ray cluster: a worker with its ComfyUI, as an actor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from ..errors import BadOutput
from ..jobs import HostSetup, Job, RunSpec
from ..manifest import NAME
from ..store import open_store
from ..worker import Worker
from .engine import Outcome

BEATS = "beats"
"""The concurrency group of what is answered while a row runs."""


class RayWorker:
    """A worker. Everything that can fail is in `start`, so that the machine answers beats before and while ComfyUI starts."""

    def __init__(self) -> None:
        # Ray sets it to the number of CPUs that an actor takes, which is none: ComfyUI would run on one thread.
        os.environ.pop("OMP_NUM_THREADS", None)
        self._machine = ray.util.get_node_ip_address()
        self._last_sign = time.monotonic()
        self._is_at_work = False
        self._run: RunSpec | None = None
        self._worker: Worker | None = None

    def start(self, setup: HostSetup) -> str:
        """Returns the worker's name when its ComfyUI answers: the machine's address and the process id. Raises HostFailed."""
        name = f"{self._machine.replace('.', '-').replace(':', '-')}-{os.getpid()}"
        with self._work():
            self._worker = Worker(name, setup, self._sign)
        return name

    def object_info(self) -> Mapping[str, Any]:
        assert self._worker is not None
        return self._worker.object_info()

    def begin(self, run: RunSpec) -> None:
        """Raises BadOutput if this machine does not see the run's output."""
        try:
            open_store(run.store).read(NAME)
        except OSError as error:
            raise BadOutput(
                f"The machine {self._machine} does not see the run in {run.store} ({error}). "
                "Use a folder that all machines share, or s3://BUCKET/PREFIX."
            ) from error
        self._run = run

    def run(self, job: Job) -> Outcome:
        assert self._worker is not None and self._run is not None
        with self._work():
            return self._worker.run(self._run, job)

    @ray.method(concurrency_group=BEATS)
    def silent(self) -> float:
        """Seconds since the last sign of what runs; 0 if nothing runs."""
        return time.monotonic() - self._last_sign if self._is_at_work else 0.0

    @ray.method(concurrency_group=BEATS)
    def stop(self) -> None:
        """Ends ComfyUI. The row that runs does not count as begun."""
        if self._worker is not None:
            self._worker.abandon()

    @contextmanager
    def _work(self) -> Iterator[None]:
        self._sign()
        self._is_at_work = True
        try:
            yield
        finally:
            self._is_at_work = False

    def _sign(self) -> None:
        self._last_sign = time.monotonic()


def create(takes: Mapping[str, float]) -> Any:
    """A new actor's handle, at once. It waits for a machine that has what it takes; Ray restarts and repeats nothing of it."""
    remote = ray.remote(
        num_cpus=0,
        num_gpus=takes.get("GPU", 0),
        resources={name: number for name, number in takes.items() if name != "GPU"},
        max_restarts=0,
        max_task_retries=0,
        concurrency_groups={BEATS: 2},
    )(RayWorker)
    return remote.remote()
