"""Stable Diffusion 3's scripts as functions, written with no code of the pack: see scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline
from PIL import Image

from .scripts import generator, loaded


def without_t5(folder: Path) -> dict[str, Any]:
    """What a script hands to from_pretrained for a model that has none."""
    return {} if (folder / "text_encoder_3").exists() else {"text_encoder_3": None, "tokenizer_3": None}


def text_to_image(
    model: Path,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 4.0,
    seed: int = 0,
    output_type: str = "np",
) -> Any:
    pipeline = loaded(StableDiffusion3Pipeline, model, without_t5(model))
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


def image_to_image(
    model: Path,
    image: Image.Image,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    strength: float = 0.6,
    steps: int = 5,
    guidance_scale: float = 4.0,
    seed: int = 0,
    output_type: str = "np",
) -> Any:
    """In the picture's own size: without it, this pipeline repaints everything at 1024 x 1024."""
    pipeline = loaded(StableDiffusion3Img2ImgPipeline, model, without_t5(model))
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        image=image,
        width=image.width,
        height=image.height,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator(seed),
        output_type=output_type,
    ).images


@torch.no_grad()
def inpaint(
    model: Path,
    image: Image.Image | list[Image.Image],
    mask: Image.Image,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> Any:
    """Decoded here: the pipeline itself forgets the VAE's shift, so its pictures have other colours than its latents stand for."""
    pipeline = loaded(StableDiffusion3InpaintPipeline, model, without_t5(model))
    first = image[0] if isinstance(image, list) else image
    many = len(seeds)
    latents = pipeline(
        [prompt] * many,
        negative_prompt=None if negative_prompt is None else [negative_prompt] * many,
        image=image,
        mask_image=mask,
        width=first.width,
        height=first.height,
        generator=[generator(seed) for seed in seeds],
        **{"num_inference_steps": 5, "strength": 1.0, "guidance_scale": 4.0} | settings,
        output_type="latent",
    ).images
    vae = pipeline.vae
    picture = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    return pipeline.image_processor.postprocess(picture, output_type="np")
