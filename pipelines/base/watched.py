"""Runs a job in a thread, with progress and with a cancel that works at any moment."""

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
    """State that the downloading and the watching thread share."""

    bytes_done: int = 0
    cancelled: Event = field(default_factory=Event)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


class Cancelled(Exception):
    """Ends the downloading thread; it never reaches the user."""


def run_watched(job: Callable[[Transfer], T], monitor: Monitor, bytes_total: int = 0) -> T:
    """Runs ``job`` in a thread, with progress, until it ends or the user cancels.

    A library may wait for a server for minutes without checking for a cancel. Therefore a cancel returns at once, and the
    thread ends by itself after the chunk that it waits for.

    Raises:
        any exception of ``job`` or ``monitor``, unchanged.
    """
    transfer = Transfer()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(job(transfer))
        except BaseException as error:  # raised again in the watching thread
            errors.append(error)

    thread = Thread(target=work, name="diffusers-relay-download", daemon=True)
    thread.start()
    shown = None
    try:
        running = True
        while running:
            thread.join(POLL_SECONDS)
            running = thread.is_alive()  # before the progress, so that the last round reports the last byte
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
