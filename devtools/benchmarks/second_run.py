"""The second run with another seed, prompt or strength: what runs again, and the cost on top of the bare steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from support.server_log import stages_during

from .bare import bare_forwards
from .glibc import FAULTS
from .graphs import PROMPT, Request, relay_graph
from .models import bench_model
from .rows import Row, compared
from .served import BenchServer, timed
from .settings import Settings
from .timing import Quantities, interleave

LOWER_STRENGTH = 0.6


def changes(settings: Settings) -> dict[str, Callable[[int], Request]]:
    """The only change in the n-th run."""
    request = Request(settings.run_steps)
    lower = int(request.steps * LOWER_STRENGTH)
    return {
        "another seed": lambda turn: replace(request, seed=turn + 1),
        "another prompt": lambda turn: replace(request, prompt=f"{PROMPT}, number {turn}"),
        "another strength": lambda turn: Request(lower, LOWER_STRENGTH + turn / 1000),
        "nothing": lambda _: request,
    }


def run(settings: Settings) -> Iterator[Row]:
    model = bench_model("sd15", settings)
    ran: dict[str, str] = {}
    with BenchServer(model, settings) as server, bare_forwards(model, settings) as bare:

        def contender(name: str, request: Callable[[int], Request]) -> Callable[[int], Quantities]:
            def once(turn: int) -> Quantities:
                timed(server, relay_graph(model, Request(settings.run_steps)).prompt)  # the run before the change
                changed = request(turn)
                with stages_during(server) as stages:
                    run = timed(server, relay_graph(model, changed).prompt)
                ran[name] = ", ".join(stage.partition(":")[0] for stage in stages()) or "nothing"
                if name == "nothing":
                    return {"whole": run.seconds, "bare": run.seconds}
                steps = changed.run_steps
                forward = bare.call("run", count=steps)
                return {
                    "whole": run.seconds,
                    "bare": forward["denoising"] * steps,
                    **run.whole_faults("whole", steps),
                    **{f"bare{FAULTS}": count for name, count in forward.items() if name.endswith(FAULTS)},
                }

            return once

        contenders = {name: contender(name, request) for name, request in changes(settings).items()}
        samples = interleave(contenders, settings.rounds, warm_up=settings.warm_up)
    for name in contenders:
        if name == "nothing":
            yield Row(f"{name} changed", samples["nothing.whole"][-1], note=f"runs again: {ran[name]}")
        else:
            note = f"against the bare steps of the run; runs again: {ran[name]}"
            yield compared(name, samples, f"{name}.whole", f"{name}.bare", note=note)
