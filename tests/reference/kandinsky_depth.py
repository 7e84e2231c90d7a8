"""The diffusers documentation's scripts for Kandinsky 2.2's depth ControlNet: text-to-image, and image-to-image with Emb2Emb.

Source: https://huggingface.co/docs/diffusers/using-diffusers/kandinsky#controlnet
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    KandinskyV22ControlnetImg2ImgPipeline,
    KandinskyV22ControlnetPipeline,
    KandinskyV22PriorEmb2EmbPipeline,
)
from PIL import Image

from .scripts import Picture, Prior, generator, loaded, soft_picture


def depth_map(width: int = 64, height: int = 64, seed: int = 977) -> Image.Image:
    """A grey picture with near and far parts, as a depth estimator makes it."""
    return soft_picture(width, height, seed).convert("L")


def make_hint(depth: Image.Image) -> torch.Tensor:
    """The documentation's `make_hint`, after the depth estimator: [1, 3, H, W] in 0..1."""
    image = np.array(depth)
    image = image[:, :, None]
    image = np.concatenate([image, image, image], axis=2)
    detected_map = torch.from_numpy(image).float() / 255.0
    return detected_map.permute(2, 0, 1).unsqueeze(0)


def emb2emb(
    model: Path | str,
    prompt: str,
    negative_prompt: str,
    image: Image.Image,
    *,
    strength: float = 0.85,
    steps: int = 4,
    seeds: tuple[int, int] = (0, 1),
    **load: Any,
) -> Prior:
    """The guide's two calls: one embeds the prompt, the other the negative prompt."""
    pipeline = loaded(KandinskyV22PriorEmb2EmbPipeline, model, load)
    settings = {"image": image, "num_inference_steps": steps}
    positive = pipeline(prompt=prompt, strength=strength, generator=generator(seeds[0]), **settings)
    negative = pipeline(prompt=negative_prompt, strength=1, generator=generator(seeds[1]), **settings)
    return Prior(positive.image_embeds, negative.image_embeds)


def text_to_image(
    model: Path | str,
    embeds: Prior,
    hint: torch.Tensor,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 4.0,
    seed: int | Sequence[int] = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(KandinskyV22ControlnetPipeline, model, load)
    return pipeline(
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        hint=hint,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generators(seed),
        output_type=output_type,
    ).images


def image_to_image(
    model: Path | str,
    image: Picture,
    embeds: Prior,
    hint: torch.Tensor,
    *,
    width: int = 64,
    height: int = 64,
    strength: float = 0.5,
    steps: int = 6,
    guidance_scale: float = 4.0,
    seed: int | Sequence[int] = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    """width, height: the result's size; see scripts.kandinsky_image_to_image."""
    pipeline = loaded(KandinskyV22ControlnetImg2ImgPipeline, model, load)
    if swaps_sizes(pipeline):
        width, height = height, width
    return pipeline(
        image=image,
        image_embeds=embeds.image_embeds,
        negative_image_embeds=embeds.negative_image_embeds,
        hint=hint,
        width=width,
        height=height,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generators(seed),
        output_type=output_type,
    ).images


def swaps_sizes(pipeline: KandinskyV22ControlnetImg2ImgPipeline) -> bool:
    """Whether this diffusers still swaps height and width: runs one step with a hint that fits only if it does."""
    nothing = torch.zeros(1, pipeline.unet.config.encoder_hid_dim, dtype=pipeline.unet.dtype)
    try:
        pipeline(
            image=Image.new("RGB", (128, 64)),
            image_embeds=nothing,
            negative_image_embeds=nothing,
            hint=torch.zeros(1, 3, 128, 64, dtype=pipeline.unet.dtype),
            width=128,
            height=64,
            strength=1.0,
            num_inference_steps=1,
            generator=generator(0),
            output_type="pt",
        )
    except RuntimeError:  # the hint's size doesn't match the latents
        return False
    return True


def generators(seed: int | Sequence[int]) -> torch.Generator | list[torch.Generator]:
    return generator(seed) if isinstance(seed, int) else [generator(one) for one in seed]
