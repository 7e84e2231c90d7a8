"""Checks the latents from a denoiser before they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..model.broken_weights import broken_weights
from ..model.components import PipelineComponents

if TYPE_CHECKING:
    import torch


def check_painted(latents: torch.Tensor, components: PipelineComponents) -> None:
    """Refuses NaN and infinite values, which would become a black picture.

    Raises:
        RelayError: some value is NaN or infinite.
    """
    if latents.isfinite().all():
        return
    denoiser = components[components.family.denoiser]
    dtype = str(denoiser.dtype).removeprefix("torch.")
    if broken := broken_weights({components.family.denoiser: denoiser}):
        raise RelayError(f"model: {components.source} painted NaN or infinite values, so there is no picture. {broken}")
    loras = ", ".join(lora.title for lora in components.loras)
    raise RelayError(
        f"model: {components.source} painted NaN or infinite values in {dtype}, so there is no picture. Load it in bfloat16 "
        f"or float32, or lower guidance_scale, a weight in the prompt{f', or the strength of the LoRA ({loras})' if loras else ''}."
    )
