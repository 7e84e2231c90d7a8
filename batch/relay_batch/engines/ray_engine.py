"""Workers as actors of a Ray cluster.

Plain actors and ray.wait, not Ray Data: there, rows waited for a read task that a small machine never ran, a partition stopped healthy
workers too, and attempts can't be counted before they begin. An actor that no machine has room for waits for one that joins.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadPicture
from ..jobs import HostSetup, Job, RunSpec
from .engine import BEAT, SILENT, STARTS, Event, Lost, NoWorkers, Ready, Started
from .ray_cluster import Cluster, check_address, connect, import_ray
from .ray_errors import is_of_the_machine, reason

UNREACHABLE = 20.0
"""Seconds without an answer, after which a machine counts as gone. Ray itself notices it after about 65."""
ANSWER, STOPPING = 60.0, 15.0
PATIENCE = 30.0
"""Seconds without any worker, after which the user is told what is waited for."""


@dataclass(eq=False)
class Actor:
    """A worker as the engine sees it: the answers that are awaited, by what was asked."""

    handle: Any
    failed_starts: int = 0
    name: str = "a new worker"
    is_placed: bool = False
    """Whether it has a machine, which answers beats from now on."""
    is_ready: bool = False
    has_run: bool = False
    job: Job | None = None
    awaited: dict[str, Any] = field(default_factory=dict)
    """{method: reference}"""
    beat: float = 0.0
    """When the last beat was asked for or answered."""

    def ask(self, method: str, *arguments: Any) -> None:
        self.awaited[method] = getattr(self.handle, method).remote(*arguments)


class RayEngine:
    """One actor a worker; Ray chooses the machines. If this process ends, Ray ends them. Raises BatchError for a cluster that is refused."""

    def __init__(self, cluster: Cluster, unreachable: float = UNREACHABLE):
        check_address(cluster)
        self._cluster = cluster
        self._unreachable = unreachable
        self._actors: list[Actor] = []
        self._run: RunSpec | None = None
        self._reason = ""
        self._waiting: list[Event] = []
        self._without_workers: float | None = None

    def start(self, host: HostSetup, workers: int) -> None:
        self._ray = import_ray()
        self._host, self._takes = host, connect(self._cluster, workers)
        from .ray_metrics import Metrics

        self._metrics = Metrics()
        self._without_workers = time.monotonic()
        for _ in range(workers):
            self._create()

    def object_info(self) -> Mapping[str, Any]:
        while True:
            for actor in [one for one in self._actors if one.is_ready]:
                try:
                    return dict(self._ray.get(actor.handle.object_info.remote(), timeout=ANSWER))
                except self._ray.exceptions.RayError as error:
                    self._waiting.append(self._replaced(actor, reason(error)))
            self._waiting += self._next(1.0)

    def begin(self, run: RunSpec) -> None:
        self._run = run
        for actor in self._actors:
            if actor.is_ready:
                self._begin(actor)

    def wanted(self) -> int:
        return len(self._idle())

    def submit(self, job: Job) -> None:
        actor = self._idle()[0]
        actor.job = job
        actor.ask("run", self._sent(job))
        self._waiting.append(Started(actor.name, job.index))

    def events(self, timeout: float) -> Sequence[Event]:
        found, self._waiting = self._waiting, []
        found += self._next(0.0 if found else timeout)
        for event in found:
            self._metrics.count(event)
        self._metrics.workers(self.workers())
        return found

    def workers(self) -> int:
        return sum(actor.is_ready for actor in self._actors)

    def stop(self) -> None:
        if not hasattr(self, "_takes"):
            return
        stopping = [actor.handle.stop.remote() for actor in self._actors if actor.is_ready]
        if stopping:
            self._ray.wait(stopping, num_returns=len(stopping), timeout=STOPPING)
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors = []
        self._ray.shutdown()

    def _create(self, failed_starts: int = 0) -> None:
        from .ray_actor import create

        actor = Actor(create(self._takes), failed_starts)
        actor.ask("silent")
        actor.ask("start", self._host)
        self._actors.append(actor)

    def _idle(self) -> list[Actor]:
        return [actor for actor in self._actors if actor.has_run and actor.job is None]

    def _begin(self, actor: Actor) -> None:
        actor.has_run = False
        actor.ask("begin", self._run)

    def _sent(self, job: Job) -> Job:
        if self._cluster.address is None or not job.pictures:
            return job
        try:
            return job.packed()
        except BadPicture:
            return job  # the worker does not find it either, and records that

    def _next(self, timeout: float) -> list[Event]:
        """Answers that have come, machines that did not answer, and questions whether they still do."""
        if not self._actors:
            raise NoWorkers(f"No worker is left. {self._reason}")
        self._tell_what_is_missing()
        asked = {reference: (actor, method) for actor in self._actors for method, reference in actor.awaited.items()}
        came: list[Any] = []
        if asked:
            came, _ = self._ray.wait(list(asked), num_returns=1, timeout=timeout)
            came, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0) if came else (came, [])
        found: list[Event] = []
        for reference in came:
            actor, method = asked[reference]
            if actor in self._actors:  # otherwise another answer has ended it
                found += self._answered(actor, method, reference)
        return found + self._silent_ones()

    def _answered(self, actor: Actor, method: str, reference: Any) -> list[Event]:
        del actor.awaited[method]
        try:
            answer = self._ray.get(reference, timeout=ANSWER)
        except self._ray.exceptions.RayError as error:
            return [self._failed(actor, method, error)]
        if method == "silent":
            actor.is_placed, actor.beat = True, time.monotonic()
            if answer > SILENT:
                return [self._replaced(actor, f"it was silent for {SILENT:.0f} s")]
        elif method == "start":
            actor.name, actor.is_ready, actor.failed_starts = str(answer), True, 0
            if self._run is not None:
                self._begin(actor)
            return [Ready(actor.name)]
        elif method == "begin":
            actor.has_run = True
        elif method == "run":
            actor.job = None
            return [answer]
        return []

    def _silent_ones(self) -> list[Event]:
        found: list[Event] = []
        now = time.monotonic()
        for actor in [one for one in self._actors if one.is_placed]:
            if "silent" not in actor.awaited and now - actor.beat > BEAT:
                actor.ask("silent")
                actor.beat = now
            elif "silent" in actor.awaited and now - actor.beat > self._unreachable:
                found.append(self._replaced(actor, f"its machine did not answer for {self._unreachable:.0f} s"))
        return found

    def _failed(self, actor: Actor, method: str, error: Exception) -> Lost:
        if method == "begin":  # it would not see the output another time either
            actor.failed_starts = STARTS
        elif not actor.is_ready and not is_of_the_machine(error):
            actor.failed_starts += 1
        return self._replaced(actor, reason(error))

    def _replaced(self, actor: Actor, why: str) -> Lost:
        """Ends a worker, and asks for another in its place unless it can't start."""
        self._ray.kill(actor.handle)
        self._actors.remove(actor)
        self._reason = why
        if actor.failed_starts < STARTS:
            self._create(actor.failed_starts)
        return Lost(actor.name, None if actor.job is None else actor.job.index, why)

    def _tell_what_is_missing(self) -> None:
        """Once, if no machine has room for a worker for a while: the run waits for one that joins."""
        if self._without_workers is None or self.workers():
            self._without_workers = None
        elif time.monotonic() - self._without_workers > PATIENCE:
            free = self._ray.available_resources()
            missing = [name for name, number in self._takes.items() if free.get(name, 0) < number]
            if missing:
                print(f"Waiting for a machine of the Ray cluster with a free {missing[0]}.", file=sys.stderr)
            self._without_workers = None
