"""The diffusers documentation's ControlNet scripts, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image, ControlNetModel
from PIL import Image

from .scripts import Picture, generator, loaded


class Control(NamedTuple):
    """A ControlNet in a script, with its settings."""

    folder: Path | str
    image: Picture
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


def text_to_image(
    model: Path | str,
    controls: Sequence[Control],
    prompt: str,
    negative_prompt: str | None = None,
    *,
    width: int = 64,
    height: int = 64,
    seed: int = 0,
    **settings: Any,
) -> Any:
    """SD1.5 and SDXL. settings: more arguments for the pipeline."""
    pipeline, arguments = controlled(AutoPipelineForText2Image, model, controls, "image")
    return pipeline(
        prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        generator=generator(seed),
        **{"num_inference_steps": 4, "guidance_scale": 7.5, "output_type": "np"} | arguments | settings,
    ).images


def image_to_image(
    model: Path | str,
    controls: Sequence[Control],
    image: Picture,
    prompt: str,
    negative_prompt: str | None = None,
    *,
    seed: int | Sequence[int] = 0,
    **settings: Any,
) -> Any:
    """SD1.5 and SDXL. If `image` is a list, `seed` has one seed per picture, and the prompt is repeated."""
    pipeline, arguments = controlled(AutoPipelineForImage2Image, model, controls, "control_image")
    many = isinstance(image, list)
    repeat = len(image) if many else 1
    return pipeline(
        [prompt] * repeat if many else prompt,
        negative_prompt=[negative_prompt or ""] * repeat if many else negative_prompt,
        image=image,
        generator=generator(seed) if isinstance(seed, int) else [generator(one) for one in seed],
        **{"num_inference_steps": 5, "strength": 0.8, "guidance_scale": 7.5, "output_type": "np"}
        | arguments
        | settings,
    ).images


def controlled(
    auto: Any, model: Path | str, controls: Sequence[Control], image_argument: str, **load: Any
) -> tuple[Any, dict[str, Any]]:
    nets = [ControlNetModel.from_pretrained(one.folder, torch_dtype=torch.float32) for one in controls]
    single = len(nets) == 1
    pipeline = loaded(auto, model, {"controlnet": nets[0] if single else nets, **load})
    one = controls[0]
    return pipeline, {
        image_argument: one.image if single else [control.image for control in controls],
        "controlnet_conditioning_scale": one.scale if single else [control.scale for control in controls],
        "control_guidance_start": one.start if single else [control.start for control in controls],
        "control_guidance_end": one.end if single else [control.end for control in controls],
    }


def edges(width: int = 64, height: int = 64, seed: int = 41) -> Image.Image:
    """A picture of white lines on black, as a Canny detector makes it."""
    numbers = np.random.default_rng(seed)
    lines = np.zeros((height, width, 3), np.uint8)
    for _ in range(4):
        lines[int(numbers.integers(height))] = 255
        lines[:, int(numbers.integers(width))] = 255
    return Image.fromarray(lines)
