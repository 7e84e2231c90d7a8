"""Keeps two drivers from running the same rows of one output folder.

A driver's lock is a file in the store, which it rewrites every `BEAT` seconds. A lock that does not change for `STALE` seconds is
that of a driver that ended, and so is one of this machine whose process is not there. Clocks are not compared.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from .errors import BadOutput
from .store import Store

FOLDER = "locks"
BEAT, STALE = 10.0, 45.0


@dataclass(frozen=True)
class Shard:
    """Every `of`-th row, from row `number` on: 1 is the first."""

    number: int = 1
    of: int = 1

    @property
    def name(self) -> str:
        return f"{self.number}-of-{self.of}"

    def has(self, index: int) -> bool:
        return index >= 0 and index % self.of == self.number - 1


@dataclass(frozen=True)
class Owner:
    """The driver that holds a lock. `beats` counts, so that a lock that is alive changes."""

    token: str
    machine: str
    process: int
    began: float
    """The process's start, in seconds since 1970: another process may get its number later."""
    beats: int = 0


class Lock:
    """The lock of one shard, kept alive by a thread. Raises BadOutput if another driver runs its rows.

    Args:
        waiting: is called with a text before it waits for another machine's lock.
    """

    def __init__(self, store: Store, shard: Shard, waiting: Callable[[str], None] = lambda text: None):
        self._store = store
        self._name = f"{FOLDER}/{shard.name}.json"
        self._owner = _this_process()
        self._fault: Exception | None = None
        self._ended = threading.Event()
        for name, owner in list(_locks(store)):
            if name == self._name or not _are_apart(shard, name):
                _refuse_if_alive(store, name, owner, waiting)
                store.remove(name)
        if not store.write_new(self._name, _as_json(self._owner)):
            raise BadOutput("Another driver has just begun the same rows. Wait for it, or use another --shard.")
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what the lock's thread met: BadOutput if another driver took over, OSError if the lock can't be written."""
        if self._fault is not None:
            raise self._fault

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            self._store.remove(self._name)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                if not self._is_ours():
                    raise BadOutput("Another driver took over the same rows. This one stops.")
                self._owner = dataclasses.replace(self._owner, beats=self._owner.beats + 1)
                self._store.replace(self._name, _as_json(self._owner))
            except (OSError, BadOutput) as error:
                self._fault = error
                return

    def _is_ours(self) -> bool:
        found = _read(self._store, self._name)
        return found is not None and found.token == self._owner.token


def drivers(store: Store) -> list[tuple[str, Owner]]:
    """(shard's name, driver) of each lock; the driver may have ended."""
    return [(name.rpartition("/")[2].removesuffix(".json"), owner) for name, owner in _locks(store)]


def _this_process() -> Owner:
    return Owner(uuid.uuid4().hex, this_machine(), os.getpid(), psutil.Process().create_time())


def this_machine() -> str:
    """Its name; on Linux with the space of process ids, which is a container's own."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _as_json(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _read(store: Store, name: str) -> Owner | None:
    try:
        raw: dict[str, Any] = json.loads(store.read(name))
        return Owner(**raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BadOutput(f"{name} is no lock of this relay-batch ({error}). Remove it if no driver runs.") from error


def _locks(store: Store) -> Iterator[tuple[str, Owner]]:
    for name in sorted(store.names(FOLDER)):
        owner = _read(store, name)
        if owner is not None:
            yield name, owner


def _are_apart(shard: Shard, name: str) -> bool:
    """Whether a lock is of another shard of the same division, which has none of these rows."""
    return name.endswith(f"-of-{shard.of}.json")


def _refuse_if_alive(store: Store, name: str, owner: Owner, waiting: Callable[[str], None]) -> None:
    where = f"process {owner.process} on {owner.machine.split()[0]}"
    message = f"Another driver runs in this output folder: {where} ({name}). Wait for it, or end it first."
    if owner.machine == this_machine():
        if _is_there(owner):
            raise BadOutput(message)
        return
    waiting(f"There is a lock of {where}: waiting {STALE:.0f} s to see whether that is alive.")
    until = time.monotonic() + STALE
    while time.monotonic() < until:
        time.sleep(1)
        if _read(store, name) != owner:
            raise BadOutput(message)


def _is_there(owner: Owner) -> bool:
    try:
        return abs(psutil.Process(owner.process).create_time() - owner.began) < 1
    except psutil.Error:
        return False
