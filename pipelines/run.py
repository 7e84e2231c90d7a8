"""The sampling runs: encode, denoise and leave a latent, each stage with only the modules that it needs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .autoencoder import Autoencoder, autoencoder_of
from .components import PipelineComponents
from .control import control_modules, fit_controls
from .conversion import decode_for_conversion, must_convert
from .denoising_range import denoising_end, denoising_start
from .embeds import ImageEmbeds, PromptEmbeds, check_prompt_fits
from .errors import RelayError
from .family import Task
from .hints import take_hint
from .images import Extent, as_rgb, check_extent, extent_of, to_pixels
from .job import DenoisingJob
from .latent_space import Latents
from .lora import active_loras
from .offload import Stage
from .runtime import Runtime
from .schedulers import build_scheduler
from .steps import KeepUnmasked, StepWatcher

if TYPE_CHECKING:
    import torch

SEED_RANGE = 2**64
INPAINTING_CHANNELS = 9
"""A latent, a mask, and the latent of the masked picture."""


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
    """Below 1 the latent keeps its noise for another model to go on with."""


@dataclass(frozen=True)
class ImageToImageSettings:
    strength: float
    steps: int
    guidance_scale: float
    seed: int
    denoising_start: float = 0.0
    """0: follow the latent's tag. Where a start is in force, ``strength`` is not used."""
    denoising_end: float = 1.0
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5


def text_to_image(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: TextToImageSettings,
    runtime: Runtime,
    *,
    control: Sequence[Any] = (),
) -> Latents:
    """Paints ``settings.batch_size`` latents; image i from a CPU generator of ``seed + i``. ``control``: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/conditional_image_generation

    Raises:
        RelayError: another family's prompt, a size, a count of steps or a range that the model can't do.
    """
    family = components.family
    family.require(Task.TEXT_TO_IMAGE, components.source)
    _check_not_inpainting(components)
    autoencoder = autoencoder_of(components)
    extent = Extent(settings.width, settings.height)
    check_extent(extent, family.size_multiple, f"{components.source} ({family.title})")
    _check_counts(settings.batch_size, settings.steps)
    end = denoising_end(components, settings.denoising_end, start=None)
    check_prompt_fits(prompt, components)
    hint, units = take_hint(control, components, extent, settings.batch_size)
    controls = fit_controls(units, components, Task.TEXT_TO_IMAGE, extent, settings.batch_size)
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
        hint=hint,
    )
    samples = autoencoder.to_raw(_denoise(job, runtime)).to(runtime.policy.output_device())
    return Latents(samples).with_samples(samples, autoencoder, noise_left=end)


def image_to_image(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    settings: ImageToImageSettings,
    runtime: Runtime,
    *,
    image: torch.Tensor | None = None,
    latent: Latents | None = None,
    control: Sequence[Any] = (),
) -> Latents:
    """Repaints a picture or a latent; image i from a CPU generator of ``seed + i`` (or of the latent's batch_index).

    A latent of the model's own space goes in as it is. One of another space is decoded by its own autoencoder and
    encoded by the model's, with this run's generators, and the user is told. ``control``: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/img2img

    Raises:
        RelayError: not exactly one of ``image`` and ``latent``, another family's prompt, no step left to run, a range or
            a size that the model can't do, noise left in a latent that would have to be converted.
    """
    family = components.family
    family.require(Task.IMAGE_TO_IMAGE, components.source)
    _check_not_inpainting(components)
    autoencoder = autoencoder_of(components)
    if (image is None) == (latent is None):
        have = "both are" if image is not None else "neither is"
        raise RelayError(f"image, latent: connect exactly one of them; {have} connected.")
    start = denoising_start(components, settings.denoising_start, latent, runtime)
    end = denoising_end(components, settings.denoising_end, start)
    _check_counts(1, settings.steps)
    if start is None and int(settings.steps * settings.strength) < 1:
        raise RelayError(
            f"strength, steps: {settings.steps} steps at strength {settings.strength:g} leave no step to run. Raise strength to at "
            f"least {1 / settings.steps:.2g}, or steps to at least {_steps_for(settings.strength)}."
        )
    if start is not None and latent is not None and latent.noise_mask is not None:
        raise RelayError(
            "latent: its noise_mask can't be kept where denoising_start is in force, because the clean picture is not known. "
            "Remove the mask, or run with strength instead."
        )
    check_prompt_fits(prompt, components)
    extent = _painted_extent(components, autoencoder, image, latent)
    hint, units = take_hint(control, components, extent, _batch_of(image, latent))
    controls = fit_controls(units, components, Task.IMAGE_TO_IMAGE, extent, _batch_of(image, latent))
    if controls and (start is not None or end is not None):
        raise RelayError(
            "control, denoising_start, denoising_end: image-to-image with ControlNets runs from the clean picture to the end. "
            "Leave denoising_start at 0 and denoising_end at 1, give it a latent that holds no noise, or leave control open."
        )

    if latent is not None and must_convert(latent, autoencoder, runtime):
        image = decode_for_conversion(latent, runtime, " with this seed")
    if image is not None:
        pixels = to_pixels(image, autoencoder.factor)
        own_generators = _generators_for(latent, settings.seed, pixels.shape[0])
        begin = autoencoder.to_model_scale(autoencoder.encode(pixels, runtime.policy, own_generators))
    else:
        assert latent is not None
        own_generators = _generators_for(latent, settings.seed, latent.batch)
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
        aesthetic_scores=(settings.aesthetic_score, settings.negative_aesthetic_score),
        controls=controls,
        hint=hint,
    )
    samples = autoencoder.to_raw(_denoise(job, runtime)).to(runtime.policy.output_device())
    return (latent or Latents(samples)).with_samples(samples, autoencoder, noise_left=end)


