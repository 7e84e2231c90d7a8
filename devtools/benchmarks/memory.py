"""The peak memory of a process, and the page cache."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

INTERVAL_SECONDS = 0.005


@dataclass(frozen=True)
class Memory:
    """MB."""

    resident: float
    """Resident set, including pages of mapped files."""
    private: float
    """Resident set without mapped files and shared memory; the same as `resident` if the system doesn't report it (not Linux)."""

    def __sub__(self, base: Memory) -> Memory:
        return Memory(self.resident - base.resident, self.private - base.private)


def memory_of(pid: int) -> Memory:
    info = psutil.Process(pid).memory_info()
    return Memory(info.rss / 1e6, (info.rss - getattr(info, "shared", 0)) / 1e6)


class PeakWatcher:
    """A thread that reads a process's size every few milliseconds; `peak` is the increase since the start."""

    def __init__(self, pid: int | None = None) -> None:
        self.pid = os.getpid() if pid is None else pid
        self.base = self._highest = memory_of(self.pid)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def peak(self) -> Memory:
        return self._highest - self.base

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        now = memory_of(self.pid)
        self._highest = Memory(max(now.resident, self._highest.resident), max(now.private, self._highest.private))

    def __enter__(self) -> PeakWatcher:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self._look()


def forget_pages(paths: Iterable[Path]) -> bool:
    """Asks the system to drop the files from its page cache, so that they are read from disk again. Returns False if it can't.

    Pages mapped by another process stay.
    """
    if sys.platform == "win32" or not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # pages not yet written to disk would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
