"""A valid run leaves no warnings in the server's log, neither from the pack nor from the libraries that it calls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.denoising.noise_law import EDM_SCHEDULERS
from diffusers_relay.pipelines.model.component_classes import KARRAS_DIFFUSION_SCHEDULERS, MORE_DIFFUSION_SCHEDULERS
from reference import kandinsky_depth, scripts
from reference.control_scripts import edges
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from small_models.native_checkpoint import NATIVE_NAME
from support import graph as graphs
from support.graph import Graph, Out

PROMPT = "a red cat on a blue sofa"
LONG = ", ".join([PROMPT] * 20)
SCHEDULERS = [
    *((name, "default") for name in KARRAS_DIFFUSION_SCHEDULERS if name not in EDM_SCHEDULERS),
    *((name, "default") for name in MORE_DIFFUSION_SCHEDULERS),
    *((name, "karras") for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler")),
    *((name, "beta") for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")),
]
OLD_CONFIGS: dict[str, dict[str, Any]] = {
    "scheduler/scheduler_config.json": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.6.0",
        "clip_sample": True,
        "skip_prk_steps": False,
        "steps_offset": 0,
    },
    "unet/config.json": {"_diffusers_version": "0.6.0", "sample_size": 32},
    "model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]},
}
LCM_CONFIGS: dict[str, dict[str, Any]] = {
    "scheduler/scheduler_config.json": {
        "_class_name": "LCMScheduler",
        "original_inference_steps": 50,
        "timestep_scaling": 10.0,
        "skip_prk_steps": None,
    },
    "model_index.json": {"scheduler": ["diffusers", "LCMScheduler"]},
}
RECORDER = Path(graphs.__file__).with_name("log_recorder")


@pytest.fixture(scope="module")
def recorded(models: SmallModels) -> Iterator[HostServer]:
    """A server that records its warnings."""
    with HostServer(
        models=models.models, environment=models.environment(), other_packs={"log-recorder": RECORDER}
    ) as running:
        yield running


def warned(server: HostServer) -> list[dict[str, str]]:
    file = server.base / "warnings.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def soft(graph: Graph, server: HostServer, side: int = 64) -> Out:
    return graph.picture(server, scripts.soft_picture(side, side), f"soft-{side}.png")


def masked(graph: Graph, server: HostServer) -> Out:
    return graph.mask(server, edges(64, 64).convert("L"), "mask.png")


def there_and_back(graph: Graph, server: HostServer, model: Out, prompt: Out | None = None, **settings) -> None:
    """Encodes a picture, repaints it, decodes it and saves it."""
    latent = graph.add("RelayEncode", model=model, image=soft(graph, server), seed=1)
    prompt = prompt or graph.encode(model, PROMPT, "dog")
    latent = graph.image_to_image(model, prompt, latent=latent, steps=4, **settings)
    graph.save(graph.decode(model, latent))


def plain(name: str, dtype: str) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        there_and_back(graph, server, graph.load(name, dtype))

    return build


def changed(server: HostServer, name: str, copy: str, configs: dict[str, dict[str, Any]]) -> str:
    """A copy of a model's folder with changed configs; None removes a setting."""
    folder = server.models / "diffusers" / copy
    shutil.copytree(server.models / "diffusers" / name, folder)
    for file, changes in configs.items():
        config = {**json.loads((folder / file).read_text("utf-8")), **changes}
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / file).write_text(json.dumps(kept), "utf-8")
    return copy


def old(name: str) -> Callable[[Graph, HostServer], None]:
    """A folder as written by diffusers in 2022, with few settings for the scheduler and the UNet."""

    def build(graph: Graph, server: HostServer) -> None:
        model = graph.load(changed(server, name, f"{name}_old", OLD_CONFIGS))
        there_and_back(graph, server, model)
        prompt = graph.encode(model, PROMPT)
        graph.save(graph.decode(model, graph.text_to_image(model, prompt)))
        latent = graph.inpaint(model, prompt, masked(graph, server), image=soft(graph, server))
        graph.save(graph.decode(model, latent))

    return build


def of_lcm(graph: Graph, server: HostServer) -> None:
    """A model whose scheduler has settings that no other class has."""
    model = graph.load(changed(server, "sd15", "sd15_lcm", LCM_CONFIGS))
    there_and_back(graph, server, model)
    chosen = {"scheduler": "EulerDiscreteScheduler", "sigmas": "default", "timestep_spacing": "default"}
    there_and_back(graph, server, graph.add("RelaySetScheduler", model=model, **chosen))


