"""The pack against ComfyUI's own nodes: same checkpoint file, sampler and steps, each in its own server; first and second run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .graphs import Built, Request, native_graph, relay_graph
from .memory import PeakWatcher, forget_pages
from .models import BenchModel, bench_model
from .options import available, choices
from .rows import Row, compared, not_there
from .served import SDPA, BenchServer, timed
from .settings import Settings
from .timing import Quantities, interleave

FIRST_AIM = 0.80
SECOND_AIM, SECOND_AIM_GPU, BEST_AIM = 0.90, 0.95, 0.75


def run(settings: Settings) -> Iterator[Row]:
    kinds = ("sd15", "sdxl") if settings.gpu and not settings.quick else ("sd15",)
    for kind in kinds:
        yield from rows_of(bench_model(kind, settings, checkpoint=True), settings)


def rows_of(model: BenchModel, settings: Settings) -> Iterator[Row]:
    request = Request(settings.run_steps)

    def ours(request: Request) -> Built:
        return relay_graph(model, request)

    def best(request: Request) -> Built:
        return relay_graph(model, request, choices(matmul="onednn"))

    def native(request: Request) -> Built:
        return native_graph(model, request)

    contenders: dict[str, Callable[[int], Quantities]] = {
        "ours": lambda turn: first_and_second(model, settings, ours, request, turn),
        "native": lambda turn: first_and_second(model, settings, native, request, turn),
        "sdpa": lambda turn: first_and_second(model, settings, native, request, turn, (SDPA,)),
    }
    with BenchServer(model, settings) as server:
        has_matmul = "matmul" in available(server)
    if has_matmul:
        contenders["best"] = lambda turn: first_and_second(model, settings, best, request, turn)
    # The first round is a warm-up here too: it compiles the host's Python files.
    samples = interleave(contenders, settings.rounds, warm_up=settings.warm_up)

    title = f"{model.kind} {model.side}x{model.side}, {request.run_steps} steps:"
    cold = "pages of the weights dropped first (posix_fadvise)" if samples["ours.dropped"][0] else "files in memory"
    for rival, flags in (("native", "default flags"), ("sdpa", SDPA)):
        default = rival == "native"
        second = (SECOND_AIM_GPU if settings.gpu else SECOND_AIM) if default else None
        against = f"ComfyUI's nodes, {flags}"
        yield compared(
            f"{title} first run / {against}",
            samples,
            "ours.first",
            f"{rival}.first",
            FIRST_AIM if default else None,
            cold,
        )
        yield compared(f"{title} second run / {against}", samples, "ours.second", f"{rival}.second", second)
    best_title = f"{title} second run with matmul=onednn / ComfyUI's nodes, default flags"
    if has_matmul:
        yield compared(best_title, samples, "best.second", "native.second", BEST_AIM)
    else:
        yield not_there(best_title, "RelayOptimize doesn't have the input matmul")
    yield memory_row(f"{title} peak of the process in the first run", samples)


def first_and_second(
    model: BenchModel,
    settings: Settings,
    graph: Callable[[Request], Built],
    request: Request,
    turn: int,
    flags: Sequence[str] = (),
) -> Mapping[str, float]:
    """Starts a new server: seconds of the first run, with the files not in the page cache, and of a second run with another seed."""
    with BenchServer(model, settings, flags=flags) as server:
        dropped = forget_pages(model.weight_files())
        with PeakWatcher(server.pid) as watcher:
            first = timed(server, graph(request.with_seed(turn)).prompt)
        second = timed(server, graph(request.with_seed(turn + 1000)).prompt)
        steps = request.run_steps
    return {
        "first": first.seconds,
        "second": second.seconds,
        **first.whole_faults("first", steps),
        **second.whole_faults("second", steps),
        "peak": watcher.peak.resident,
        "private": watcher.peak.private,
        "dropped": float(dropped),
    }


def memory_row(what: str, samples: dict[str, list[Any]]) -> Row:
    row = compared(what, samples, "ours.peak", "native.peak")
    private = [max(samples[f"{name}.private"]) for name in ("ours", "native")]
    note = (
        f"resident set above the start, including mapped files; without them: {private[0]:.0f} and {private[1]:.0f} MB"
    )
    return Row(row.what, row.ours, row.other, "MB", row.ratio, note=note)
