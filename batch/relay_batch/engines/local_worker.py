"""The process of a local worker: takes jobs from a pipe, and ends with whoever holds the other end."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ..errors import HostFailed
from ..jobs import HostSetup, Job, RunSpec
from ..worker import Worker
from .engine import BEAT, Ready, Started

LEFT_TO_THE_DRIVER = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Terminals and Slurm send these to all processes. The driver ends its workers, so that the rows under way do not count as attempts; their
ComfyUIs inherit that they ignore them."""
BEAT_SIGN, OBJECT_INFO = "beat", "object_info"


@dataclass(frozen=True)
class CannotStart:
    """The worker's last message: its ComfyUI can't be started."""

    reason: str


@dataclass(frozen=True)
class ObjectInfo:
    """The answer to OBJECT_INFO."""

    nodes: Mapping[str, Any]


class Beats:
    """Sends a sign of life, at most every BEAT seconds."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._last = 0.0

    def __call__(self) -> None:
        if time.monotonic() - self._last > BEAT:
            self._last = time.monotonic()
            with suppress(OSError):  # the driver is gone: `_receive` ends this process
                self._connection.send(BEAT_SIGN)


def serve(connection: Connection, name: str, setup: HostSetup) -> None:
    """Serves until the other end is closed."""
    for one in LEFT_TO_THE_DRIVER:
        if hasattr(signal, one):
            signal.signal(getattr(signal, one), signal.SIG_IGN)
    inbox: queue.Queue[Any] = queue.Queue()
    workers: list[Worker] = []
    threading.Thread(target=_receive, args=(connection, inbox, workers), daemon=True).start()
    beats = Beats(connection)
    try:
        workers.append(Worker(name, setup, beats))
        connection.send(Ready(name))
        _work(connection, inbox, workers[0], beats)
    except HostFailed as error:
        connection.send(CannotStart(str(error)))
        os._exit(1)
    except BrokenPipeError:
        threading.Event().wait()  # the driver is gone: `_receive` ends this process


def _receive(connection: Connection, inbox: queue.Queue[Any], workers: list[Worker]) -> None:
    """Ends the process with the driver: the row under way does not count, and the host ends."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        for worker in workers:
            worker.abandon()
        os._exit(0)


def _work(connection: Connection, inbox: queue.Queue[Any], worker: Worker, beats: Beats) -> None:
    run: RunSpec | None = None
    while True:
        try:
            message = inbox.get(timeout=BEAT)
        except queue.Empty:
            beats()
            continue
        if isinstance(message, RunSpec):
            run = message
        elif isinstance(message, Job):
            assert run is not None
            connection.send(Started(worker.name, message.index))
            connection.send(worker.run(run, message))
        elif message == OBJECT_INFO:
            connection.send(ObjectInfo(worker.object_info()))
