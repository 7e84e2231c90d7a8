"""The frame axis of video autoencoders, which image models such as Qwen-Image run with a single frame.

Only such an autoencoder, and the host's LATENT for its space, have the axis: [B, C, 1, h, w]. All other code of the pack has latents
as [B, C, h, w].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def has_frames(autoencoder: Any) -> bool:
    """Whether the module is a video autoencoder (AutoencoderKLWan, AutoencoderKLQwenImage)."""
    return hasattr(autoencoder.config, "temperal_downsample")  # diffusers' spelling


def with_frame(tensor: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] -> [B, C, 1, h, w]."""
    return tensor.unsqueeze(2)


def without_frame(tensor: torch.Tensor) -> torch.Tensor:
    """[B, C, 1, h, w] -> [B, C, h, w]."""
    return tensor.squeeze(2)
