"""Tells whether a checkpoint's UNet predicts the noise (epsilon) or v, which its shapes don't tell, and builds the scheduler for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.safetensors import Header, read_tensors
from .block_layout import DISTILLED_GUIDANCE
from .checkpoint_keys import Rename, plain

UNET = "model.diffusion_model."
"""The prefix of the keys of a UNet in a checkpoint."""
FIRST_LAYERS = ("input_blocks.0.0.weight", "conv_in.weight")
"""The key of a UNet's first layer after :data:`UNET`, in the original layout and in diffusers'."""
PLAIN_CHANNELS = 4
"""Input channels of a Stable Diffusion UNet that is not for inpainting."""
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Empty tensors that trainers put into a file to mark v-prediction and zero terminal SNR; ComfyUI reads them too."""
METADATA = "modelspec.prediction_type"
"""An entry of the Stability AI model metadata standard, written by trainers: ``"epsilon"`` or ``"v"``."""
LAST_NORMS = (
    "output_blocks.11.1.transformer_blocks.0.norm1.bias",
    "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias",
)
"""The key of a Stable Diffusion 2 UNet's last layer norm after :data:`UNET`, in either layout."""
V_SPREAD = 0.09


def marked_prediction(path: Path, header: Header, renamed: Rename = plain) -> dict[str, Any]:
    """The changes to the scheduler's config that the file's own marks ask for, or else its metadata. Without either: none.

    A UNet that reads guidance_scale is a Latent Consistency Model, which is run with the scheduler of that name.

    Args:
        path: the file.
        header: the file's header, with the keys of a complete checkpoint.
        renamed: maps the keys of the file to those of the header.
    """
    changes: dict[str, Any] = {}
    if UNET + DISTILLED_GUIDANCE in header.shapes:
        changes["_class_name"] = "LCMScheduler"
    declared = header.metadata.get(METADATA, "").strip().lower()
    if V_MARK in header.shapes:
        zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        changes |= {"prediction_type": "v_prediction", **(zero_snr if ZERO_SNR_MARK in header.shapes else {})}
    elif declared in ("v", "v_prediction", "epsilon"):
        changes["prediction_type"] = "epsilon" if declared == "epsilon" else "v_prediction"
    return changes


def marked_or_measured_prediction(path: Path, header: Header, renamed: Rename = plain) -> dict[str, Any]:
    """As :func:`marked_prediction`. A Stable Diffusion 2 file without marks and metadata is classified as in ComfyUI.

    Published v-prediction models (768 pixels) have widely spread values in the last layer norm, epsilon models (512 pixels) do
    not, and inpainting models predict epsilon.
    """
    changes = marked_prediction(path, header, renamed)
    if "prediction_type" in changes:
        return changes
    return {"prediction_type": "v_prediction" if _has_wide_last_norm(path, header, renamed) else "epsilon", **changes}


def scheduler_of(folder: Path, class_name: str, changes: Mapping[str, Any]) -> Any:
    """The scheduler from a kind's folder of configs, with ``changes`` applied to its config. Their ``_class_name`` is another class."""
    import inspect

    import diffusers

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    changes = dict(changes)
    scheduler_class = getattr(diffusers, changes.pop("_class_name", class_name))
    if not set(changes) <= set(inspect.signature(scheduler_class.__init__).parameters):
        scheduler_class = diffusers.DDIMScheduler  # PNDM would ignore zero terminal SNR without a warning
    return scheduler_class.from_config({**config, **changes})


def _has_wide_last_norm(path: Path, header: Header, renamed: Rename) -> bool:
    import torch

    first = next((UNET + layer for layer in FIRST_LAYERS if UNET + layer in header.shapes), None)
    last = next((UNET + norm for norm in LAST_NORMS if UNET + norm in header.shapes), None)
    if first is None or last is None or header.shapes[first][1] != PLAIN_CHANNELS:
        return False
    tensors = read_tensors(path, lambda key: last if renamed(key) == last else None, torch.float32)
    return float(tensors[last].std(unbiased=False)) > V_SPREAD
