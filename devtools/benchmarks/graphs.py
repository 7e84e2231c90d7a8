"""The same work as a graph of the pack's nodes and as a graph of ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.graph import Graph, Out

from .models import BenchModel

PICTURE = "bench.png"
PROMPT = "a photograph of a fluffy cat in a forest, detailed, soft lighting"
NEGATIVE = "ugly, deformed, disfigured, poor details, bad anatomy"
EULER = "EulerDiscreteScheduler"
DEFAULT = "default"


@dataclass(frozen=True)
class Request:
    """One image-to-image run."""

    run_steps: int
    """Steps that actually run; the schedule has 1 / `strength` times as many."""
    strength: float = 0.8
    seed: int = 0
    prompt: str = PROMPT
    guidance_scale: float = 7.5

    @property
    def steps(self) -> int:
        """The smallest number of steps with which diffusers runs `run_steps`."""
        steps = self.run_steps
        while int(steps * self.strength) < self.run_steps:
            steps += 1
        return steps

    def with_seed(self, seed: int) -> Request:
        return replace(self, seed=seed)


@dataclass(frozen=True)
class Built:
    """A graph, and the nodes that the benchmarks read."""

    prompt: dict[str, dict[str, Any]]
    sampler: str
    saved: str


def relay_graph(model: BenchModel, request: Request, optimize: Mapping[str, Any] | None = None) -> Built:
    """optimize: inputs of RelayOptimize, and the graph saves the latent for comparison; None leaves the node out."""
    graph = Graph()
    loaded = euler_model(graph, model)
    picture = graph.add("LoadImage", image=PICTURE)
    prompt = graph.encode(loaded, request.prompt, NEGATIVE)
    sampler = graph.add("RelayImageToImage", model=loaded, prompt=prompt, image=picture, **sampling(request))
    decoded = graph.decode(loaded, sampler)
    saved = graph.save(decoded, "bench")
    if optimize is not None:
        graph.add("SaveLatent", samples=sampler, filename_prefix="bench")
        optimized = graph.add("RelayOptimize", model=loaded, **optimize)
        for node in (sampler, decoded):
            graph.prompt[node.node]["inputs"]["model"] = [optimized.node, 0]
    return Built(graph.prompt, sampler.node, saved.node)


def euler_model(graph: Graph, model: BenchModel) -> Out:
    loaded = graph.load(model.name, model.dtype)
    return graph.add("RelaySetScheduler", model=loaded, scheduler=EULER, sigmas=DEFAULT, timestep_spacing=DEFAULT)


def sampling(request: Request) -> dict[str, Any]:
    return {
        "strength": request.strength,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
    }


def native_graph(model: BenchModel, request: Request) -> Built:
    graph = Graph()
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=model.checkpoint.name)
    return native_sampling(graph, loaded, request)


def native_sampling(graph: Graph, loaded: Out, request: Request) -> Built:
    """loaded: a node with the outputs MODEL, CLIP and VAE."""
    picture = graph.add("LoadImage", image=PICTURE)
    positive, negative = (graph.add("CLIPTextEncode", clip=loaded[1], text=text) for text in (request.prompt, NEGATIVE))
    sampler = graph.add(
        "KSampler",
        model=loaded,
        positive=positive,
        negative=negative,
        latent_image=graph.add("VAEEncode", pixels=picture, vae=loaded[2]),
        seed=request.seed,
        steps=request.run_steps,
        cfg=request.guidance_scale,
        sampler_name="euler",
        scheduler="normal",
        denoise=request.strength,
    )
    saved = graph.save(graph.add("VAEDecode", samples=sampler, vae=loaded[2]), "bench")
    return Built(graph.prompt, sampler.node, saved.node)


def write_picture(file: Path, side: int) -> Path:
    """Soft blobs of colour."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(7).uniform(0, 255, size=(5, 5, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file)
    return file
