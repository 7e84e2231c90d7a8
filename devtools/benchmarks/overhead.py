"""What the pack, the host and the pipeline cost on top of the UNet: a graph in the real server, a plain script, bare forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .bare import bare_forwards
from .graphs import Request, relay_graph
from .models import BenchModel, bench_model
from .rows import Row, compared
from .script import plain_script, script_arguments
from .served import BenchServer, quantities
from .settings import Settings
from .timing import Quantities, interleave

DENOISING_AIM = 1.02
WHOLE_AIM = 0.97


def run(settings: Settings) -> Iterator[Row]:
    for kind in ("sd15",) if settings.quick or settings.tiny else ("sd15", "sdxl"):
        yield from rows_of(bench_model(kind, settings), settings)


def rows_of(model: BenchModel, settings: Settings) -> Iterator[Row]:
    request = Request(settings.run_steps)
    title = f"{model.kind} {model.side}x{model.side}, {request.run_steps} steps:"
    with (
        BenchServer(model, settings) as server,
        plain_script(model, settings) as script,
        bare_forwards(model, settings) as bare,
    ):

        def graph(request: Request) -> Quantities:
            return quantities(server, relay_graph(model, request))

        def plain(request: Request) -> Quantities:
            return script.call("run", **script_arguments(request))

        contenders: dict[str, Callable[[int], Quantities]] = {
            "server": lambda turn: with_denoising(graph, request.with_seed(turn), settings),
            "script": lambda turn: with_denoising(plain, request.with_seed(turn), settings),
            "bare": lambda _: bare.call("run", count=request.run_steps - 1),
        }
        samples = interleave(contenders, settings.rounds, warm_up=settings.warm_up)
    note = f"{samples_note(settings)}, seconds per step"
    yield compared(f"{title} server / bare UNet", samples, "server.denoising", "bare.denoising", DENOISING_AIM, note)
    yield compared(f"{title} script / bare UNet", samples, "script.denoising", "bare.denoising", note=note)
    yield compared(
        f"{title} server / script, another seed",
        samples,
        "server.whole",
        "script.whole",
        WHOLE_AIM,
        "the whole image-to-image run; the graph's prompt and picture file are in the host's cache",
    )


def with_denoising(run: Callable[[Request], Quantities], request: Request, settings: Settings) -> Quantities:
    """On a GPU, which runs behind the step reports, the time per step is the difference between two run lengths."""
    short = run(request)
    if not settings.gpu:
        return short
    long = run(Request(2 * request.run_steps, request.strength, request.seed))
    return {"whole": short["whole"], "denoising": (long["whole"] - short["whole"]) / request.run_steps}


def samples_note(settings: Settings) -> str:
    return "difference of two lengths" if settings.gpu else "first to last step report"
