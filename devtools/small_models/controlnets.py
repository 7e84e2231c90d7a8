"""Small ControlNets for the small models, with weights as after training: their zero convolutions aren't zero."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import torch

from .weights import random_module

CONTROLNETS = {
    "sd15_depth": ("sd15", 9311),
    "sd15_canny": ("sd15", 9319),
    "sdxl_depth": ("sdxl_base", 9323),
    "sdxl_canny": ("sdxl_base", 9337),
}
"""{folder in models/controlnet: (matching model in small_models.make_all, seed)}."""
SHARE = 0.4
"""The size of a ControlNet's output relative to the UNet's own layers."""


def make_controlnet(unet: Path, folder: Path, *, seed: int) -> Path:
    """A ControlNet in diffusers' layout for the UNet in the folder `unet`."""
    from diffusers import ControlNetModel

    config = json.loads((unet / "config.json").read_text("utf-8"))
    takes = set(inspect.signature(ControlNetModel.__init__).parameters) - {
        "self",
        "conditioning_embedding_out_channels",
    }
    shared = {name: value for name, value in config.items() if name in takes and value is not None}
    controlnet = random_module(
        lambda: ControlNetModel(**shared, conditioning_embedding_out_channels=(8, 8, 16, 16)), seed
    )
    with torch.no_grad():
        for name, weight in controlnet.named_parameters():
            if name.startswith(("controlnet_down_blocks.", "controlnet_mid_block.")):
                weight.mul_(SHARE)
    controlnet.save_pretrained(folder, safe_serialization=True)
    return folder


def make_controlnets(folder: Path, models: dict[str, Path]) -> dict[str, Path]:
    """Makes every ControlNet in CONTROLNETS, each in its own subfolder of `folder`."""
    return {
        name: make_controlnet(models[model] / "unet", folder / name, seed=seed)
        for name, (model, seed) in CONTROLNETS.items()
    }
