"""Kandinsky 2.2's depth ControlNet decoder: image embeddings and a depth map -> latents.

diffusers' two pipelines for it have limits that are worked around here: they don't support ``output_type="latent"`` or
latents to start from, and the image-to-image one swaps height and width (see :class:`_MovqStandIn`). They only support the
legacy callback.

Source: https://huggingface.co/docs/diffusers/using-diffusers/kandinsky#controlnet
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..control.kandinsky_hint import FittedHint
from ..denoising.job import DenoisingJob, borrow_pipeline, legacy_callback, repeat
from ..model.embeds import ImageEmbeds

if TYPE_CHECKING:
    import torch


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """MoVQ latents, [B, 4, h, w]."""
    return _run(job, device, {"height": job.extent.height, "width": job.extent.width})


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """MoVQ latents, [B, 4, h, w]. The pipeline measures the picture and swaps its sides, so it gets a square dummy."""
    import torch

    picture = torch.zeros(job.batch, 3, 8, 8)
    return _run(job, device, {"image": picture, "height": 8, "width": 8, "strength": job.strength})


def _run(job: DenoisingJob, device: torch.device, own: dict[str, Any]) -> torch.Tensor:
    assert isinstance(job.prompt, ImageEmbeds)
    dtype = job.components.dtype
    pipeline = borrow_pipeline(job, device, {})
    pipeline.movq = movq = _MovqStandIn(pipeline.movq, None if job.latents is None else job.latents.to(device))
    pipeline(
        image_embeds=repeat(job.prompt.positive, job.batch, device, dtype),
        negative_image_embeds=repeat(job.prompt.negative, job.batch, device, dtype),
        hint=job.own(FittedHint).depth.to(device=device, dtype=dtype),
        num_inference_steps=job.steps,
        guidance_scale=job.guidance_scale,
        generator=job.generators,
        output_type="pt",
        callback=legacy_callback(pipeline, job),
        **own,
    )
    return movq.decoded


class _MovqStandIn:
    """Stands in for ``movq`` in one pipeline object: ``encode`` returns the run's latents, and ``decode`` keeps the final ones."""

    decoded: torch.Tensor

    def __init__(self, movq: Any, latents: torch.Tensor | None) -> None:
        self.config = movq.config
        self.dtype = movq.dtype
        self._latents = latents

    def encode(self, picture: torch.Tensor) -> dict[str, torch.Tensor | None]:
        return {"latents": self._latents}

    def decode(self, latents: torch.Tensor, force_not_quantize: bool = False) -> dict[str, torch.Tensor]:
        self.decoded = latents
        return {"sample": latents}
