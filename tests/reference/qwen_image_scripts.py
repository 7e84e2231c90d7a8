"""Qwen-Image's scripts as functions, written with no code of the pack: see scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import QwenImageImg2ImgPipeline, QwenImageInpaintPipeline, QwenImagePipeline
from PIL import Image

from .scripts import generator, loaded


def text_to_image(
    model: Path,
    prompt: str,
    negative_prompt: str = "",
    *,
    width: int = 64,
    height: int = 64,
    seed: int = 0,
    dtype: Any = None,
    **settings: Any,
) -> Any:
    pipeline = loaded(QwenImagePipeline, model, {} if dtype is None else {"dtype": dtype})
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        generator=generator(seed),
        **{"num_inference_steps": 4, "true_cfg_scale": 1.0, "output_type": "np"} | settings,
    ).images


def image_to_image(
    model: Path,
    image: Image.Image,
    prompt: str,
    negative_prompt: str = "",
    *,
    seed: int = 0,
    dtype: Any = None,
    **settings: Any,
) -> Any:
    pipeline = loaded(QwenImageImg2ImgPipeline, model, {} if dtype is None else {"dtype": dtype})
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        image=image,
        width=image.width,
        height=image.height,
        generator=generator(seed),
        **{"num_inference_steps": 5, "strength": 0.6, "true_cfg_scale": 1.0, "output_type": "np"} | settings,
    ).images


def inpaint(
    model: Path,
    image: Image.Image | list[Image.Image],
    mask: Image.Image,
    prompt: str,
    negative_prompt: str = "",
    *,
    seeds: Sequence[int] = (0,),
    **settings: Any,
) -> Any:
    """One seed for each picture."""
    pipeline = loaded(QwenImageInpaintPipeline, model, {})
    first = image[0] if isinstance(image, list) else image
    return pipeline(
        [prompt] * len(seeds),
        negative_prompt=[negative_prompt] * len(seeds),
        image=image,
        mask_image=mask,
        width=first.width,
        height=first.height,
        generator=[generator(seed) for seed in seeds],
        **{"num_inference_steps": 5, "strength": 1.0, "true_cfg_scale": 1.0, "output_type": "np"} | settings,
    ).images
