"""Small models for inpainting: copies of plain models whose UNet also takes the mask and the masked picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from .finetunes import save_weights

CLASSES = {
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
    "KandinskyV22Pipeline": "KandinskyV22InpaintPipeline",
}
"""{pipeline class in a plain model's model_index.json: the class in the published inpainting model's}."""
CHANNELS = 9
SHARE = 0.15
"""The size of the new weights relative to those for the noise: large enough to change the picture."""


def make_inpaint(folder: Path, plain: Path) -> Path:
    """A copy of the model in `plain` with a UNet for 9 channels."""
    shutil.copytree(plain, folder)
    _rewrite(folder / "unet" / "config.json", in_channels=CHANNELS)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    _rewrite(folder / "model_index.json", _class_name=CLASSES[index["_class_name"]])
    weights_file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(weights_file)
    first = weights["conv_in.weight"]
    shape = (first.shape[0], CHANNELS - first.shape[1], 3, 3)
    extra = SHARE * first.std() * torch.randn(shape, generator=torch.Generator("cpu").manual_seed(9))
    weights_file.unlink()  # it may be a link to the plain model's file
    save_weights({**weights, "conv_in.weight": torch.cat([first, extra], dim=1)}, weights_file)
    return folder


def _rewrite(file: Path, **entries: object) -> None:
    config = {**json.loads(file.read_text("utf-8")), **entries}
    file.unlink()
    file.write_text(json.dumps(config, indent=2), "utf-8")