def from_hub(graph: Graph, server: HostServer) -> None:
    repo = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    model = graph.add("RelayLoadModelFromHub", repo_id=repo, revision="", variant="auto", dtype="float32")
    there_and_back(graph, server, model)


def base_then_refiner(graph: Graph, server: HostServer) -> None:
    base, refiner = graph.load("sdxl_base", "float16"), graph.load("sdxl_refiner", "float16")
    latent = graph.text_to_image(base, graph.encode(base, PROMPT), denoising_end=0.5)
    latent = graph.image_to_image(refiner, graph.encode(refiner, PROMPT), latent=latent, steps=4)
    graph.save(graph.decode(refiner, latent))


def converted(graph: Graph, server: HostServer) -> None:
    sd, xl = graph.load("sd15"), graph.load("sdxl_base")
    latent = graph.text_to_image(sd, graph.encode(sd, PROMPT))
    latent = graph.image_to_image(xl, graph.encode(xl, PROMPT), latent=latent)
    latent = graph.add("RelayConvertLatent", model=sd, latent=latent)
    graph.save(graph.decode(sd, latent))


def with_lora(name: str, *files: str, dtype: str = "float32") -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        model = graph.load(name, dtype)
        for file in files:
            model = graph.add("RelayLoadLora", model=model, lora=file, strength=0.7, text_strength=0.5)
        there_and_back(graph, server, model)

    return build


def with_embedding(graph: Graph, server: HostServer) -> None:
    model = graph.add("RelayLoadTextualInversion", model=graph.load("sd15"), embedding="badhands.safetensors", token="")
    there_and_back(graph, server, model, graph.encode(model, f"{PROMPT} badhands"))


def with_control(name: str, *nets: str, dtype: str = "float32") -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        control = None
        for net in nets:
            loaded = graph.add("RelayLoadControlNet", controlnet=net, dtype=dtype)
            before = {} if control is None else {"control": control}
            image = graph.picture(server, edges(64, 64), "edges.png")
            settings = {"conditioning_scale": 0.8, "start": 0.0, "end": 0.9, "guess_mode": False}
            control = graph.add("RelayApplyControlNet", controlnet=loaded, image=image, **settings, **before)
        model = graph.load(name, dtype)
        there_and_back(graph, server, model, control=control)

    return build


def with_vae_file(graph: Graph, server: HostServer) -> None:
    folder = server.models / "vae"
    folder.mkdir(exist_ok=True)
    weights = load_file(server.models / "diffusers" / NATIVE_NAME / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({key: value.to(torch.float16) for key, value in weights.items()}, folder / "half.safetensors")
    model = graph.add("RelaySetVae", model=graph.load(NATIVE_NAME, "float16"), vae_file="half.safetensors")
    there_and_back(graph, server, model)


def scheduler(name: str, **options: Any) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        chosen = {"sigmas": "default", "timestep_spacing": "default", **options}
        model = graph.add("RelaySetScheduler", model=graph.load("sd15"), scheduler=name, **chosen)
        there_and_back(graph, server, model)
        graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, PROMPT), steps=6)))

    return build


def prompted(name: str, syntax: str, text: str) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        model = graph.load(name)
        there_and_back(graph, server, model, graph.encode(model, text, text, syntax, 1))

    return build


def inpainting(name: str) -> Callable[[Graph, HostServer], None]:
    def build(graph: Graph, server: HostServer) -> None:
        model = graph.load(name)
        image = soft(graph, server)
        latent = graph.inpaint(model, graph.encode(model, PROMPT), masked(graph, server), image=image)
        graph.save(graph.decode(model, latent))

    return build


def optimized(graph: Graph, server: HostServer) -> None:
    options = {"compile": "off", "attention": "sliced", "vae_tiling": True, "vae_slicing": True, "channels_last": True}
    model = graph.add("RelayOptimize", model=graph.load("sd15"), matmul="onednn", **options)
    there_and_back(graph, server, model)


def upscaled(graph: Graph, server: HostServer) -> None:
    sd15, x2, x4 = graph.load("sd15"), graph.load("x2_upscaler"), graph.load("x4_upscaler")
    latent = graph.text_to_image(sd15, graph.encode(sd15, PROMPT))
    latent = graph.latent_upscale(x2, graph.encode(x2, PROMPT), latent)
    small = soft(graph, server, 32)
    graph.save(graph.super_resolution(x4, graph.encode(x4, PROMPT, "dog"), latent=latent, tile_size=64))
    graph.save(graph.super_resolution(x4, graph.encode(x4, PROMPT, "dog"), image=small))


