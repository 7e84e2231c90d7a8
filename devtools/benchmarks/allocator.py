"""How much time the pack's CPU runs save if glibc's allocator keeps its memory, and how much memory that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .glibc import is_glibc
from .graphs import Request, relay_graph
from .memory import PeakWatcher
from .models import BenchModel, bench_model
from .rows import Row, compared, not_there
from .served import BenchServer, quantities, timed
from .settings import Settings
from .timing import Quantities, interleave

LARGER_SIDE = 512


def run(settings: Settings) -> Iterator[Row]:
    if settings.gpu or not is_glibc():
        yield not_there("set / default", "this is a glibc setting, for runs on a CPU")
        return
    model = bench_model("sd15", settings)
    yield from rows_of(model, settings, settings.warm_up)
    if not settings.quick and not settings.tiny:
        yield from rows_of(replace(model, side=LARGER_SIDE), settings, 0)


def rows_of(model: BenchModel, settings: Settings, warm_up: int) -> Iterator[Row]:
    """A new server for each turn, because the allocator adapts differently in every process."""
    request = Request(settings.run_steps)

    def contender(default_allocator: bool) -> Callable[[int], Quantities]:
        def turn(number: int) -> Quantities:
            with (
                BenchServer(model, settings, default_allocator=default_allocator) as server,
                PeakWatcher(server.pid) as watcher,
            ):
                first = timed(server, relay_graph(model, request.with_seed(number)).prompt)
                second = quantities(server, relay_graph(model, request.with_seed(number + 1000)))
            peak = {"peak": watcher.peak.resident, "private": watcher.peak.private}
            return {"first": first.seconds, **first.whole_faults("first", request.run_steps), **second, **peak}

        return turn

    contenders = {"set": contender(default_allocator=False), "default": contender(default_allocator=True)}
    samples = interleave(contenders, settings.rounds, warm_up=warm_up)
    title = f"{model.kind} {model.side}x{model.side}, {request.run_steps} steps:"
    for quantity, what in (("denoising", "per step"), ("whole", "second run"), ("first", "first run")):
        yield compared(f"{title} {what}, set / default", samples, f"set.{quantity}", f"default.{quantity}")
    for quantity, what in (("peak", "resident set"), ("private", "resident set without mapped files")):
        row = compared(f"{title} {what} at the peak", samples, f"set.{quantity}", f"default.{quantity}")
        yield replace(row, unit="MB")
