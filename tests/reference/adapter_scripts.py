"""The diffusers documentation's scripts with LoRAs and textual inversions, written without the pack's code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from safetensors.torch import load_file

from . import scripts


class LoraFile(NamedTuple):
    path: Path
    strength: float = 1.0
    text_strength: float = 1.0


def pipeline(model: Path, loras: Sequence[LoraFile] = (), *, from_image: bool = False, **load: Any) -> Any:
    cls = AutoPipelineForImage2Image if from_image else AutoPipelineForText2Image
    pipe = scripts.loaded(cls, model, load)
    for index, lora in enumerate(loras):
        pipe.load_lora_weights(lora.path.parent, weight_name=lora.path.name, adapter_name=f"a{index}")
    if loras:
        weights: list[Any] = [{"unet": lora.strength, **texts(pipe, lora)} for lora in loras]
        pipe.set_adapters([f"a{index}" for index in range(len(loras))], weights)
    return pipe


def texts(pipe: Any, lora: LoraFile) -> dict[str, float]:
    return {name: lora.text_strength for name in ("text_encoder", "text_encoder_2") if name in pipe.components}


def embeds(pipe: Any, prompt: str, negative_prompt: str | None = None) -> list[torch.Tensor]:
    """The results of encode_prompt: hidden, negative hidden, and for SDXL also pooled, negative pooled."""
    arguments = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    with torch.no_grad():
        return list(pipe.encode_prompt(prompt, negative_prompt=negative_prompt, **arguments))


def paint(pipe: Any, prompt: str, negative_prompt: str | None = None, *, seed: int = 0, **settings: Any) -> Any:
    defaults = {"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 7.5, "output_type": "np"}
    if "image" in settings:
        del defaults["width"], defaults["height"]
    arguments = {**defaults, **settings}
    return pipe(prompt, negative_prompt=negative_prompt, generator=scripts.generator(seed), **arguments).images


def with_sdxl_embedding(pipe: Any, path: Path, token: str) -> Any:
    vectors = load_file(path)
    pipe.load_textual_inversion(
        vectors["clip_l"], token=token, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer
    )
    pipe.load_textual_inversion(
        vectors["clip_g"], token=token, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2
    )
    return pipe
