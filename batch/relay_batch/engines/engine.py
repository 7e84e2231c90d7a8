"""What an engine is: it keeps workers alive, gives them jobs, and tells the driver what became of each.

Who does what:

- The **worker** (`relay_batch.worker.Worker`) does everything that concerns one row. It counts the attempt in the store before it
  runs the row, and refuses a row whose attempts are used up: then the row's failure is published, and the event is `Failed`.
  It publishes pictures and records itself, each key once (`records.publish_done`, `publish_failed`): a result never passes
  through the engine or the driver. It restarts its own ComfyUI if that ended. It raises `HostFailed` if it can't start it.
- The **engine** starts workers, replaces those that end, and turns what happened to them into events. It neither counts attempts, nor
  retries, nor touches the store. It ends a worker that is `SILENT` seconds silent. A worker that can't start `STARTS` times in
  succession is not replaced; if no worker is left, `events` raises `NoWorkers` with the last reason.
- The **driver** (`relay_batch.run`) reads the rows, submits jobs, submits a job again after its `Lost`, and stops everything after
  a `StorageFault`. It ends when every job that it submitted is `Done` or `Failed`.

So a job may run twice, or on two workers at once (one of them cut off), without harm: the second to publish changes nothing.

A job has its pictures as paths. An engine whose workers can't read the driver's disk sends `job.packed()` instead. The store is named
by text (`RunSpec.store`), and each worker opens it: an engine with workers elsewhere needs a store that they all reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import BatchError
from ..jobs import HostSetup, Job, RunSpec

SILENT = 120.0
"""Seconds without a sign of a worker, after which it is ended. Workers give one about every `BEAT` seconds, also while they start."""
BEAT = 5.0
STARTS = 2


class NoWorkers(BatchError):
    """No worker is left, and none can be started."""


@dataclass(frozen=True)
class Ready:
    """A worker's ComfyUI answers. `worker` is the worker's name in messages: machine and process, or the like."""

    worker: str


@dataclass(frozen=True)
class Started:
    """A worker has begun a row."""

    worker: str
    index: int


@dataclass(frozen=True)
class Done:
    """A row's pictures and record are in the store."""

    worker: str
    index: int
    pictures: int
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A row's own fault; its record is in the store."""

    worker: str
    index: int
    error: str


@dataclass(frozen=True)
class Lost:
    """A worker's fault: it or its ComfyUI ended, or was silent. `index` is the row that it had, which has no record; None if it had none.

    A worker that had several jobs is one `Lost` for each.
    """

    worker: str
    index: int | None
    reason: str


@dataclass(frozen=True)
class StorageFault:
    """The store could not be written or read, or the host's disk is full. The row has no record."""

    worker: str
    index: int
    reason: str


Event = Ready | Started | Done | Failed | Lost | StorageFault
Outcome = Done | Failed | Lost | StorageFault
"""How a job ends: what `Worker.run` returns, and each submitted job gets exactly one of. `Lost` is not its last if it is submitted again."""


class Engine(Protocol):
    """Workers on some machines. The driver calls it from one thread, in the order of the methods here."""

    def start(self, host: HostSetup, workers: int) -> None:
        """Begins to start the workers, and returns at once."""

    def object_info(self) -> Mapping[str, Any]:
        """What the first ComfyUI that is ready answers to /object_info. Waits for it; raises NoWorkers."""

    def begin(self, run: RunSpec) -> None:
        """The run of the jobs that follow. No job of an earlier run is under way."""

    def wanted(self) -> int:
        """How many more jobs it takes now: enough to keep its workers busy, so that the driver holds few rows."""

    def submit(self, job: Job) -> None: ...

    def events(self, timeout: float) -> Sequence[Event]:
        """What has happened since the last call, oldest first. Waits up to `timeout` seconds for the first. Raises NoWorkers."""

    def workers(self) -> int:
        """How many workers are ready or at work now."""

    def stop(self) -> None:
        """Ends all workers, and what they have begun: those rows have no record, and the attempt does not count (`Worker.abandon`)."""
