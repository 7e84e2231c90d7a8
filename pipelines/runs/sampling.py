"""Text-to-image and image-to-image runs: encode, denoise and return a latent. Each stage loads only the modules that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter import fit_ip_adapters
from ..base.errors import RelayError
from ..base.images import Extent, check_extent, to_pixels
from ..base.numbers import check_numbers, check_strength
from ..control.fitting import fit_controls, say_pooling
from ..control.kandinsky_hint import take_hint
from ..denoising.guidance import check_guess_mode, check_guidance, check_true_cfg, say_unused_guidance
from ..denoising.job import DenoisingJob
from ..denoising.noise_law import steps_at_strength
from ..denoising.schedulers import build_scheduler, check_schedule
from ..denoising.step_callback import KeepUnmasked, StepWatcher
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..families.sdxl import AestheticScores
from ..latents.autoencoder import autoencoder_of
from ..latents.conversion import decode_for_conversion, must_convert
from ..latents.generators import generators, generators_for
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds, check_prompt_fits
from ..model.family import Task
from ..model.family_lookup import require_task
from ..model.prompt_sizes import check_sizes
from .denoise import denoise
from .denoising_range import denoising_end, denoising_start, say_steps_in_range
from .inputs import (
    batch_of,
    check_counts,
    check_not_inpainting,
    check_one_source,
    check_pixels,
    painted_extent,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TextToImageSettings:
    width: int
    """Pixels."""
    height: int
    batch_size: int
    steps: int
    guidance_scale: float
    seed: int
    denoising_end: float = 1.0
    """Below 1, the latent keeps its noise so that another model can continue."""
    eta: float = 0.0
    true_cfg_scale: float = 1.0


@dataclass(frozen=True)
class ImageToImageSettings:
    strength: float
    steps: int
    guidance_scale: float
    seed: int
    denoising_start: float = 0.0
    """0: follow the latent's tag. If there is a start, ``strength`` is not used."""
    denoising_end: float = 1.0
    aesthetic: AestheticScores = field(default_factory=AestheticScores)
    eta: float = 0.0
    true_cfg_scale: float = 1.0


@tried_once_more
def text_to_image(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: TextToImageSettings,
    runtime: Runtime,
    *,
    control: Sequence[Any] = (),
    ip_adapter: Sequence[Any] = (),
) -> Latents:
    """Paints ``settings.batch_size`` latents; image i uses a CPU generator with ``seed + i``. ``control``: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/conditional_image_generation

    Raises:
        RelayError: the prompt is for another family, or the model can't do the size, the number of steps or the range.
    """
    family = components.family
    require_task(family, Task.TEXT_TO_IMAGE, components.source)
    check_numbers(settings)
    check_not_inpainting(components)
    autoencoder = autoencoder_of(components)
    extent = Extent(settings.width, settings.height)
    check_extent(extent, family.size_multiple, f"{components.source} ({family.title})")
    check_counts(settings.batch_size, settings.steps)
    check_pixels(extent, settings.batch_size)
    end = denoising_end(components, settings.denoising_end, start=None)
    check_schedule(components, settings.steps, in_part=end is not None)
    check_prompt_fits(prompt, components)
    check_sizes(prompt, components, Task.TEXT_TO_IMAGE)
    hint, units = take_hint(control, components, extent, settings.batch_size)
    controls = fit_controls(units, components, Task.TEXT_TO_IMAGE, extent, settings.batch_size)
    check_guidance(components, Task.TEXT_TO_IMAGE, controls, settings.eta)
    check_guess_mode(controls, settings.guidance_scale)
    ip_adapters = fit_ip_adapters(ip_adapter, components, Task.TEXT_TO_IMAGE, extent, control=bool(controls))
    say_pooling(controls, runtime.monitor)
    check_true_cfg(components, settings.true_cfg_scale)
    own_generators = generators(settings.seed, range(settings.batch_size))
    job = DenoisingJob(
        task=Task.TEXT_TO_IMAGE,
        components=components,
        prompt=prompt,
        scheduler=build_scheduler(components, own_generators),
        generators=own_generators,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        on_step=StepWatcher(runtime.monitor),
        extent=extent,
        denoising_end=end,
        controls=controls,
        ip_adapters=ip_adapters,
        eta=settings.eta,
        true_cfg_scale=settings.true_cfg_scale,
        extras=hint,
    )
    say_unused_guidance(job, runtime.monitor)
    samples = autoencoder.to_raw(denoise([job], runtime)[0])
    say_steps_in_range(job, runtime)
    return Latents(samples).with_samples(samples, autoencoder, noise_left=end)


