"""Small ControlNets for the small models, with weights as after training: their zero convolutions aren't zero."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch

from .weights import random_module

CONTROLNETS = {
    "sd15_depth": ("sd15", 9311),
    "sd15_canny": ("sd15", 9319),
    "sdxl_depth": ("sdxl_base", 9323),
    "sdxl_canny": ("sdxl_base", 9337),
}
"""{folder in models/controlnet: (matching model in small_models.make_all, seed)}."""
UNIONS = {"sdxl_union": ("sdxl_base", 9341, 6), "sdxl_promax": ("sdxl_base", 9343, 8)}
"""The same for ControlNet Unions, with the number of their modes."""
SHARE = 0.4
"""The size of a ControlNet's output relative to the UNet's own layers."""


def make_controlnet(unet: Path, folder: Path, *, seed: int) -> Path:
    """A ControlNet in diffusers' layout for the UNet in the folder `unet`."""
    from diffusers import ControlNetModel

    return _save(ControlNetModel, _shared(ControlNetModel, unet), folder, seed)


def make_union(unet: Path, folder: Path, *, seed: int, modes: int) -> Path:
    """A ControlNet Union in diffusers' layout for the UNet in the folder `unet`."""
    from diffusers import ControlNetUnionModel

    shared = _shared(ControlNetUnionModel, unet)
    width = shared["block_out_channels"][0]
    own = {"num_control_type": modes, "num_trans_channel": width, "num_proj_channel": width}
    return _save(ControlNetUnionModel, {**shared, **own}, folder, seed)


def _shared(kind: Any, unet: Path) -> dict[str, Any]:
    """The entries of the UNet's config that the ControlNet class `kind` has too."""
    config = json.loads((unet / "config.json").read_text("utf-8"))
    takes = set(inspect.signature(kind.__init__).parameters) - {"self", "conditioning_embedding_out_channels"}
    return {name: value for name, value in config.items() if name in takes and value is not None}


def _save(kind: Any, config: dict[str, Any], folder: Path, seed: int) -> Path:
    controlnet = random_module(lambda: kind(**config, conditioning_embedding_out_channels=(8, 8, 16, 16)), seed)
    with torch.no_grad():
        for name, weight in controlnet.named_parameters():
            if name.startswith(("controlnet_down_blocks.", "controlnet_mid_block.")):
                weight.mul_(SHARE)
    controlnet.save_pretrained(folder, safe_serialization=True)
    return folder


def make_controlnets(folder: Path, models: dict[str, Path]) -> dict[str, Path]:
    """Makes every ControlNet in CONTROLNETS and UNIONS, each in its own subfolder of `folder`."""
    made = {
        name: make_controlnet(models[model] / "unet", folder / name, seed=seed)
        for name, (model, seed) in CONTROLNETS.items()
    }
    for name, (model, seed, modes) in UNIONS.items():
        made[name] = make_union(models[model] / "unet", folder / name, seed=seed, modes=modes)
    return made
