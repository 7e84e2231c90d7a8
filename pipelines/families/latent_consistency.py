"""Latent Consistency Models: diffusers' LatentConsistencyModel pipelines, from embeddings and latents to latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter import ip_adapter_arguments
from ..denoising.job import DenoisingJob, borrow_pipeline, repeat
from ..denoising.step_callback import StepWatcher
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
    """Latents in model scale, [B, 4, h, w]. All steps run, spread over the part of the schedule that ``strength`` leaves."""
    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, WITHOUT)
    return pipeline(image=job.latents.to(device), strength=job.strength, **_arguments(job, device)).images


def _arguments(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)
    arguments = job.common_arguments()
    arguments["callback_on_step_end"] = _with_clean(job.on_step)
    return {
        "prompt_embeds": repeat(job.prompt.positive.hidden, job.batch, device, job.components.dtype),
        **ip_adapter_arguments(job.ip_adapters, job.is_guided, device),
        **arguments,
    }


def _with_clean(on_step: StepWatcher) -> Callable[..., dict[str, Any]]:
    """The pipelines return the last step's clean prediction. It equals the step's latents, unless a mask has changed these."""

    def callback(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        values = on_step(pipeline, step, timestep, values)
        return values | {"denoised": values["latents"]}

    return callback
