"""SD1.5 -> SDXL refiner -> Kandinsky: time, VAE passes, and the chain's peak memory against that of its largest stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay_host.server import Prompt
from support.graph import Graph, Out

from .graphs import NEGATIVE, PICTURE, PROMPT, Request, euler_model, sampling
from .memory import Memory, PeakWatcher
from .models import BenchModel, bench_model
from .rows import Aim, Row, counted
from .served import BenchServer, timed
from .settings import Settings

KINDS = ("sd15", "sdxl_refiner", "kandinsky_decoder")
PEAK_AIM = 1.10
PRIOR_STEPS = 5
ROOM_GB = 3.0
"""What a stage needs in addition to its weights, including the host's own reserve."""


def run(settings: Settings) -> Iterator[Row]:
    dtype = "float16" if settings.gpu else "float32" if settings.tiny else "bfloat16"
    models = {kind: bench_model(kind, settings, dtype=dtype) for kind in (*KINDS, "kandinsky_prior")}
    request = Request(settings.run_steps)
    alone = {kind: measure(models, (kind,), request, settings)[0] for kind in KINDS}
    largest = max(KINDS, key=lambda kind: alone[kind].resident)
    flags = room_for(models, settings)
    peak, seconds, encodes, decodes = measure(models, KINDS, request, settings, flags)
    title = f"of the chain / of {largest} alone"
    if settings.gpu:
        note = f"torch's allocations; {' '.join(flags)}"
        yield peak_row(f"peak on the GPU {title}", peak.resident, alone[largest].resident, note, Aim("ratio", PEAK_AIM))
    else:  # no device is smaller than the sum, so there is no target
        note = f"resident set above the start, {dtype}: the weights are pages of mapped files, which the system can reclaim"
        yield peak_row(f"peak memory {title}", peak.resident, alone[largest].resident, note)
        yield peak_row(f"peak memory without mapped files {title}", peak.private, alone[largest].private, "")
    yield Row(
        "whole chain, first run", seconds, note=f"{request.run_steps} steps of each model, {PRIOR_STEPS} of the prior"
    )
    yield counted("VAE decodes", decodes, note="one per change of latent space, and the last")
    yield counted("VAE encodes", encodes, note="the picture, and one per change of latent space")


def peak_row(what: str, chain: float, alone: float, note: str, aim: Aim | None = None) -> Row:
    return Row(what, chain, alone, "MB", chain / alone, aim, note)


def measure(
    models: dict[str, BenchModel], kinds: Sequence[str], request: Request, settings: Settings, flags: Sequence[str] = ()
) -> tuple[Memory, float, int, int]:
    """(peak above the start, seconds, pictures encoded, latents decoded) in a new server."""
    side = models[kinds[0]].side
    with (
        BenchServer(models[kinds[0]], settings, flags=flags, default_allocator=True) as server,
        server.counting() as calls,
    ):
        before = server.get("/relay_bench/gpu_peak")["now"]
        with PeakWatcher(server.pid) as watcher:
            seconds = timed(server, graph_of(models, kinds, request)).seconds
        on_gpu = (server.get("/relay_bench/gpu_peak")["peak"] - before) / 1e6
    peak = Memory(on_gpu, on_gpu) if settings.gpu else watcher.peak
    return peak, seconds, calls.pictures_encoded(side), calls.rows("decode")


def graph_of(models: dict[str, BenchModel], kinds: Sequence[str], request: Request) -> Prompt:
    graph = Graph()
    start: dict[str, Out] = {"image": graph.add("LoadImage", image=PICTURE)}
    for kind in kinds:
        if kind == "kandinsky_decoder":
            model = graph.load(models[kind].name, models[kind].dtype)
            prior = graph.load(models["kandinsky_prior"].name, models["kandinsky_prior"].dtype)
            prompt = graph.prior(prior, PROMPT, NEGATIVE, steps=PRIOR_STEPS)
        else:
            model = euler_model(graph, models[kind])
            prompt = graph.encode(model, PROMPT, NEGATIVE)
        start = {"latent": graph.add("RelayImageToImage", model=model, prompt=prompt, **start, **sampling(request))}
    graph.save(graph.decode(model, start["latent"]), "bench")
    return graph.prompt


def room_for(models: dict[str, BenchModel], settings: Settings) -> tuple[str, ...]:
    """On a GPU, flags that limit the host to the largest model's needs, so that the three don't fit together."""
    if not settings.gpu:
        return ()
    import torch

    sizes = [sum(file.stat().st_size for file in model.weight_files()) for model in models.values()]
    total = torch.cuda.get_device_properties(0).total_memory
    return ("--reserve-vram", f"{max(0.0, (total - max(sizes)) / 1e9 - ROOM_GB):.1f}")
