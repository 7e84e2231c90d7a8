"""Converts text embeddings to the host's CONDITIONING, so that Compel also works with ComfyUI's own samplers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..pipelines.model.embeds import TextEmbeds

if TYPE_CHECKING:
    import torch


def to_conditioning(text: TextEmbeds) -> list[list[Any]]:
    """``[[hidden, {"pooled_output": pooled}]]`` in float32. The host's own nodes set sizes and scores.

    Both tensors are copies, because other nodes may change their inputs in place.
    Zeros for an encoder that the model lacks (Stable Diffusion 3 without T5) are left out, as in the host's own CONDITIONING.
    Stable Diffusion 2.x has no ``pooled_output``: the host computes it with a layer and a projection that diffusers' model lacks.
    """
    pooled = text.host_pooled if text.pooled is None else text.pooled
    extras = {} if pooled is None else {"pooled_output": _copied(pooled)}
    tokens = text.hidden.shape[1] - text.stand_ins
    return [[_copied(text.hidden[:, :tokens]), extras]]


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.to(torch.float32, copy=True)