def generators(seed: int, indices: Any) -> list[torch.Generator]:
    """One CPU generator an image, ``seed + index`` modulo 2**64: the same on every device, alone or in a batch."""
    import torch

    return [torch.Generator().manual_seed((seed + index) % SEED_RANGE) for index in indices]


def _generators_for(latent: Latents | None, seed: int, batch: int) -> list[torch.Generator]:
    index = latent.batch_index if latent is not None else None
    return generators(seed, range(batch) if index is None else index)


def _denoise(job: DenoisingJob, runtime: Runtime) -> torch.Tensor:
    family_module = importlib.import_module(f".{job.components.family.module}", __package__)
    run = family_module.text_to_image if job.task is Task.TEXT_TO_IMAGE else family_module.image_to_image
    runtime.monitor.check()
    if runtime.monitor.expect_latents():
        job.on_step.show_clean(job.scheduler)
    denoiser = job.components.family.denoiser
    on_device = runtime.policy.on_device(Stage.DENOISE, [job.components[denoiser], *control_modules(job)])
    with on_device as device, active_loras(job.components, [denoiser]):
        latents = run(job, device)
    if job.on_step.steps == 0:
        raise RelayError(
            f"denoising_end, steps: none of the {job.steps} steps lies before {job.denoising_end:g}. Raise denoising_end or steps."
        )
    return latents


def _batch_of(image: torch.Tensor | None, latent: Latents | None) -> int:
    return image.shape[0] if image is not None else 0 if latent is None else latent.batch


def _check_not_inpainting(components: PipelineComponents) -> None:
    if components[components.family.denoiser].config.in_channels == INPAINTING_CHANNELS:
        raise RelayError(
            f"model: {components.source} is made for inpainting (its UNet has {INPAINTING_CHANNELS} input channels): it paints only "
            "with a mask and a masked picture beside the noise. Choose the plain model of the same kind."
        )


def _check_counts(batch_size: int, steps: int) -> None:
    if batch_size < 1:
        raise RelayError(f"batch_size: {batch_size} pictures can't be painted. Use at least 1.")
    if steps < 1:
        raise RelayError(f"steps: {steps} steps can't be run. Use at least 1.")


def _steps_for(strength: float) -> int | str:
    """The fewest steps of which at least one is run at ``strength``."""
    if strength <= 0:
        return "(no number of steps helps at strength 0)"
    return next(n for n in range(int(1 / strength), int(1 / strength) + 3) if int(n * strength) >= 1)


def _painted_extent(
    components: PipelineComponents, autoencoder: Autoencoder, image: torch.Tensor | None, latent: Latents | None
) -> Extent:
    """The size that will be painted: that of the picture or latent, an odd one floored to latent pixels as the pipelines do.

    A multiple that is coarser than that is the user's to choose: it is refused, and not silently made.
    """
    family = components.family
    if image is not None:
        extent, what = extent_of(as_rgb(image)), "image"
    else:
        assert latent is not None
        factor = (latent.space or autoencoder).factor
        extent, what = Extent(latent.samples.shape[3] * factor, latent.samples.shape[2] * factor), "latent"
    if family.size_multiple == autoencoder.factor:
        return extent.floored(autoencoder.factor)
    check_extent(extent, family.size_multiple, f"{components.source} ({family.title})", what)
    return extent
