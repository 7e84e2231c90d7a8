"""The diffusers documentation's scripts for ControlNet Union, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch

from .scripts import Picture, generator, loaded

PIPELINES = {
    "text": "StableDiffusionXLControlNetUnionPipeline",
    "image": "StableDiffusionXLControlNetUnionImg2ImgPipeline",
    "inpaint": "StableDiffusionXLControlNetUnionInpaintPipeline",
}


class Mode(NamedTuple):
    """A control picture in a script, with its mode's number."""

    number: int
    image: Picture
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


def run(
    task: str,
    model: Path | str,
    unions: Sequence[Path],
    modes: Sequence[Mode],
    prompt: str,
    negative_prompt: str | None = None,
    *,
    seed: int | Sequence[int] = 0,
    **settings: Any,
) -> Any:
    """One Union for all modes, or one for each. If `seed` is a list, a batch is painted. settings: more arguments for the pipeline."""
    repeat = 1 if isinstance(seed, int) else len(seed)
    nets = [diffusers.ControlNetUnionModel.from_pretrained(folder, torch_dtype=torch.float32) for folder in unions]
    pipeline = loaded(getattr(diffusers, PIPELINES[task]), model, {"controlnet": nets[0] if len(nets) == 1 else nets})
    return pipeline(
        prompt if isinstance(seed, int) else [prompt] * repeat,
        negative_prompt=negative_prompt if isinstance(seed, int) else [negative_prompt or ""] * repeat,
        generator=generator(seed) if isinstance(seed, int) else [generator(one) for one in seed],
        control_image=[mode.image for mode in modes],
        control_mode=[mode.number for mode in modes],
        controlnet_conditioning_scale=[mode.scale for mode in modes],
        control_guidance_start=[mode.start for mode in modes],
        control_guidance_end=[mode.end for mode in modes],
        **{"num_inference_steps": 4, "guidance_scale": 7.5, "output_type": "np"} | settings,
    ).images