@tried_once_more
def image_to_image(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: ImageToImageSettings,
    runtime: Runtime,
    *,
    image: torch.Tensor | None = None,
    latent: Latents | None = None,
    control: Sequence[Any] = (),
    ip_adapter: Sequence[Any] = (),
) -> Latents:
    """Repaints a picture or a latent. Image i uses a CPU generator with ``seed + i`` (or the latent's batch_index for i).

    A latent in the model's own space is used directly. One in another space is decoded with its own autoencoder and
    encoded with the model's, using this run's generators, and the user is told. ``control``: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/img2img

    Raises:
        RelayError: not exactly one of ``image`` and ``latent`` is given, the prompt is for another family, no step is left to run,
            the model can't do the range or the size, or the latent holds noise and would have to be converted.
    """
    family = components.family
    require_task(family, Task.IMAGE_TO_IMAGE, components.source)
    check_numbers(settings)
    check_not_inpainting(components)
    autoencoder = autoencoder_of(components)
    check_one_source(image, latent)
    start = denoising_start(components, settings.denoising_start, latent, runtime)
    end = denoising_end(components, settings.denoising_end, start)
    check_counts(1, settings.steps)
    in_part = start is not None or end is not None
    check_schedule(components, settings.steps, in_part=in_part, strength=settings.strength)
    if start is None:
        check_strength(settings.strength, settings.steps, steps_at_strength(family))
    if start is not None and latent is not None and latent.noise_mask is not None:
        raise RelayError(
            "latent: its noise_mask can't be used with denoising_start, because the clean picture is not known. "
            "Remove the mask, or use strength instead."
        )
    check_prompt_fits(prompt, components)
    check_sizes(prompt, components, Task.IMAGE_TO_IMAGE)
    extent = painted_extent(components, autoencoder, image, latent)
    hint, units = take_hint(control, components, extent, batch_of(image, latent))
    controls = fit_controls(units, components, Task.IMAGE_TO_IMAGE, extent, batch_of(image, latent))
    check_guidance(components, Task.IMAGE_TO_IMAGE, controls, settings.eta)
    check_guess_mode(controls, settings.guidance_scale)
    ip_adapters = fit_ip_adapters(ip_adapter, components, Task.IMAGE_TO_IMAGE, extent, control=bool(controls))
    say_pooling(controls, runtime.monitor)
    check_true_cfg(components, settings.true_cfg_scale)
    if controls and (start is not None or end is not None):
        raise RelayError(
            "control, denoising_start, denoising_end: image-to-image with ControlNets always runs from the clean picture to the end. "
            "Set denoising_start to 0 and denoising_end to 1 and connect a latent without noise, or disconnect control."
        )

    if latent is not None and must_convert(latent, autoencoder, runtime):
        image = decode_for_conversion(latent, runtime, " with this seed")
    if image is not None:
        pixels = to_pixels(image, autoencoder.factor)
        own_generators = generators_for(latent, settings.seed, pixels.shape[0])
        begin = autoencoder.to_model_scale(autoencoder.encode(pixels, runtime.policy, own_generators))
    else:
        assert latent is not None
        own_generators = generators_for(latent, settings.seed, latent.batch)
        begin = autoencoder.to_model_scale(latent.samples)
    begin = begin.to(components.dtype)

    scheduler = build_scheduler(components, own_generators)
    mask = None
    if latent is not None and latent.noise_mask is not None:
        mask = KeepUnmasked(latent.noise_mask, begin, own_generators, scheduler)
    job = DenoisingJob(
        task=Task.IMAGE_TO_IMAGE,
        components=components,
        prompt=prompt,
        scheduler=scheduler,
        generators=own_generators,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        on_step=StepWatcher(runtime.monitor, mask),
        extent=extent,
        latents=begin,
        strength=settings.strength,
        denoising_start=start,
        denoising_end=end,
        controls=controls,
        ip_adapters=ip_adapters,
        eta=settings.eta,
        true_cfg_scale=settings.true_cfg_scale,
        extras=(settings.aesthetic, *hint),
    )
    say_unused_guidance(job, runtime.monitor)
    samples = autoencoder.to_raw(denoise([job], runtime)[0])
    say_steps_in_range(job, runtime)
    return (latent or Latents(samples)).with_samples(samples, autoencoder, noise_left=end)
