"""Tells ComfyUI 0.29 to 0.33 which outputs are models: its cache drops those of earlier prompts first, as with its own models."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher

ATTRIBUTE = "patcher"
"""The host looks for a ModelPatcher under this name. Other versions don't; they ask what :class:`.SizedValue` answers."""


def mark_as_model(value: Any) -> None:
    """Gives the value a patcher of its size. It has no weights, so it keeps nothing alive, and is never loaded."""
    if not hasattr(value, ATTRIBUTE):
        device, size = memory.unet_offload_device(), value.get_ram_usage()
        object.__setattr__(value, ATTRIBUTE, ModelPatcher(torch.nn.Module(), device, device, size=size))
