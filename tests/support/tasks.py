"""Runs a task through the pack's lower layers with the pictures and settings of `reference.task_scripts`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.control.units import ControlNet, ControlNetUnit, make_unit
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.control_scripts import Control, edges
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from reference.task_scripts import SIZE, STEPS, STRENGTH
from relay_dev.model_folders import small_models
from support.without_host import counting_runtime

TASKS = ("text", "image", "inpaint")


@cache
def controlnet(name: str) -> ControlNet:
    folder = small_models().controlnets[name]
    return load_controlnet_folder(folder, dtype=torch.float32, source=name, monitor=SilentMonitor())


def control_unit(name: str) -> ControlNetUnit:
    return make_unit(controlnet(name), read_like_host(edges(*SIZE)), 0.8)


def script_control(name: str) -> Control:
    return Control(small_models().controlnets[name], edges(*SIZE), 0.8)


def paint(
    model: PipelineComponents,
    task: str,
    prompt: PromptEmbeds,
    *,
    control: Sequence[ControlNetUnit] = (),
    ip_adapter: Sequence[Any] = (),
    runtime: Any = None,
    seed: int = 3,
    steps: int = STEPS,
    guidance_scale: float = 5.0,
    **settings: Any,
) -> np.ndarray:
    """The picture [1, H, W, 3]."""
    runtime = runtime or counting_runtime()
    steered: dict[str, Any] = {"control": control, "ip_adapter": ip_adapter}
    if task == "text":
        text = TextToImageSettings(*SIZE, 1, steps, guidance_scale, seed, **settings)
        latents = text_to_image(model, prompt, text, runtime, **steered)
    else:
        image = read_like_host(soft_picture(*SIZE))
        if task == "image":
            repaint = ImageToImageSettings(STRENGTH[task], steps, guidance_scale, seed, **settings)
            latents = image_to_image(model, prompt, repaint, runtime, image=image, **steered)
        else:
            fill = InpaintSettings(STRENGTH[task], steps, guidance_scale, seed, **settings)
            mask = as_mask(mask_picture(*SIZE))
            latents = inpaint(model, prompt, mask, fill, runtime, image=image, **steered)
    return decode(model, latents, False, counting_runtime()).numpy()


def assert_same(ours: np.ndarray, script: np.ndarray) -> None:
    assert ours.shape == script.shape
    assert float(np.abs(ours - script).max()) <= 1e-5
