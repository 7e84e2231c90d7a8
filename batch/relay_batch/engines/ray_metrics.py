"""Counts that Ray gives to Prometheus, with those of all other jobs of the cluster."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from .engine import Done, Event, Failed, Lost, StorageFault

OUTCOMES = {Done: "done", Failed: "failed", Lost: "lost", StorageFault: "storage fault"}
SECONDS = [0.1, 0.5, 1, 2, 5, 10, 20, 60, 300, 1800]


class Metrics:
    """relay_batch_rows_total by outcome, relay_batch_pictures_total, relay_batch_row_seconds, relay_batch_workers."""

    def __init__(self) -> None:
        self._rows = Counter("relay_batch_rows", "Rows that ended, by outcome", ("outcome",))
        self._pictures = Counter("relay_batch_pictures", "Pictures that were published")
        self._seconds = Histogram("relay_batch_row_seconds", "Seconds of a row that is done", SECONDS)
        self._workers = Gauge("relay_batch_workers", "Workers that are ready or at work")

    def count(self, event: Event) -> None:
        if type(event) not in OUTCOMES or (isinstance(event, Lost) and event.index is None):
            return
        self._rows.inc(tags={"outcome": OUTCOMES[type(event)]})
        if isinstance(event, Done):
            if event.pictures:
                self._pictures.inc(event.pictures)
            self._seconds.observe(event.seconds)

    def workers(self, number: int) -> None:
        self._workers.set(number)
