"""Kandinsky 2.2's decoder: image embeddings -> latents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..denoising.job import DenoisingJob, borrow_pipeline, repeat
from ..model.embeds import ImageEmbeds

if TYPE_CHECKING:
    import torch


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """MoVQ latents, [B, 4, h, w]."""
    pipeline = borrow_pipeline(job, device, {})
    return pipeline(width=job.extent.width, height=job.extent.height, **_arguments(job, device)).images


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """MoVQ latents, [B, 4, h, w].

    The pipeline only takes pictures, and swaps their height and width. It gets the latents from a stand-in for the encoder
    of this one pipeline object, and a dummy picture whose size it measures.
    """
    import torch

    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, {})
    pipeline.movq = _LatentsForPicture(job.latents.to(device), pipeline.movq)
    return pipeline(
        image=torch.zeros(job.batch, 3, 8, 8), height=8, width=8, strength=job.strength, **_arguments(job, device)
    ).images


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """MoVQ latents, [B, 4, h, w]. For an inpainting decoder: it paints the masked area from noise, so there is no strength.

    The pipeline only uses the first picture and the first mask of a batch, so each image is a separate run here.
    """
    import torch

    assert job.latents is not None and job.masked_picture is not None
    pipeline = borrow_pipeline(job, device, {})
    movq = pipeline.movq
    arguments = _arguments(replace(job, generators=job.generators[:1]), device)
    painted = []
    for index, generator in enumerate(job.generators):
        pipeline.movq = _LatentsForPicture(job.latents[index : index + 1].to(device), movq)
        arguments |= {"generator": [generator], "callback_on_step_end": job.on_step.of_run(index, job.batch)}
        latents = pipeline(
            image=torch.zeros(1, 3, job.extent.height, job.extent.width),
            mask_image=job.masked_picture.mask[index : index + 1].clone(),  # the pipeline changes it in place
            width=job.extent.width,
            height=job.extent.height,
            **arguments,
        ).images
        painted.append(latents)
    return torch.cat(painted)


class _LatentsForPicture:
    """Stands in for ``movq`` when a pipeline encodes its picture: returns the run's latents."""

    def __init__(self, latents: torch.Tensor, movq: Any) -> None:
        self.config = movq.config
        self.dtype = movq.dtype
        self._latents = latents

    def encode(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latents": self._latents}


def _arguments(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, ImageEmbeds)
    dtype = job.components.dtype
    return {
        "image_embeds": repeat(job.prompt.positive, job.batch, device, dtype),
        "negative_image_embeds": repeat(job.prompt.negative, job.batch, device, dtype),
        **job.common_arguments(),
    }
