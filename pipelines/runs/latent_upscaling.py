"""The latent upscaling run: latents to twice their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.images import Extent, to_pixels
from ..base.numbers import check_numbers
from ..denoising.job import DenoisingJob
from ..denoising.schedulers import build_scheduler, check_schedule
from ..denoising.step_callback import StepWatcher
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..latents.autoencoder import autoencoder_of
from ..latents.conversion import decode_for_conversion, must_convert
from ..latents.generators import generators_for
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds, check_prompt_fits
from ..model.family import Task
from ..model.family_lookup import require_task
from ..model.prompt_sizes import check_sizes
from .denoise import denoise
from .denoising_range import check_clean
from .inputs import check_counts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LatentUpscaleSettings:
    steps: int
    guidance_scale: float
    """0: the prompt is ignored."""
    seed: int


@tried_once_more
def upscale_latent(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: LatentUpscaleSettings,
    latent: Latents,
    runtime: Runtime,
) -> Latents:
    """Latents in Stable Diffusion's space at twice their width and height; image i uses a CPU generator with ``seed + i``.

    A latent in another space is decoded with its own autoencoder and encoded with the model's, using this run's generators,
    and the user is told. If the UNet can't run the size, the latent is padded at the right and bottom by repeating its edge,
    and the result is cropped. ``noise_mask`` and ``batch_index`` are passed on.

    Source: https://huggingface.co/docs/diffusers/api/pipelines/stable_diffusion/latent_upscale

    Raises:
        RelayError: the model is of another kind, the prompt is for another model, or the latent still holds noise.
    """
    require_task(components.family, Task.LATENT_UPSCALE, components.source)
    check_numbers(settings)
    autoencoder = autoencoder_of(components)
    check_counts(1, settings.steps)
    check_schedule(components, settings.steps)
    check_prompt_fits(prompt, components)
    check_sizes(prompt, components, Task.LATENT_UPSCALE)
    check_clean(latent, components, runtime)
    own_generators = generators_for(latent, settings.seed, latent.batch)
    if must_convert(latent, autoencoder, runtime):
        pixels = to_pixels(decode_for_conversion(latent, runtime, " with this seed"), autoencoder.factor)
        begin = autoencoder.encode(pixels, runtime.policy, own_generators)
    else:
        begin = latent.samples
    begin = autoencoder.to_model_scale(begin).to(components.dtype)
    height, width = begin.shape[-2:]
    begin = _padded(begin, levels=len(components[components.family.denoiser].config.block_out_channels))
    job = DenoisingJob(
        task=Task.LATENT_UPSCALE,
        components=components,
        prompt=prompt,
        scheduler=build_scheduler(components, own_generators),
        generators=own_generators,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        on_step=StepWatcher(runtime.monitor),
        extent=Extent(2 * begin.shape[-1] * autoencoder.factor, 2 * begin.shape[-2] * autoencoder.factor),
        latents=begin,
    )
    (latents,) = denoise([job], runtime)
    samples = autoencoder.to_raw(latents[..., : 2 * height, : 2 * width])
    return latent.with_samples(samples.contiguous(), autoencoder)


def _padded(latents: torch.Tensor, levels: int) -> torch.Tensor:
    """[B, C, h, w], padded at the right and bottom, if necessary, by repeating the edge.

    The UNet runs at twice the size. It halves that at each level but the last, so it needs an even number each time, and at
    least two pixels at the last level.
    """
    import torch

    multiple, least = 2 ** (levels - 2), 2 ** (levels - 1)
    height, width = (max(least, -(-side // multiple) * multiple) for side in latents.shape[-2:])
    more = (0, width - latents.shape[-1], 0, height - latents.shape[-2])
    return torch.nn.functional.pad(latents, more, mode="replicate") if any(more) else latents
