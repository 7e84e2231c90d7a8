"""A chain of three models in latents, against the guide's chain, which decodes and encodes in between: time and VAE passes."""

from __future__ import annotations

from collections.abc import Iterator

from relay_host.server import Prompt
from support.graph import Graph, Out

from .graphs import NEGATIVE, PICTURE, PROMPT, Request, euler_model, sampling
from .models import BenchModel, bench_model
from .rows import Row, compared, counted
from .served import BenchServer, timed
from .settings import Settings
from .timing import interleave

LINKS = 3


def run(settings: Settings) -> Iterator[Row]:
    model = bench_model("sd15", settings)
    request = Request(settings.run_steps)
    with BenchServer(model, settings) as server:

        def whole(in_latents: bool, seed: int) -> dict[str, float]:
            run = timed(server, chain(model, request.with_seed(seed), in_latents))
            return {"whole": run.seconds, **run.whole_faults("whole", LINKS * request.run_steps)}

        # With one seed for both, the host would have the second chain's first link in its cache.
        samples = interleave(
            {"latents": lambda turn: whole(True, turn), "pixels": lambda turn: whole(False, 1000 + turn)},
            settings.rounds,
            warm_up=settings.warm_up,
        )
        passes = []
        for seed, in_latents in ((7777, True), (8888, False)):
            with server.counting() as calls:
                timed(server, chain(model, request.with_seed(seed), in_latents))
            passes.append((calls.rows("decode"), calls.pictures_encoded(model.side)))
        with server.counting() as from_text:
            timed(server, chain(model, request.with_seed(9999), True, from_picture=False))
    note = "one model used three times: the same work as three fine-tunes"
    yield compared(
        f"{LINKS} x {request.run_steps} steps: in latents / in pixels",
        samples,
        "latents.whole",
        "pixels.whole",
        note=note,
    )
    yield counted("VAE decodes", passes[0][0], passes[1][0], most=1)
    yield counted("VAE encodes", passes[0][1], passes[1][1], most=1)
    yield counted("VAE encodes from text", from_text.pictures_encoded(model.side), most=0)


def chain(model: BenchModel, request: Request, in_latents: bool, *, from_picture: bool = True) -> Prompt:
    graph = Graph()
    loaded = euler_model(graph, model)
    prompts = [graph.encode(loaded, f"{PROMPT}, style {link}", NEGATIVE) for link in range(LINKS)]
    start: dict[str, Out] = {}
    if from_picture:
        start = {"image": graph.add("LoadImage", image=PICTURE)}
    for link, prompt in enumerate(prompts):
        seeded = request.with_seed(request.seed * LINKS + link)
        if start:
            latent = graph.add("RelayImageToImage", model=loaded, prompt=prompt, **start, **sampling(seeded))
        else:
            size = {"width": model.side, "height": model.side, "steps": request.run_steps, "seed": seeded.seed}
            latent = graph.text_to_image(loaded, prompt, **size)
        last = link == LINKS - 1
        start = {"latent": latent} if in_latents and not last else {"image": graph.decode(loaded, latent)}
    graph.save(start["image"], "bench")
    return graph.prompt
