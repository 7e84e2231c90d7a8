"""Z-Image's scripts as functions, written with no code of the pack: see scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import ZImageImg2ImgPipeline, ZImageInpaintPipeline, ZImagePipeline
from PIL import Image

from .scripts import generator, loaded


def text_to_image(
    model: Path,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    steps: int = 4,
    guidance_scale: float = 0.0,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(ZImagePipeline, model, load)
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
    guidance_scale: float = 0.0,
    seed: int = 0,
    output_type: str = "np",
    **load: Any,
) -> Any:
    pipeline = loaded(ZImageImg2ImgPipeline, model, load)
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
    """One seed for each picture. settings: more arguments for the pipeline."""
    pipeline = loaded(ZImageInpaintPipeline, model, {})
    first = image[0] if isinstance(image, list) else image
    return pipeline(
        [prompt] * len(seeds),
        negative_prompt=None if negative_prompt is None else [negative_prompt] * len(seeds),
        image=image,
        mask_image=mask,
        width=first.width,
        height=first.height,
        generator=[generator(seed) for seed in seeds],
        **{"num_inference_steps": 5, "strength": 1.0, "guidance_scale": 0.0, "output_type": "np"} | settings,
    ).images
