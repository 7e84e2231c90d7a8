"""The Stable Diffusion upscalers: diffusers' pipelines for x2 (latents) and x4 (pictures), from embeddings to latents.

Both only support the legacy callback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.images import extent_of, to_pil
from ..denoising.job import DenoisingJob, borrow_pipeline, legacy_callback, repeat
from ..denoising.tiling import TiledUnet, Tiles
from ..model.embeds import PromptEmbeds, TextEmbeds

if TYPE_CHECKING:
    import torch

WITHOUT: dict[str, Any] = {"text_encoder": None, "tokenizer": None}


@dataclass(frozen=True, eq=False)
class PictureToUpscale:
    """The inputs of super-resolution besides the prompt."""

    picture: torch.Tensor
    """[H, W, 3] in 0..1. If the size is not a whole number of latent pixels, the pipeline resizes it in its own way."""
    noise_level: int
    """See :class:`.SuperResolutionSettings`."""
    tiles: Tiles | None
    """None: the whole picture at once."""
    tile_done: Callable[[int], None]
    """Called after each tile of each prediction, with the number of predictions in the run."""


def upscale_latent(job: DenoisingJob, device: torch.device) -> torch.Tensor:
    """``job.latents`` [B, 4, h, w] -> [B, 4, 2 * h, 2 * w], both in model scale."""
    assert isinstance(job.prompt, PromptEmbeds)
    assert job.latents is not None
    pipeline = borrow_pipeline(job, device, WITHOUT)
    # At guidance 0, the pipeline uses "" as the prompt, but it does not replace embeddings.
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
    inputs = job.own(PictureToUpscale)
    low_res = components["low_res_scheduler"]
    own = {"low_res_scheduler": type(low_res).from_config(low_res.config)}
    pipeline = borrow_pipeline(job, device, WITHOUT | own | dict(components.config))
    if inputs.tiles is not None:
        pipeline.unet = TiledUnet(
            pipeline.unet, inputs.tiles, lambda: inputs.tile_done(len(pipeline.scheduler.timesteps))
        )
    extent = extent_of(inputs.picture[None])
    fits = extent == extent.floored(pipeline.vae_scale_factor)
    latents: torch.Tensor = pipeline(
        image=inputs.picture.movedim(-1, 0)[None] if fits else [to_pil(inputs.picture)],
        noise_level=inputs.noise_level,
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
        "callback": legacy_callback(pipeline, job),
    }


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
