"""SDXL base and refiner: diffusers' StableDiffusionXL pipelines, from embeddings and latents to latents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter import ip_adapter_arguments
from ..control.fitting import control_arguments, step_callback_to
from ..denoising.guidance import guidance_arguments
from ..denoising.job import DenoisingJob, borrow_inpainting_pipeline, borrow_pipeline, repeat
from ..denoising.whole_steps import end_whole, has_two_calls
from ..model.embeds import PromptEmbeds

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {
    "text_encoder": None,
    "text_encoder_2": None,
    "tokenizer": None,
    "tokenizer_2": None,
    "add_watermarker": False,
}


@dataclass(frozen=True)
class AestheticScores:
    """Aesthetic scores for the prompts, from 0 to 10. Only models that were trained with scores (the refiner) use them."""

    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    """For the negative prompt."""


def text_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]; with ``denoising_end``, they still hold noise."""
    flags = _flags(job)
    flags.pop("requires_aesthetics_score", None)
    pipeline = borrow_pipeline(job, device, WITHOUT | flags)
    arguments, end = _arguments(job, device), job.denoising_end
    if end is not None and has_two_calls(job.scheduler):
        end_whole(job.scheduler, end, job.steps)
        end = None
    if job.controls and end is not None:
        arguments["callback_on_step_end"] = step_callback_to(end, job.scheduler, job.on_step)
    size = {"width": job.extent.width, "height": job.extent.height}
    return pipeline(**size, denoising_end=end, **arguments).images


def image_to_image(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]; with ``denoising_start``, no noise is added to the input latents."""
    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, WITHOUT | _flags(job))
    # with ControlNets, this pipeline has no range; runs/sampling.py refuses one
    part = {} if job.controls else {"denoising_start": job.denoising_start, "denoising_end": job.denoising_end}
    if job.denoising_end is not None and has_two_calls(job.scheduler):
        pipeline.relay_end, part["denoising_end"] = job.denoising_end, None
    return pipeline(
        image=job.latents.to(device),
        strength=job.strength,
        **asdict(job.own(AestheticScores)),
        **part,
        **_arguments(job, device),
    ).images


def inpaint(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """Latents in model scale, [B, 4, h, w]."""
    pipeline, arguments = borrow_inpainting_pipeline(job, device, WITHOUT | _flags(job))
    scores = asdict(job.own(AestheticScores))
    return pipeline(**scores, **arguments, **_arguments(job, device)).images


def _flags(job: DenoisingJob) -> dict[str, Any]:
    return dict(job.components.config)


def _arguments(job: DenoisingJob, device: torch.device) -> dict[str, Any]:
    assert isinstance(job.prompt, PromptEmbeds)
    assert job.prompt.positive.pooled is not None and job.prompt.negative.pooled is not None
    dtype = job.components.dtype
    return {
        "prompt_embeds": repeat(job.prompt.positive.hidden, job.batch, device, dtype),
        "negative_prompt_embeds": repeat(job.prompt.negative.hidden, job.batch, device, dtype),
        "pooled_prompt_embeds": repeat(job.prompt.positive.pooled, job.batch, device, dtype),
        "negative_pooled_prompt_embeds": repeat(job.prompt.negative.pooled, job.batch, device, dtype),
        **({} if job.prompt.sizes is None else job.prompt.sizes.arguments(job.extent)),
        **control_arguments(job.controls, job.task),
        **guidance_arguments(job),
        **ip_adapter_arguments(job.ip_adapters, job.is_guided, device),
        **job.common_arguments(),
    }
