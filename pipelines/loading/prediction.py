"""Tells whether a checkpoint's UNet predicts the noise (epsilon) or v, and builds the scheduler for it. The shapes don't tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.safetensors import Header, read_tensors
from .checkpoint_keys import plain

UNET = "model.diffusion_model."
"""The prefix of the keys of a UNet in a checkpoint."""
FIRST_LAYER = UNET + "input_blocks.0.0.weight"
PLAIN_CHANNELS = 4
"""Input channels of a Stable Diffusion UNet that is not for inpainting."""
V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Empty tensors that trainers put into a file to mark v-prediction and zero terminal SNR; ComfyUI reads them too."""
METADATA = "modelspec.prediction_type"
"""An entry of the Stability AI model metadata standard, written by trainers: ``"epsilon"`` or ``"v"``."""
LAST_NORM = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD = 0.09


def marked_prediction(path: Path, header: Header, place: str = "") -> dict[str, Any]:
    """The changes to the scheduler's config that the file's own marks ask for, or else its metadata. Without either: none.

    Args:
        path: the file.
        header: without ``place`` before its keys.
        place: the prefix of the keys in the file.
    """
    if V_MARK in header.shapes:
        zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return {"prediction_type": "v_prediction", **(zero_snr if ZERO_SNR_MARK in header.shapes else {})}
    declared = header.metadata.get(METADATA, "").strip().lower()
    if declared in ("v", "v_prediction", "epsilon"):
        return {"prediction_type": "epsilon" if declared == "epsilon" else "v_prediction"}
    return {}


def marked_or_measured_prediction(path: Path, header: Header, place: str = "") -> dict[str, Any]:
    """As :func:`marked_prediction`. A Stable Diffusion 2 file without marks and metadata is classified as in ComfyUI.

    Published v-prediction models (768 pixels) have widely spread values in the last layer norm, epsilon models (512 pixels) do
    not, and inpainting models predict epsilon.
    """
    if changes := marked_prediction(path, header, place):
        return changes
    return {"prediction_type": "v_prediction" if _has_wide_last_norm(path, header, place) else "epsilon"}


def scheduler_of(folder: Path, class_name: str, changes: Mapping[str, Any]) -> Any:
    """The scheduler from a kind's folder of configs, with ``changes`` applied to its config."""
    import inspect

    import diffusers

    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    scheduler_class = getattr(diffusers, class_name)
    if not set(changes) <= set(inspect.signature(scheduler_class.__init__).parameters):
        scheduler_class = diffusers.DDIMScheduler  # PNDM would ignore zero terminal SNR without a warning
    return scheduler_class.from_config({**config, **changes})


def _has_wide_last_norm(path: Path, header: Header, place: str) -> bool:
    import torch

    if header.shapes[FIRST_LAYER][1] != PLAIN_CHANNELS or LAST_NORM not in header.shapes:
        return False
    tensors = read_tensors(path, lambda key: LAST_NORM if plain(key) == place + LAST_NORM else None, torch.float32)
    return float(tensors[LAST_NORM].std(unbiased=False)) > V_SPREAD
