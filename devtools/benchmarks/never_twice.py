"""Checks that nothing is done twice: counts the work in a sweep of four strengths on one picture."""

from __future__ import annotations

from collections.abc import Iterator

from relay_host.server import Prompt
from support.graph import Graph

from .graphs import NEGATIVE, PICTURE, PROMPT, Request, euler_model, sampling
from .models import BenchModel, bench_model
from .rows import Row, counted
from .script import plain_script
from .served import BenchServer, timed
from .settings import Settings

STRENGTHS = (0.4, 0.5, 0.6, 0.8)
STEPS = 5


def run(settings: Settings) -> Iterator[Row]:
    model = bench_model("sd15", settings)
    with BenchServer(model, settings) as server, server.counting() as calls:
        timed(server, sweep(model))
    with plain_script(model, settings) as script:
        plain = script.call("count", prompt=PROMPT, strengths=list(STRENGTHS), steps=STEPS)
    against = "against the documentation's script, called once per strength"
    yield counted("pictures encoded", calls.pictures_encoded(model.side), plain["encode"], 1, against)
    yield counted("texts encoded", calls.rows("text"), plain["text"], 2, "the prompt and the negative prompt")
    yield counted("latents decoded", calls.rows("decode"), plain["decode"], len(STRENGTHS))
    parts = [line.split("loaded ")[1].split(" of ")[0] for line in calls.loads]
    twice = len(parts) - len(set(parts))
    yield counted("components loaded twice", twice, most=0, note=f"loaded: {', '.join(sorted(parts))}")


def sweep(model: BenchModel) -> Prompt:
    """Uses two loaders that the host doesn't merge."""
    graph = Graph()
    loaded = euler_model(graph, model)
    again = graph.load(model.name, "auto")
    picture = graph.add("LoadImage", image=PICTURE)
    prompt = graph.encode(loaded, PROMPT, NEGATIVE)
    for strength in STRENGTHS:
        request = Request(int(STEPS * strength), strength)
        settings = {**sampling(request), "steps": STEPS}
        latent = graph.add("RelayImageToImage", model=loaded, prompt=prompt, image=picture, **settings)
        graph.save(graph.decode(again, latent), "bench")
    return graph.prompt
