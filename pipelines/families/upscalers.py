"""The Stable Diffusion upscalers: diffusers' pipelines of x2 (latents) and x4 (pictures), from embeddings to latents.

Both know only the legacy callback; see :func:`_callback`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.images import extent_of, to_pil
from ..denoising.job import DenoisingJob, borrow_pipeline, repeat
from ..denoising.tiling import TiledUnet, Tiles
from ..model.embeds import PromptEmbeds, TextEmbeds

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {"text_encoder": None, "tokenizer": None}


@dataclass(frozen=True, eq=False)
class PictureToUpscale:
    """What super-resolution reads beside the prompt."""

    picture: torch.Tensor
    """[H, W, 3] in 0..1; a size that is not of whole latent pixels takes the pipeline's own route for it."""
    noise_level: int
    """See :class:`.SuperResolutionSettings`."""
    tiles: Tiles | None
    """None: the picture at once."""
    tile_done: Callable[[int], None]
    """Called after each tile of each prediction, with how many predictions the run makes."""


def upscale_latent(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """``job.latents`` [B, 4, h, w] -> [B, 4, 2 * h, 2 * w], both in model scale."""
    assert isinstance(job.prompt, PromptEmbeds)
    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, WITHOUT)
    # The pipeline takes "" for the prompt at guidance 0, but not in the place of embeddings.
    text = job.prompt.empty if job.guidance_scale == 0 else job.prompt.positive
    latents: torch.Tensor = pipeline(
        image=job.latents.to(device),
        **_with_pooled("prompt_embeds", text, job, device),
        **_with_pooled("negative_prompt_embeds", job.prompt.negative, job, device),
        **_arguments(pipeline, job),
    ).images
    return latents


def super_resolution(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """The job's :class:`PictureToUpscale` -> latents in model scale, [1, 4, H, W]."""
    assert isinstance(job.prompt, PromptEmbeds)
    components = job.components
    given = job.own(PictureToUpscale)
    low_res = components["low_res_scheduler"]
    own = {"low_res_scheduler": type(low_res).from_config(low_res.config)}
    pipeline = borrow_pipeline(job, device, WITHOUT | own | dict(components.config))
    if given.tiles is not None:
        pipeline.unet = TiledUnet(
            pipeline.unet, given.tiles, lambda: given.tile_done(len(pipeline.scheduler.timesteps))
        )
    extent = extent_of(given.picture[None])
    fits = extent == extent.floored(pipeline.vae_scale_factor)
    latents: torch.Tensor = pipeline(
        image=given.picture.movedim(-1, 0)[None] if fits else [to_pil(given.picture)],
        noise_level=given.noise_level,
        prompt_embeds=repeat(job.prompt.positive.hidden, 1, device, components.dtype),
        negative_prompt_embeds=repeat(job.prompt.negative.hidden, 1, device, components.dtype),
        **_arguments(pipeline, job),
    ).images
    return latents


def _arguments(pipeline: Any, job: DenoisingJob) -> dict[str, Any]:
    return {
        "num_inference_steps": job.steps,
        "guidance_scale": job.guidance_scale,
        "generator": job.generators,
        "output_type": "latent",
        "callback": _callback(pipeline, job),
    }


def _callback(pipeline: Any, job: DenoisingJob) -> Callable[[int, Any, Any], None]:
    """``callback(step, timestep, latents)``, once for each step of the schedule, for a StepWatcher."""

    def callback(step: int, timestep: Any, latents: torch.Tensor) -> None:
        total = -(-len(pipeline.scheduler.timesteps) // pipeline.scheduler.order)
        job.on_step.after_step(step, total, None, latents)

    return callback


def _with_pooled(
    name: str, text: TextEmbeds | None, job: DenoisingJob, device: torch.device
) -> dict[str, torch.Tensor]:
    assert text is not None and text.pooled is not None
    dtype = job.components.dtype
    pooled = name.replace("prompt_embeds", "pooled_prompt_embeds")
    return {
        name: repeat(text.hidden, job.batch, device, dtype),
        pooled: repeat(text.pooled, job.batch, device, dtype),
    }
