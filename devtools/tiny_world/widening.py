"""Widens a text encoder, and UNets that read it, without changing what they compute.

ComfyUI recognises an SD1.5 by its text width of 768. The trained encoder is narrower. Here its states are repeated side by side: layer
normalisation treats each copy like the original, and every other layer reads the first copy and writes all copies.
"""

from __future__ import annotations

from typing import Any

import torch


def widen_text_encoder(encoder: Any, times: int) -> Any:
    """A CLIPTextModel whose states are `encoder`'s, repeated `times` side by side; the heads are repeated too and keep their width."""
    from transformers import CLIPTextConfig, CLIPTextModel

    old = encoder.config
    config = CLIPTextConfig(
        **{
            **old.to_dict(),
            "hidden_size": old.hidden_size * times,
            "num_attention_heads": old.num_attention_heads * times,
            "projection_dim": old.hidden_size * times,
        }
    )
    wide = CLIPTextModel(config)
    # with or without a projection, and between versions, the names differ by a leading level
    narrow = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    wide.load_state_dict(
        {
            name: _fitted(name, narrow[name.removeprefix("text_model.")], value.shape)
            for name, value in wide.state_dict().items()
        }
    )
    return wide.eval().requires_grad_(False)


def text_model(tower: Any) -> Any:
    """The same encoder without its projection, for pipelines that don't project."""
    return widen_text_encoder(tower, 1)


def widen_cross_attention(unet: Any, times: int) -> Any:
    """A copy of a UNet2DConditionModel for the widened encoder, which reads the first copy."""
    config = {**unet.config, "cross_attention_dim": unet.config.cross_attention_dim * times}
    wide = type(unet).from_config(config)
    narrow = unet.state_dict()
    wide.load_state_dict({name: _read_first(narrow[name], value.shape) for name, value in wide.state_dict().items()})
    return wide.eval().requires_grad_(False)


def _fitted(name: str, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if "embedding" in name and weight.ndim == 2:
        return weight.repeat(1, shape[1] // weight.shape[1])
    if weight.ndim == 1:
        return weight.repeat(shape[0] // weight.shape[0])
    return _read_first(weight.repeat(shape[0] // weight.shape[0], 1), shape)


def _read_first(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Has zeros for everything except the first copy."""
    if weight.shape == shape:
        return weight
    return torch.nn.functional.pad(weight, (0, shape[1] - weight.shape[1]))
