"""Small models with another class of VAE, and their runs next to diffusers' scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference import inpaint_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, sd15_image_to_image, soft_picture
from relay_dev.model_folders import small_models
from small_models.weights import random_module
from support.without_host import encode

SIZE, BOX = (96, 64), (24, 16, 64, 48)
LATENT_BOX = (slice(None), slice(None), slice(2, 6), slice(3, 8))
SETTINGS = ImageToImageSettings(0.6, 5, 5.0, 3)


def folder_with_vae(name: str, folder: Path, make_vae: Callable[[], Any], seed: int) -> Path:
    """The small model ``name`` with a VAE of random weights instead of its own."""
    shutil.copytree(small_models().named[name], folder)
    shutil.rmtree(folder / "vae")
    vae = random_module(make_vae, seed)
    vae.save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["vae"] = ["diffusers", type(vae).__name__]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


def image_to_image_as_script(
    model: PipelineComponents, folder: Path, runtime: Runtime
) -> tuple[Latents, torch.Tensor, torch.Tensor]:
    """(LATENT, our picture, the script's) of an image-to-image run with a small SD1.5."""
    latent = image_to_image(model, encode(model, "a cat"), SETTINGS, runtime, image=read_like_host(soft_picture()))
    script = sd15_image_to_image(
        folder,
        soft_picture(),
        "a cat",
        strength=SETTINGS.strength,
        steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance_scale,
        seed=SETTINGS.seed,
        output_type="pt",
        safety_checker=None,
    )
    return latent, decode(model, latent, False, runtime), script.movedim(1, -1)


def inpainting_difference(
    model: PipelineComponents, folder: Path, scheduler: Any, strength: float, runtime: Runtime
) -> float:
    """The largest difference between our latents and the script's in the masked area, over the script's largest value."""
    mask = mask_picture(*SIZE, BOX)
    view = model.with_changes(scheduler=SchedulerChoice(scheduler.__name__))
    picture, prompt = read_like_host(soft_picture(*SIZE)), encode(view, "a red cat", "dog")
    ours = inpaint(view, prompt, as_mask(mask), InpaintSettings(strength, 5, 7.5, 7), runtime, image=picture)
    theirs = inpaint_scripts.inpaint(
        folder,
        soft_picture(*SIZE),
        mask,
        "a red cat",
        "dog",
        width=SIZE[0],
        height=SIZE[1],
        seed=7,
        strength=strength,
        scheduler=scheduler,
        output_type="latent",
    )[LATENT_BOX]
    difference = (autoencoder_of(view).to_model_scale(ours.samples)[LATENT_BOX] - theirs).abs().max()
    return float(difference / theirs.abs().max())
