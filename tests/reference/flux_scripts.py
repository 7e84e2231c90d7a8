"""Flux.1's scripts as functions, written with no code of the pack: see scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline
from PIL import Image

from .scripts import generator, loaded

CLASSES = {"text": FluxPipeline, "image": FluxImg2ImgPipeline, "inpaint": FluxInpaintPipeline}


@cache
def pipeline(task: str, model: Path, dtype: torch.dtype) -> Any:
    return loaded(CLASSES[task], model, {"dtype": dtype})


def paint(
    model: Path,
    prompt: str,
    *,
    image: Image.Image | Sequence[Image.Image] | None = None,
    mask: Image.Image | None = None,
    width: int = 64,
    height: int = 64,
    seeds: Sequence[int] = (0,),
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Any:
    """Text to image, image to image or inpainting, in the picture's own size. settings: more arguments for the pipeline."""
    task = "text" if image is None else "image" if mask is None else "inpaint"
    pictures: dict[str, Any] = {}
    if image is not None:
        width, height = (image if isinstance(image, Image.Image) else image[0]).size
        pictures = {"image": image} if mask is None else {"image": image, "mask_image": mask}
    many = len(seeds)
    return pipeline(task, model, dtype)(
        [prompt] * many,
        width=width,
        height=height,
        generator=[generator(seed) for seed in seeds],
        **pictures,
        **{"num_inference_steps": 4, "guidance_scale": 3.5, "output_type": "np"} | settings,
    ).images
