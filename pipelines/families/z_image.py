"""Z-Image, Turbo and base: diffusers' ZImage pipelines, from embeddings and latents to latents.

The classic pipelines, not the modular blocks: in bfloat16, the blocks round the time and guide in half precision, and draw other noise
for image-to-image, so their pictures differ from a script's. The pipelines can't start from latents: a stand-in for their autoencoder
passes them.

Source: https://huggingface.co/docs/diffusers/api/pipelines/z_image
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..denoising.job import DenoisingJob, borrow_image_pipeline, borrow_inpainting_pipeline, borrow_pipeline, repeat
from ..model.embeds import PromptEmbeds

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {"text_encoder": None, "tokenizer": None}


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w] float32."""
    _check_side(job)
    pipeline = borrow_pipeline(job, device, WITHOUT)
    return pipeline(width=job.extent.width, height=job.extent.height, **_arguments(job, device)).images


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w] float32."""
    _check_side(job)
    pipeline, arguments = borrow_image_pipeline(job, device, WITHOUT)
    return pipeline(**arguments, **_arguments(job, device)).images


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 16, h, w] float32."""
    _check_side(job)
    pipeline, arguments = borrow_inpainting_pipeline(job, device, WITHOUT)
    return pipeline(**arguments, **_arguments(job, device)).images


def _arguments(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)
    dtype = job.components.dtype
    return {
        "prompt_embeds": list(repeat(job.prompt.positive.hidden, job.batch, device, dtype)),
        "negative_prompt_embeds": list(repeat(job.prompt.negative.hidden, job.batch, device, dtype)),
        **job.common_arguments(),
    }


def _check_side(job: DenoisingJob) -> None:
    """
    Raises:
        RelayError: the transformer has no position for the last row or column of patches.
    """
    config = job.components[job.components.family.denoiser].config
    most = min(config.axes_lens[1:]) * job.components.family.size_multiple
    if max(job.extent.width, job.extent.height) > most:
        raise RelayError(
            f"width, height: {job.components.source} can't do {job.extent}. Its transformer has positions for {most} pixels a side, so use at most that."
        )
