"""Counts what happens in a run: for the living line, and for metrics.jsonl."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .store import Store

WINDOW = 600.0
"""Seconds over which the speed is measured."""
BETWEEN_METRICS = 10.0


@dataclass
class Meter:
    """The state of a run: rows of this driver's shard."""

    rows: int
    done: int = 0
    failed: int = 0
    retried: int = 0
    pictures: int = 0
    """Made by this driver."""
    workers: int = 0
    _lately: int = 0
    """Pictures of the rows in `_ends`."""
    _began: float = field(default_factory=time.monotonic)
    _ends: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def left(self) -> int:
        return self.rows - self.done - self.failed

    def ended(self, pictures: int, *, failed: bool = False) -> None:
        """A row has ended, with so many pictures."""
        if failed:
            self.failed += 1
        else:
            self.done += 1
        self.pictures += pictures
        self._ends.append((time.monotonic(), pictures))
        self._lately += pictures

    def speed(self) -> tuple[float, float]:
        """(rows a second, pictures a second) of the last ten minutes."""
        now = time.monotonic()
        while self._ends and now - self._ends[0][0] > WINDOW:
            self._lately -= self._ends.popleft()[1]
        seconds = max(min(now - self._began, WINDOW), 1e-3)
        return len(self._ends) / seconds, self._lately / seconds

    def line(self) -> str:
        rows, pictures = self.speed()
        parts = [f"{self.done} of {self.rows} rows done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.retried} retried"] if self.retried else []
        parts += [f"{pictures:.2f} pictures/s"]
        parts += [f"{timedelta(seconds=round(self.left / rows))} left"] if rows and self.left else []
        parts += [f"{self.workers} worker{'s' * (self.workers != 1)}"]
        return ", ".join(parts)

    def as_json(self) -> str:
        rows, pictures = self.speed()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        counted = {"rows": self.rows, "done": self.done, "failed": self.failed, "left": self.left}
        speeds = {"rows_per_second": round(rows, 4), "pictures_per_second": round(pictures, 4)}
        return json.dumps(
            {
                "time": now,
                **counted,
                "retried": self.retried,
                "pictures": self.pictures,
                **speeds,
                "workers": self.workers,
            }
        )


class Metrics:
    """Appends the meter to a file in the store, at most every `BETWEEN_METRICS` seconds."""

    def __init__(self, store: Store, name: str):
        self._store, self._name = store, name
        self._next = 0.0

    def write(self, meter: Meter, *, last: bool = False) -> None:
        if last or time.monotonic() >= self._next:
            self._next = time.monotonic() + BETWEEN_METRICS
            self._store.append(self._name, meter.as_json().encode() + b"\n")
