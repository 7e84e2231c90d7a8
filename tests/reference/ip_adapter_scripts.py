"""The diffusers documentation's scripts with IP-Adapters, written without the pack's code, like scripts.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from .scripts import soft_picture
from .task_scripts import SIZE


class Adapter(NamedTuple):
    """An IP-Adapter in a script, with its pictures and settings."""

    file: Path
    pictures: Sequence[Image.Image]
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    masks: Sequence[Image.Image] = ()


def prepare(adapters: Sequence[Adapter], encoder: Path, *, guided: bool = True) -> Callable[[Any], dict[str, Any]]:
    """For `task_scripts.paint`: loads the adapters into a pipeline, and returns the arguments of its call."""

    def loaded(pipeline: Any) -> dict[str, Any]:
        pipeline.register_modules(image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder))
        pipeline.load_ip_adapter(
            [one.file.parent for one in adapters], subfolder="", weight_name=[one.file.name for one in adapters]
        )
        with torch.no_grad():
            embeds = pipeline.prepare_ip_adapter_image_embeds(
                [list(one.pictures) for one in adapters], None, "cpu", 1, guided
            )
        pipeline.set_ip_adapter_scale([one.weight if one.start == 0 else 0.0 for one in adapters])
        arguments: dict[str, Any] = {"ip_adapter_image_embeds": embeds}
        if any(one.masks for one in adapters):
            masks = [preprocessed(one.masks) if one.masks else None for one in adapters]
            arguments["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
        if any((one.start, one.end) != (0.0, 1.0) for one in adapters):
            arguments["callback_on_step_end"] = scaled_in_part(adapters)
        return arguments

    return loaded


def preprocessed(masks: Sequence[Image.Image]) -> torch.Tensor:
    width, height = SIZE
    found = IPAdapterMaskProcessor().preprocess(list(masks), height=height, width=width)
    return found.reshape(1, found.shape[0], height, width)


def scaled_in_part(adapters: Sequence[Adapter]) -> Callable[..., dict[str, Any]]:
    """The callback that sets the scales for the next step: 0 for a step that is not completely in an adapter's range."""

    def callback(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        begin, end = (step + 1) / pipeline.num_timesteps, (step + 2) / pipeline.num_timesteps
        inside = [begin >= one.start and end <= one.end for one in adapters]
        pipeline.set_ip_adapter_scale([one.weight * is_on for one, is_on in zip(adapters, inside, strict=True)])
        return values

    return callback


def picture(seed: int, width: int = 80, height: int = 64) -> Image.Image:
    return soft_picture(width, height, seed)


def half_mask(side: int) -> Image.Image:
    """White in the left (0) or right (1) half, of another size than the painted picture."""
    width, height = SIZE
    mask = Image.new("L", (width * 2, height * 2), 0)
    mask.paste(255, (side * width, 0, side * width + width, height * 2))
    return mask
