"""Stable Diffusion 1.x and 2.x: diffusers' StableDiffusion pipelines, from embeddings and latents to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter import ip_adapter_arguments
from ..control.fitting import control_arguments
from ..denoising.guidance import guidance_arguments
from ..denoising.job import DenoisingJob, borrow_inpainting_pipeline, borrow_pipeline, repeat
from ..model.embeds import PromptEmbeds

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {
    "text_encoder": None,
    "tokenizer": None,
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]."""
    pipeline = borrow_pipeline(job, device, WITHOUT)
    return pipeline(width=job.extent.width, height=job.extent.height, **_arguments(job, device)).images


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]."""
    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, WITHOUT)
    return pipeline(image=job.latents.to(device), strength=job.strength, **_arguments(job, device)).images


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]."""
    pipeline, arguments = borrow_inpainting_pipeline(job, device, WITHOUT)
    return pipeline(**arguments, **_arguments(job, device)).images


def _arguments(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)
    dtype = job.components.dtype
    return {
        "prompt_embeds": repeat(job.prompt.positive.hidden, job.batch, device, dtype),
        "negative_prompt_embeds": repeat(job.prompt.negative.hidden, job.batch, device, dtype),
        **control_arguments(job.controls, job.task),
        **guidance_arguments(job),
        **ip_adapter_arguments(job.ip_adapters, job.is_guided, device),
        **job.common_arguments(),
    }
