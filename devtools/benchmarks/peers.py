"""Other packs that run diffusers models, on the same models: first and second run. --peers DIR names the folder with them.

They aren't in any package registry, so the command can't download them: clone the packs to compare into one folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from relay_host.server import Prompt
from support.graph import Graph

from .graphs import NEGATIVE, PROMPT, Request, native_sampling, relay_graph
from .models import BenchModel, bench_model
from .rows import Row, compared, not_there
from .served import BenchServer, timed
from .settings import Settings
from .timing import Quantities, interleave

PRIOR_STEPS = 5


@dataclass(frozen=True)
class Peer:
    repository: str
    kinds: tuple[str, ...]
    """The models that its graph uses; the picture has the first one's size."""
    theirs: Callable[[tuple[BenchModel, ...], Request, BenchServer], Prompt]
    ours: Callable[[tuple[BenchModel, ...], Request, BenchServer], Prompt]

    @property
    def folder(self) -> str:
        return self.repository.rpartition("/")[2]


def run(settings: Settings) -> Iterator[Row]:
    for peer in PEERS:
        pack = None if settings.peers is None else settings.peers / peer.folder
        if pack is None or not pack.is_dir():
            yield not_there(peer.folder, f"clone {peer.repository} into a folder DIR and use --peers DIR")
            continue
        try:
            yield from rows_of(peer, pack, settings)
        except Exception as error:  # any failure of another pack becomes its row's note
            yield Row(peer.folder, note=f"did not run: {str(error).strip().splitlines()[-1]}")


def rows_of(peer: Peer, pack: Path, settings: Settings) -> Iterator[Row]:
    models = tuple(bench_model(kind, settings, checkpoint=kind == "sd15") for kind in peer.kinds)

    def first_and_second(graph: Callable[..., Prompt], turn: int) -> Quantities:
        with BenchServer(models[0], settings, packs=[pack]) as server:
            put_kandinsky(server, models)
            request = Request(settings.run_steps, seed=turn)
            first = timed(server, graph(models, request, server))
            second = timed(server, graph(models, request.with_seed(turn + 1000), server))
        steps = request.run_steps
        return {
            "first": first.seconds,
            "second": second.seconds,
            **first.whole_faults("first", steps),
            **second.whole_faults("second", steps),
        }

    contenders: dict[str, Callable[[int], Quantities]] = {
        "ours": lambda turn: first_and_second(peer.ours, turn),
        "theirs": lambda turn: first_and_second(peer.theirs, turn),
    }
    samples = interleave(contenders, settings.rounds)
    yield compared(f"{peer.folder}: first run", samples, "ours.first", "theirs.first")
    yield compared(f"{peer.folder}: second run, another seed", samples, "ours.second", "theirs.second")


def put_kandinsky(server: BenchServer, models: tuple[BenchModel, ...]) -> None:
    """comfyui-kandinsky22 looks for folders with "kandinsky" in their names in models/checkpoints."""
    checkpoints = server.models / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    for model in models:
        if model.kind.startswith("kandinsky"):
            (checkpoints / model.name).symlink_to(model.folder, target_is_directory=True)


def theirs_kandinsky(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    decoder, prior = (str(server.models / "checkpoints" / model.name) for model in models)
    side = {"width": models[0].side, "height": models[0].side, "seed": request.seed}
    graph = Graph()
    priors = graph.add("comfy-kandinsky22-prior-loader", ckpt=prior)
    loaded = graph.add("comfy-kandinsky22-decoder-loader", ckpt=decoder)
    texts = {"prompt": PROMPT, "negative_prior": NEGATIVE, "num_inference_steps": PRIOR_STEPS, "guidance_scale": 4.0}
    embeds = graph.add("comfy-kandinsky22-text-encoder", text_encoder=priors[1], seed=0, **texts)
    latent = graph.add(
        "comfy-kandinsky22-unet-decoder",
        decoder=loaded[1],
        latents=graph.add("comfy-kandinsky22-latents", lat_info=loaded[2], batch_size=1, **side),
        strength=1.0,
        image_embeds=embeds,
        negative_image_embeds=embeds[1],
        num_inference_steps=request.run_steps,
        guidance_scale=4.0,
        seed=request.seed,
    )
    graph.save(graph.add("comfy-kandinsky22-movq-decoder", movq=loaded, latents=latent), "bench")
    return graph.prompt


def ours_kandinsky(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    graph = Graph()
    decoder, prior = (graph.load(model.name, model.dtype) for model in models)
    side = {"width": models[0].side, "height": models[0].side, "steps": request.run_steps, "seed": request.seed}
    prompt = graph.prior(prior, PROMPT, NEGATIVE, steps=PRIOR_STEPS)
    graph.save(graph.decode(decoder, graph.text_to_image(decoder, prompt, guidance_scale=4.0, **side)), "bench")
    return graph.prompt


def theirs_in_comfyui(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    """Runs only on a CUDA device, in float16."""
    side = {"width": models[0].side, "height": models[0].side, "steps": request.run_steps, "seed": request.seed}
    graph = Graph()
    pipeline = graph.add("CreatePipeline", is_sdxl=False, low_vram=False, model=models[0].checkpoint.name)
    picture = graph.add("GenerateImage", pipeline=pipeline, positive=PROMPT, negative=NEGATIVE, cfg=7.5, **side)
    graph.save(picture, "bench")
    return graph.prompt


def ours_text_to_image(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    side = {"width": models[0].side, "height": models[0].side, "steps": request.run_steps, "seed": request.seed}
    graph = Graph()
    model = graph.load(models[0].checkpoint.name, models[0].dtype)
    graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, PROMPT, NEGATIVE), **side)), "bench")
    return graph.prompt


def theirs_loader(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    """Its loader, followed by ComfyUI's own nodes."""
    graph = Graph()
    choices = {"clip_type": "stable_diffusion", "clip_parts": "all", "transformer_parts": "all"}
    loaded = graph.add(
        "CombinedDiffusersLoader",
        sub_directory=models[0].name,
        vae_type="default",
        weight_dtype="default",
        **choices,
    )
    return native_sampling(graph, loaded, request).prompt


def ours_image_to_image(models: tuple[BenchModel, ...], request: Request, server: BenchServer) -> Prompt:
    return relay_graph(models[0], request).prompt


PEERS = (
    Peer(
        "vsevolod-oparin/comfyui-kandinsky22",
        ("kandinsky_decoder", "kandinsky_prior"),
        theirs_kandinsky,
        ours_kandinsky,
    ),
    Peer("maepopi/Diffusers-in-ComfyUI", ("sd15",), theirs_in_comfyui, ours_text_to_image),
    Peer("Scorpinaus/ComfyUI-DiffusersLoader", ("sd15",), theirs_loader, ours_image_to_image),
)
