"""What a denoiser has painted, before it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..model.components import PipelineComponents

if TYPE_CHECKING:
    import torch


def check_painted(latents: torch.Tensor, components: PipelineComponents) -> None:
    """Refuses what a run painted where it is no numbers: a black picture would come of it.

    Raises:
        RelayError: some value is NaN or infinite.
    """
    if latents.isfinite().all():
        return
    denoiser = components[components.family.denoiser]
    dtype = str(denoiser.dtype).removeprefix("torch.")
    raise RelayError(
        f"model: {components.source} painted values that are no numbers (NaN or infinite) in {dtype}, so nothing was made. Load it in bfloat16 "
        "or float32, lower guidance_scale or a weight in the prompt; if that does not help, its file may be damaged."
    )
