"""Flux.1 dev and schnell: diffusers' Flux pipelines, from embeddings and latents to latents.

diffusers' modular blocks for Flux have no ``true_cfg_scale``, and in half precision they don't round the timesteps as the pipelines do. So
the pipelines themselves are run. Their latents are packed: [B, h / 2 * w / 2, 4 * C].
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..denoising.job import DenoisingJob, borrow_pipeline, repeat
from ..latents.autoencoder import autoencoder_of
from ..model.embeds import PromptEmbeds, TextEmbeds
from ..model.family import Task

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    return _run(job, device)


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    assert job.latents is not None
    return _run(job, device, image=job.latents.to(device), strength=job.strength)


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]. ``job.on_step`` restores the unmasked area after each step, as FluxInpaintPipeline does."""
    return image_to_image(replace(job, task=Task.IMAGE_TO_IMAGE), device)


def _run(job: DenoisingJob, device: torch.device, **arguments: Any) -> torch.Tensor:
    pipeline = borrow_pipeline(job, device, WITHOUT)
    factor, width, height = autoencoder_of(job.components).factor, job.extent.width, job.extent.height

    def unpack(latents: torch.Tensor) -> torch.Tensor:
        spatial: torch.Tensor = pipeline._unpack_latents(latents, height, width, factor)
        return spatial

    def pack(latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = pipeline._pack_latents(latents, *latents.shape)
        return packed

    job.on_step.reads_packed(pack, unpack)
    latents = pipeline(width=width, height=height, **arguments, **_prompt(job, device), **job.common_arguments())
    return unpack(latents.images)


def _prompt(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)

    def given(text: TextEmbeds, start: str) -> dict[str, Any]:
        assert text.pooled is not None
        hidden, pooled = (repeat(part, job.batch, device, job.components.dtype) for part in (text.hidden, text.pooled))
        return {f"{start}prompt_embeds": hidden, f"{start}pooled_prompt_embeds": pooled}

    arguments = given(job.prompt.positive, "")
    if job.true_cfg_scale > 1:
        arguments |= {**given(job.prompt.negative, "negative_"), "true_cfg_scale": job.true_cfg_scale}
    return arguments
