"""A job in a thread of its own, which reports progress and can be cancelled at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TypeVar

from .monitor import Monitor

T = TypeVar("T")

POLL_SECONDS = 0.1


@dataclass
class Transfer:
    """What the thread that downloads and the one that watches it tell each other."""

    bytes_done: int = 0
    cancelled: Event = field(default_factory=Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


class Cancelled(Exception):
    """Ends the downloading thread; nobody sees it."""


def run_watched(job: Callable[[Transfer], T], monitor: Monitor, bytes_total: int = 0) -> T:
    """Runs ``job`` in a thread of its own, with progress, until it ends or the user cancels.

    A library may wait for a server for minutes, and ask nobody meanwhile. So a cancel leaves at once; the thread ends by
    itself with the chunk that it waits for.

    Raises:
        whatever ``job`` or ``monitor`` raises, unchanged.
    """
    transfer = Transfer()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(job(transfer))
        except BaseException as error:  # raised anew in the watching thread
            errors.append(error)

    thread = Thread(target=work, name="diffusers-relay-download", daemon=True)
    thread.start()
    shown = None
    try:
        running = True
        while running:
            thread.join(POLL_SECONDS)
            running = thread.is_alive()  # asked first, so that the last round shows the last byte
            monitor.check()
            if bytes_total and transfer.bytes_done != shown:
                shown = transfer.bytes_done
                monitor.progress(shown, bytes_total)
    except BaseException:
        transfer.cancelled.set()
        raise
    if errors:
        raise errors[0]
    return results[0]
