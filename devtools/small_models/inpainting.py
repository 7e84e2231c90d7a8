"""Small models for inpainting: a plain model's copy whose UNet sees the mask and the masked picture beside the noise."""

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
"""What the published models' model_index.json names, for a plain model and for one for inpainting."""
CHANNELS = 9
SHARE = 0.15
"""How large the new weights are beside those of the noise: enough that what is seen changes the picture."""


def make_inpaint(folder: Path, plain: Path) -> Path:
    """A copy of the model in `plain` with a UNet of 9 channels."""
    shutil.copytree(plain, folder)
    _rewrite(folder / "unet" / "config.json", in_channels=CHANNELS)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    _rewrite(folder / "model_index.json", _class_name=CLASSES[index["_class_name"]])
    weights_file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(weights_file)
    first = weights["conv_in.weight"]
    shape = (first.shape[0], CHANNELS - first.shape[1], 3, 3)
    extra = SHARE * first.std() * torch.randn(shape, generator=torch.Generator("cpu").manual_seed(9))
    weights_file.unlink()  # it may be a link to the plain model's
    save_weights({**weights, "conv_in.weight": torch.cat([first, extra], dim=1)}, weights_file)
    return folder


def _rewrite(file: Path, **entries: object) -> None:
    config = {**json.loads(file.read_text("utf-8")), **entries}
    file.unlink()
    file.write_text(json.dumps(config, indent=2), "utf-8")