def kandinsky(graph: Graph, server: HostServer) -> None:
    prior, decoder, depth = (graph.load(f"kandinsky_{name}") for name in ("prior", "decoder", "depth"))
    image = soft(graph, server)
    seen = graph.add("RelayImagePrompt", prior=prior, image=image)
    prompt = graph.add("RelayMixPrompts", prompt_a=graph.prior(prior, LONG, "dog"), prompt_b=seen, weight_b=0.3)
    prompt = graph.add(
        "RelayMixPrompts", prompt_a=prompt, prompt_b=graph.prior(prior, PROMPT, image=image), weight_b=0.3
    )
    there_and_back(graph, server, decoder, prompt)
    hint = graph.hint(graph.picture(server, kandinsky_depth.depth_map(64, 64), "depth.png"))
    graph.save(graph.decode(depth, graph.text_to_image(depth, prompt, control=hint)))
    graph.save(graph.decode(depth, graph.image_to_image(depth, prompt, image=image, control=hint)))
    inpainter = graph.load("kandinsky_inpaint")
    latent = graph.inpaint(inpainter, prompt, masked(graph, server), image=image)
    graph.save(graph.decode(inpainter, latent))


def guided(graph: Graph, server: HostServer) -> None:
    values = {"guidance_rescale": 0.5, "pag_scale": 3.0, "pag_layers": "mid, up_blocks"}
    model = graph.add("RelaySetGuidance", model=graph.load("sdxl_base"), **values)
    sizes = {"original_width": 64, "original_height": 48, "crop_left": 0, "crop_top": 9}
    prompt = graph.encode(model, PROMPT, "dog")
    there_and_back(
        graph, server, model, graph.add("RelaySdxlSize", prompt=prompt, target_width=0, target_height=0, **sizes)
    )


RUNS: dict[str, Callable[[Graph, HostServer], None]] = {
    "folder": plain("sd15", "float32"),
    "folder in float16": plain("sd15", "float16"),
    "folder in bfloat16": plain("sd15", "bfloat16"),
    "fp16 files": plain("sd15_fp16", "auto"),
    "SDXL in float16": plain("sdxl_base", "float16"),
    "single file": plain(f"{NATIVE_NAME}.safetensors", "float32"),
    "single file in bfloat16": plain(f"{NATIVE_NAME}.safetensors", "bfloat16"),
    "old folder": old("sd15"),
    "LCM, and another scheduler": of_lcm,
    "hub": from_hub,
    "base, then refiner": base_then_refiner,
    "converted": converted,
    "LoRA of kohya": with_lora("sd15", "sd15_kohya.safetensors"),
    "two LoRAs": with_lora("sd15", "sd15_kohya.safetensors", "sd15_unet_only.safetensors", dtype="float16"),
    "LoRAs of SDXL": with_lora("sdxl_base", "sdxl_kohya.safetensors", "sdxl_peft.safetensors"),
    "embedding": with_embedding,
    "ControlNet": with_control("sd15", "sd15_canny"),
    "two ControlNets": with_control("sd15", "sd15_canny", "sd15_depth", dtype="bfloat16"),
    "ControlNet of SDXL": with_control("sdxl_base", "sdxl_canny", dtype="float16"),
    "VAE file": with_vae_file,
    "inpainting model": inpainting("sd15_inpaint"),
    "inpainting with a plain model": inpainting("sd15"),
    "inpainting with SDXL": inpainting("sdxl_inpaint"),
    "long prompt": prompted("sd15", "compel", LONG),
    "long prompt of SDXL": prompted("sdxl_base", "compel", LONG),
    "long a1111 prompt": prompted("sd15", "a1111", f"({LONG}:1.2)"),
    "Optimize": optimized,
    "upscalers": upscaled,
    "Kandinsky": kandinsky,
    **{f"{name}, {sigmas}": scheduler(name, sigmas=sigmas) for name, sigmas in SCHEDULERS},
    "trailing": scheduler("EulerDiscreteScheduler", timestep_spacing="trailing"),
    "zero SNR": scheduler(
        "DDIMScheduler",
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    ),
    "sde-dpmsolver++": scheduler("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", euler_at_final=True),
    "guidance and sizes": guided,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_right_warns_of_nothing(recorded: HostServer, name: str) -> None:
    before = len(warned(recorded))
    graph = Graph()
    RUNS[name](graph, recorded)
    recorded.run(graph.prompt).raise_for_error()
    assert warned(recorded)[before:] == []
