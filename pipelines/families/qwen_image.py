"""Qwen-Image: diffusers' QwenImage pipelines, from embeddings and latents to latents.

The pipelines' latents are packed: [B, h / 2 * w / 2, 4 * C]. They can't start from latents: a stand-in for their autoencoder passes
them. ``true_cfg_scale`` guides away from the negative prompt; ``guidance_scale`` is only read by distilled models.

Source: https://huggingface.co/docs/diffusers/api/pipelines/qwenimage
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..denoising.job import DenoisingJob, borrow_image_pipeline, borrow_pipeline, repeat
from ..latents.autoencoder import autoencoder_of
from ..latents.frame_axis import without_frame
from ..model.embeds import PromptEmbeds, TextEmbeds
from ..model.family import Task

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
MOST_TOKENS = 1024
"""The greatest ``max_sequence_length`` of the pipelines, which cut the embeddings at it."""


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    pipeline = borrow_pipeline(job, device, WITHOUT)
    return _run(pipeline, job, device, width=job.extent.width, height=job.extent.height)


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    pipeline, arguments = borrow_image_pipeline(job, device, WITHOUT)
    return _run(pipeline, job, device, **arguments)


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]. ``job.on_step`` restores the unmasked area after each step, as QwenImageInpaintPipeline does."""
    return image_to_image(replace(job, task=Task.IMAGE_TO_IMAGE), device)


def _run(pipeline: Any, job: DenoisingJob, device: torch.device, **arguments: Any) -> torch.Tensor:
    factor, width, height = autoencoder_of(job.components).factor, job.extent.width, job.extent.height

    def unpack(latents: torch.Tensor) -> torch.Tensor:
        return without_frame(pipeline._unpack_latents(latents, height, width, factor))

    def pack(latents: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = pipeline._pack_latents(latents, *latents.shape)
        return packed

    job.on_step.reads_packed(pack, unpack)
    return unpack(pipeline(**arguments, **_prompt(job, device), **_common(job)).images)


def _common(job: DenoisingJob) -> dict[str, Any]:
    """A model that was not distilled takes no guidance scale."""
    distilled = job.components[job.components.family.denoiser].config.guidance_embeds
    return job.common_arguments() | ({} if distilled else {"guidance_scale": None})


def _prompt(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    import torch

    assert isinstance(job.prompt, PromptEmbeds)

    def given(text: TextEmbeds, start: str) -> dict[str, Any]:
        hidden = repeat(text.hidden, job.batch, device, job.components.dtype)
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=device)
        return {f"{start}prompt_embeds": hidden, f"{start}prompt_embeds_mask": mask}

    arguments = given(job.prompt.positive, "") | {"true_cfg_scale": job.true_cfg_scale}
    if job.true_cfg_scale > 1:
        arguments |= given(job.prompt.negative, "negative_")
    return arguments | {"max_sequence_length": MOST_TOKENS}
