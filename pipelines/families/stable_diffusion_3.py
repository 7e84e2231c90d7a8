"""Stable Diffusion 3 and 3.5: diffusers' modular blocks, from embeddings and latents to latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..denoising.job import DenoisingJob, repeat
from ..denoising.modular import run_denoise_blocks
from ..model.embeds import PromptEmbeds

if TYPE_CHECKING:
    import torch

BLOCKS = "StableDiffusion3AutoBlocks"


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    return run_denoise_blocks(job, device, BLOCKS, **_prompt(job, device))


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]."""
    return run_denoise_blocks(job, device, BLOCKS, **_prompt(job, device))


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w]. ``job.on_step`` restores the unmasked area after each step, as StableDiffusion3InpaintPipeline does."""
    return run_denoise_blocks(job, device, BLOCKS, **_prompt(job, device))


def _prompt(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)
    positive, negative, dtype = job.prompt.positive, job.prompt.negative, job.components.dtype
    assert positive.pooled is not None and negative.pooled is not None
    return {
        "prompt_embeds": repeat(positive.hidden, job.batch, device, dtype),
        "pooled_prompt_embeds": repeat(positive.pooled, job.batch, device, dtype),
        "negative_prompt_embeds": repeat(negative.hidden, job.batch, device, dtype),
        "negative_pooled_prompt_embeds": repeat(negative.pooled, job.batch, device, dtype),
    }
