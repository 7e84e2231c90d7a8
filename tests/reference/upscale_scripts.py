"""The diffusers documentation's scripts for the two upscalers, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionLatentUpscalePipeline, StableDiffusionUpscalePipeline

from .scripts import Picture, generator, loaded, sd15_image_to_image


def seeded(seed: int | Sequence[int]) -> Any:
    return generator(seed) if isinstance(seed, int) else [generator(one) for one in seed]


def latent_upscale(
    model: Path | str,
    image: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    steps: int = 4,
    guidance_scale: float = 0.0,
    seed: int | Sequence[int] = 0,
    output_type: str = "np",
    scheduler: type | None = None,
    **load: Any,
) -> Any:
    """image: latents from a pipeline with output_type="latent", or a picture. seed: one per image in a batch."""
    pipeline = loaded(StableDiffusionLatentUpscalePipeline, model, load)
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, prediction_type="sample")
    count = 1 if isinstance(seed, int) else len(seed)
    return pipeline(
        prompt=[prompt] * count,
        negative_prompt=None if negative_prompt is None else [negative_prompt] * count,
        image=image,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=seeded(seed),
        output_type=output_type,
    ).images


def super_resolution(
    model: Path | str,
    image: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    steps: int = 4,
    guidance_scale: float = 9.0,
    noise_level: int = 20,
    seed: int | Sequence[int] = 0,
    output_type: str = "np",
    scheduler: type | None = None,
    **load: Any,
) -> Any:
    """image: a picture, several, or [B, 3, H, W] in 0..1. seed: one per image in a batch."""
    pipeline = loaded(StableDiffusionUpscalePipeline, model, load)
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    count = 1 if isinstance(seed, int) else len(seed)
    return pipeline(
        prompt=[prompt] * count,
        negative_prompt=None if negative_prompt is None else [negative_prompt] * count,
        image=image if isinstance(image, (list, torch.Tensor)) else [image],
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        noise_level=noise_level,
        generator=seeded(seed),
        output_type=output_type,
    ).images


@torch.no_grad()
def decoded(model: Path | str, latents: torch.Tensor, **load: Any) -> torch.Tensor:
    """The step that the documentation's chain lacks between x2 and x4: decodes latents in `model`'s scale to [B, 3, H, W] in 0..1."""
    pipeline = loaded(StableDiffusionLatentUpscalePipeline, model, load)
    pictures = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
    return pipeline.image_processor.postprocess(pictures, output_type="pt")


def image_to_x2_to_x4(
    sd15: Path | str,
    x2: Path | str,
    x4: Path | str,
    image: Picture,
    prompt: str,
    *,
    strength: float = 0.8,
    steps: int = 4,
    seeds: tuple[int, int, int],
) -> np.ndarray:
    """The image-to-image guide's chain: a model, then the two upscalers."""
    latents = sd15_image_to_image(
        sd15, image, prompt, strength=strength, steps=steps, seed=seeds[0], output_type="latent"
    )
    latents = latent_upscale(x2, latents, prompt, steps=steps, seed=seeds[1], output_type="latent")
    return super_resolution(x4, decoded(x2, latents), prompt, steps=steps, seed=seeds[2])
