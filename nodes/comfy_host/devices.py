"""The device and dtype that the host uses for diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management as memory

from .choices import check_choice

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "float16", "bfloat16")


def pick_dtype(name: str) -> torch.dtype:
    """``auto`` is the dtype that the host would use for a diffusion model on its device."""
    import torch

    check_choice("dtype", name, DTYPES)
    if name != "auto":
        return getattr(torch, name)
    supported = [torch.float16, torch.bfloat16, torch.float32]
    chosen = memory.unet_dtype(device=memory.get_torch_device(), supported_dtypes=supported)
    # The host can be told to keep weights in 8 or 64 bits, which diffusers' modules do not support.
    return chosen if chosen in supported else torch.float32


def denoising_device() -> torch.device:
    """The device that denoisers run on."""
    return memory.get_torch_device()
