"""Workers as processes on this machine."""

from __future__ import annotations

import atexit
import dataclasses
import multiprocessing
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ..devices import of_worker
from ..jobs import HostSetup, Job, RunSpec
from .engine import SILENT, STARTS, Done, Event, Failed, Lost, NoWorkers, Ready, StorageFault
from .local_worker import BEAT_SIGN, OBJECT_INFO, CannotStart, ObjectInfo, serve

SPAWN = multiprocessing.get_context("spawn")
ENDING = 15.0
"""Seconds that a worker has to end its ComfyUI."""


@dataclass(eq=False)
class Slot:
    """The place of one worker: its process, or the last that it had."""

    name: str
    setup: HostSetup
    process: Any
    connection: Connection
    heard: float
    is_ready: bool = False
    job: Job | None = None
    failed_starts: int = 0


class LocalEngine:
    """N workers, each a process with a ComfyUI. If this process ends, they end.

    Args:
        devices: the GPUs that the workers share, in turns; none: each worker sees what this process sees.
    """

    def __init__(self, devices: Sequence[str] = (), silent: float = SILENT):
        self._devices = devices
        self._silent = silent
        self._slots: list[Slot] = []
        self._run: RunSpec | None = None
        self._reason = ""
        self._waiting: list[Event] = []
        self._object_info: Mapping[str, Any] | None = None

    def start(self, host: HostSetup, workers: int) -> None:
        atexit.register(self.stop)  # before multiprocessing waits for its processes
        for number in range(workers):
            setup = dataclasses.replace(host, environment={**host.environment, **of_worker(self._devices, number)})
            name = f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{number + 1}"
            self._slots.append(Slot(name, setup, *_spawned(name, setup), time.monotonic()))

    def object_info(self) -> Mapping[str, Any]:
        asked: Slot | None = None
        while self._object_info is None:
            if asked not in self._slots or not asked.is_ready:
                asked = next((slot for slot in self._slots if slot.is_ready), None)
                if asked is not None:
                    self._send(asked, OBJECT_INFO)
            self._waiting += self._new_events(1.0)
        return self._object_info

    def begin(self, run: RunSpec) -> None:
        self._run = run
        for slot in self._slots:
            if slot.is_ready:
                self._send(slot, run)

    def wanted(self) -> int:
        return sum(1 for slot in self._slots if slot.is_ready and slot.job is None)

    def submit(self, job: Job) -> None:
        slot = next(slot for slot in self._slots if slot.is_ready and slot.job is None)
        slot.job = job
        self._send(slot, job)

    def events(self, timeout: float) -> Sequence[Event]:
        waiting, self._waiting = self._waiting, []
        return waiting or self._new_events(timeout)

    def workers(self) -> int:
        return sum(slot.is_ready for slot in self._slots)

    def stop(self) -> None:
        for slot in self._slots:
            slot.connection.close()  # the worker takes its attempt back, and ends
        until = time.monotonic() + ENDING
        for slot in self._slots:
            slot.process.join(max(0.0, until - time.monotonic()))
            if slot.process.is_alive():
                slot.process.kill()
                slot.process.join()
        self._slots = []
        atexit.unregister(self.stop)

    def _new_events(self, timeout: float) -> list[Event]:
        found: list[Event] = []
        if not self._slots:
            raise NoWorkers(f"No worker is left. {self._reason}")
        heard = wait([slot.connection for slot in self._slots], timeout)
        for slot in [slot for slot in self._slots if slot.connection in heard]:
            found += self._received(slot)
        for slot in list(self._slots):
            if time.monotonic() - slot.heard > self._silent:
                found.append(self._replaced(slot, f"it was silent for {self._silent:.0f} s"))
        return found

    def _received(self, slot: Slot) -> list[Event]:
        try:
            message = slot.connection.recv()
        except (EOFError, OSError):
            slot.process.join(ENDING)
            return [self._replaced(slot, f"its process ended (exit code {slot.process.exitcode})")]
        slot.heard = time.monotonic()
        if message == BEAT_SIGN:
            return []
        if isinstance(message, ObjectInfo):
            self._object_info = message.nodes
            return []
        if isinstance(message, CannotStart):
            slot.failed_starts += 1
            return [self._replaced(slot, message.reason)]
        if isinstance(message, Ready):
            slot.is_ready, slot.failed_starts = True, 0
            if self._run is not None:
                self._send(slot, self._run)
        if isinstance(message, (Done, Failed, Lost, StorageFault)):
            slot.job = None
        return [message]

    def _send(self, slot: Slot, message: object) -> None:
        try:
            slot.connection.send(message)
        except OSError:  # it has ended: the next `events` finds that
            slot.is_ready = False

    def _replaced(self, slot: Slot, reason: str) -> Lost:
        """Ends a worker, and starts another in its place unless it can't start."""
        slot.connection.close()
        slot.process.kill()
        slot.process.join()
        lost = Lost(slot.name, None if slot.job is None else slot.job.index, reason)
        self._reason = reason
        self._slots.remove(slot)
        if slot.failed_starts < STARTS:
            new = Slot(slot.name, slot.setup, *_spawned(slot.name, slot.setup), time.monotonic())
            new.failed_starts = slot.failed_starts
            self._slots.append(new)
        return lost


def _spawned(name: str, setup: HostSetup) -> tuple[Any, Connection]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=serve, args=(theirs, name, setup), name=f"relay-batch {name}", daemon=True)
    process.start()
    theirs.close()
    return process, ours
