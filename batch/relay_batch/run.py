"""The driver: gives the rows that are left to an engine, until each of them has a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .console import Console
from .engines.engine import Done, Engine, Event, Failed, Lost, StorageFault
from .errors import BatchError
from .jobs import Job, RunSpec
from .jobs_of_rows import job_of
from .locks import Lock, Shard
from .meter import Meter, Metrics
from .plan import Plan
from .progress import HAS_FAILED, IS_DONE, NOT_YET, Progress
from .resume import checked_progress
from .store import Store

WAIT = 0.5
"""Seconds for which the driver waits for events before it shows the progress again."""
PASSES = 3
"""After the last row everything is checked again, and what is not whole runs again; so often, and not for ever."""
MOST_LOST = 20
"""How often a row may be lost. The worker counts those that began; this also ends rows that never begin."""
SHOWN = 20


class StorageFailed(BatchError):
    """The output can't be written or read."""


class TooManyFailures(BatchError):
    """No row has come to a good end for long."""


@dataclass(frozen=True)
class Limits:
    shard: Shard = field(default_factory=Shard)
    failures_in_a_row: int = 100
    """So many failures with no row done between them stop the run: what fails is then not the rows. 0: never."""


class Driver:
    """One run on an engine whose workers have been started."""

    def __init__(
        self, plan: Plan, run: RunSpec, store: Store, engine: Engine, lock: Lock, limits: Limits, console: Console
    ):
        self._plan, self._run, self._store, self._engine, self._lock = plan, run, store, engine, lock
        self._limits, self._console = limits, console
        shard = limits.shard
        self._metrics = Metrics(store, "metrics.jsonl" if shard.of == 1 else f"metrics-{shard.name}.jsonl")
        self.meter = Meter(sum(1 for index in range(plan.manifest.rows) if shard.has(index)))
        self._under_way: dict[int, Job] = {}
        self._again: deque[Job] = deque()
        self._lost: dict[int, int] = {}
        self._failures_in_a_row = 0

    def go(self) -> Progress:
        """Runs until every row of the shard has a record, and returns the state of all rows.

        Raises StorageFailed, NoWorkers, TooManyFailures, and BatchErrors of the table; what is done is kept.
        """
        try:
            self._store.sweep()
            self._engine.begin(self._run)
            for _ in range(PASSES):
                found = self._checked()
                if NOT_YET not in self._mine(found):
                    break
                self._rows(found)
            self._metrics.write(self.meter, last=True)
            return self._checked()
        except OSError as error:
            raise _storage_failed(str(error)) from error

    def _checked(self) -> Progress:
        found = checked_progress(self._store, self._plan.manifest.rows, self._limits.shard, self._console.say)
        mine = self._mine(found)
        self.meter.done, self.meter.failed = mine.count(IS_DONE), mine.count(HAS_FAILED)
        return found

    def _mine(self, found: Progress) -> bytearray:
        return found.states[self._limits.shard.number - 1 :: self._limits.shard.of]

    def _rows(self, found: Progress) -> None:
        jobs = self._jobs(found)
        job = self._next(jobs)
        while job is not None or self._under_way:
            while job is not None and self._engine.wanted() > 0:
                self._under_way[job.index] = job
                self._engine.submit(job)
                job = self._next(jobs)
            for event in self._engine.events(WAIT):
                self._take(event)
            job = job or self._next(jobs)
            self._lock.check()
            self.meter.workers = self._engine.workers()
            self._console.live(self.meter.line())
            self._metrics.write(self.meter)

    def _next(self, jobs: Iterator[Job]) -> Job | None:
        return self._again.popleft() if self._again else next(jobs, None)

    def _jobs(self, found: Progress) -> Iterator[Job]:
        for row in self._plan.table.rows():
            if found.states[row.index] == NOT_YET and self._limits.shard.has(row.index):
                yield job_of(row, self._plan.table.columns)

    def _take(self, event: Event) -> None:
        if isinstance(event, Done) and self._is_known(event.index):
            self._failures_in_a_row = 0
            self.meter.ended(event.pictures)
        elif isinstance(event, Failed) and self._is_known(event.index):
            self._failed(event)
        elif isinstance(event, Lost):
            self._is_lost(event)
        elif isinstance(event, StorageFault):
            raise _storage_failed(f"{event.reason} (worker {event.worker}, row {event.index + 1})")

    def _is_known(self, index: int) -> bool:
        """Whether the row's end is news: a worker that was cut off may end a row that another has ended."""
        return self._under_way.pop(index, None) is not None

    def _failed(self, event: Failed) -> None:
        self.meter.ended(0, failed=True)
        self._failures_in_a_row += 1
        if self.meter.failed <= SHOWN:
            self._console.say(f"Row {event.index + 1} failed: {event.error}")
        most = self._limits.failures_in_a_row
        if most and self._failures_in_a_row >= most:
            raise TooManyFailures(
                f"{most} rows have failed one after the other, the last with: {event.error} Correct what is wrong, then use "
                "`relay-batch retry` on the output folder, and run again. (--stop-after 0 never stops.)"
            )

    def _is_lost(self, event: Lost) -> None:
        job = None if event.index is None else self._under_way.pop(event.index, None)
        row = "" if job is None else f" Row {job.index + 1} runs again."
        self._console.say(f"Worker {event.worker}: {event.reason}.{row}")
        if job is None:
            return
        self._lost[job.index] = self._lost.get(job.index, 0) + 1
        if self._lost[job.index] > MOST_LOST:
            raise BatchError(
                f"Row {job.index + 1} was lost {MOST_LOST} times before it ended. The last: {event.reason}."
            )
        self.meter.retried += 1
        self._again.append(job)


def _storage_failed(reason: str) -> StorageFailed:
    return StorageFailed(
        f"The output can't be written or read: {reason}. What is done is kept. Make room, and give the same command again."
    )
