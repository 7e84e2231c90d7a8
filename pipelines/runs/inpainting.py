"""The inpainting run: repaints the masked area, and keeps the rest of the picture or latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..adapters.ip_adapter import fit_ip_adapters
from ..base.errors import RelayError
from ..base.images import extent_of, to_pixels
from ..base.numbers import check_numbers, check_strength
from ..control.fitting import fit_controls, say_pooling
from ..control.kandinsky_hint import take_hint
from ..denoising.guidance import check_guess_mode, check_guidance, check_true_cfg, say_unused_guidance
from ..denoising.job import DenoisingJob
from ..denoising.masked_picture import (
    FixedLatents,
    MaskedPicture,
    SampledLatents,
    at_latent_size,
    at_pixel_size,
    fit_repaint_mask,
    fit_soft_mask,
    repaint_from_half,
    unread_distribution,
)
from ..denoising.noise_law import steps_at_strength
from ..denoising.schedulers import build_scheduler, check_schedule
from ..denoising.step_callback import KeepByThreshold, KeepUnmasked, StepWatcher
from ..device.out_of_memory import once_more, tried_once_more
from ..device.runtime import Runtime
from ..families.sdxl import AestheticScores
from ..latents.autoencoder import Autoencoder, autoencoder_of
from ..latents.conversion import decode_for_conversion, must_convert
from ..latents.generators import copies_of, generators_for
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents
from ..model.embeds import ImageEmbeds, PromptEmbeds, check_prompt_fits
from ..model.family import Task
from ..model.family_lookup import require_task
from ..model.prompt_sizes import check_sizes
from .denoise import denoise
from .denoising_range import check_clean
from .inputs import batch_of, check_counts, check_one_source, is_inpainting_model, painted_extent
from .mask_crop import MaskCrop, crop_to_mask

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InpaintSettings:
    strength: float
    steps: int
    guidance_scale: float
    seed: int
    eta: float = 0.0
    padding_mask_crop: int = 0
    """Above 0: only the region around the mask, with that many pixels on each side, is painted, at the model's own size."""
    soft_mask: bool = False
    """Whether the mask's grey values say how much may change (differential diffusion)."""
    true_cfg_scale: float = 1.0


@tried_once_more
def inpaint(
    components: PipelineComponents,
    prompt: PromptEmbeds | ImageEmbeds,
    mask: torch.Tensor,
    settings: InpaintSettings,
    runtime: Runtime,
    *,
    image: torch.Tensor | None = None,
    latent: Latents | None = None,
    control: Sequence[Any] = (),
    ip_adapter: Sequence[Any] = (),
) -> Latents:
    """Repaints the area that ``mask`` marks. Image i uses a CPU generator with ``seed + i`` (or the latent's batch_index for i).

    With a plain model, the area outside the mask is restored after each step. An inpainting model sees the mask and the masked
    picture. The latents outside the mask come back unchanged: the pipelines of Stable Diffusion's and SDXL's inpainting models
    don't ensure this, so they are restored here. Kandinsky's repaints one more latent pixel on each side.

    With ``padding_mask_crop``, the result is the latent of the whole picture with the painted region in it (the distribution's
    mode), and its tag has that picture, so that it isn't lost in the autoencoder.

    Args:
        mask: [1 or B, H, W], 1 = repaint; values of 0.5 or more count as 1, unless ``soft_mask`` is on.
        control: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/inpaint

    Raises:
        RelayError: not exactly one of ``image`` and ``latent`` is given, there is nothing to repaint, the prompt is for another
            family, no step is left to run, the model can't do the size, the latent holds noise, or the strength is below 1 for
            Kandinsky's inpainting decoder. With ``padding_mask_crop``: as :func:`.mask_crop.crop_to_mask`.
    """
    family = components.family
    # any model that can do image-to-image can be blended under a mask
    require_task(family, Task.IMAGE_TO_IMAGE, components.source, said=Task.INPAINT)
    autoencoder = autoencoder_of(components)
    check_one_source(image, latent)
    if latent is not None:
        check_clean(latent, components, runtime)
    check_numbers(settings)
    check_counts(1, settings.steps)
    check_strength(settings.strength, settings.steps, steps_at_strength(family))
    check_schedule(components, settings.steps, strength=settings.strength)
    sees_mask = is_inpainting_model(components)
    if sees_mask and not family.inpaints_plain_models and settings.strength != 1:
        raise RelayError(
            f"strength: {components.source} ({family.title}, for inpainting) always paints the masked area from noise, so strength must be "
            f"1, not {settings.strength:g}. Set it to 1, or use the plain decoder."
        )
    # If diffusers has no inpainting pipeline for a plain model, run image-to-image and restore the unmasked area ourselves.
    restores = sees_mask or family.inpaints_plain_models
    task = Task.INPAINT if restores or family.blends_masks else Task.IMAGE_TO_IMAGE
    check_prompt_fits(prompt, components)
    check_sizes(prompt, components, task, controlled=bool(control))
    crop = None
    if settings.padding_mask_crop:
        crop = crop_to_mask(components, autoencoder, image, mask, settings.padding_mask_crop)
        mask = crop.mask()
    whole = painted_extent(components, autoencoder, image, latent) if crop is None else extent_of(crop.pictures)
    extent = whole if crop is None else crop.extent
    batch = batch_of(image, latent)
    hint, units = take_hint(control, components, extent, batch)
    controls = fit_controls(units, components, task, whole, batch)
    if crop is not None:
        controls = tuple(crop.control(unit) for unit in controls)
        ip_adapter = crop.of_adapters(ip_adapter)
    check_guidance(components, task, controls, settings.eta)
    check_true_cfg(components, settings.true_cfg_scale)
    check_guess_mode(controls, settings.guidance_scale)
    say_pooling(controls, runtime.monitor)
    ip_adapters = fit_ip_adapters(ip_adapter, components, task, extent, control=bool(controls))
    shown_mask = sees_mask and family.inpaints_plain_models
    fitting = (mask, latent.noise_mask if latent else None, extent, autoencoder.factor, batch)
    soft = fit_soft_mask(*fitting) if settings.soft_mask else None
    if soft is None:
        repaint = fit_repaint_mask(*fitting)
    elif shown_mask:
        repaint = repaint_from_half(*fitting)  # the UNet was trained with masks of 0 and 1
    else:
        repaint = at_pixel_size((soft > 0).float(), autoencoder.factor)

    own_generators = generators_for(latent, settings.seed, batch)
    encodes_picture = not (shown_mask and settings.strength == 1)
    if latent is not None and must_convert(latent, autoencoder, runtime):
        image = decode_for_conversion(latent, runtime, " with this seed")
    pixels = None
    if image is not None:
        pixels = to_pixels(image, autoencoder.factor) if crop is None else crop.pixels()
        drawn_from = own_generators if encodes_picture else copies_of(own_generators)
        raw = autoencoder.encode(pixels, runtime.policy, drawn_from)
    else:
        assert latent is not None
        raw = latent.samples
    begin = autoencoder.to_model_scale(raw).to(components.dtype)
    scheduler = build_scheduler(components, own_generators)
    keep: KeepUnmasked | None = None
    if soft is not None:
        keep = KeepByThreshold(soft, begin, own_generators, scheduler)
    elif not restores:
        keep = KeepUnmasked(at_latent_size(repaint, autoencoder.factor), begin, own_generators, scheduler)
    masked: Sequence[Any] = ()
    if family.inpaints_plain_models:
        masked = _masked(autoencoder, runtime, repaint, pixels, raw, sees_mask)
    job = DenoisingJob(
        task=task,
        components=components,
        prompt=prompt,
        scheduler=scheduler,
        generators=own_generators,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        on_step=StepWatcher(runtime.monitor, keep),
        extent=extent,
        latents=begin,
        strength=settings.strength,
        controls=controls,
        ip_adapters=ip_adapters,
        eta=settings.eta,
        true_cfg_scale=settings.true_cfg_scale,
        masked_picture=MaskedPicture(repaint, encodes_picture, masked),
        extras=(AestheticScores(), *hint),
    )
    say_unused_guidance(job, runtime.monitor)
    samples = autoencoder.to_raw(denoise([job], runtime)[0])
    if autoencoder.reads_mask:
        runtime.monitor.say(
            f"The VAE of {components.source} can also read the picture and the mask when it decodes. Decode Latent (Diffusers) only gives it the "
            "latent, so details outside the mask are those of the latent."
        )
    if crop is not None:
        return _put_back(crop, samples, autoencoder, runtime)
    if shown_mask:
        where = (at_latent_size(repaint, autoencoder.factor) if soft is None else soft > 0).to(samples)
        samples = where * samples + (1 - where) * raw.to(samples)
    return (latent or Latents(samples)).with_samples(samples, autoencoder)


def _put_back(crop: MaskCrop, samples: torch.Tensor, autoencoder: Autoencoder, runtime: Runtime) -> Latents:
    """The latent of the pictures with what was painted, from the raw latents of their regions."""
    policy, monitor = runtime.policy, runtime.monitor
    painted = autoencoder.decode(samples, policy, monitor=monitor)
    pictures = crop.put_back(painted.cpu()).to(policy.output_device())
    pixels = to_pixels(pictures, autoencoder.factor)
    in_tiles = replace(autoencoder, tiling=True)
    instead = (lambda: in_tiles.encode(pixels, policy)) if autoencoder.can_tile and not autoencoder.tiling else None
    raw = once_more(lambda: autoencoder.encode(pixels, policy), policy, monitor, instead).float()
    return Latents(raw).with_samples(raw, autoencoder, picture=pictures)


def _masked(
    autoencoder: Autoencoder,
    runtime: Runtime,
    repaint: torch.Tensor,
    pixels: torch.Tensor | None,
    raw: torch.Tensor,
    sees_mask: bool,
) -> list[SampledLatents | FixedLatents]:
    """What the pipeline gets for the masked picture (the picture without its masked area), one entry per image.

    A script that starts from a picture encodes and samples the masked picture even for a plain model, which ignores it. That moves
    the generators on. A script that starts from latents, or whose autoencoder has no distribution (TAESD), samples nothing.
    """
    if not sees_mask:
        if pixels is None or autoencoder.is_tiny:
            return [FixedLatents(one) for one in raw.split(1)]
        unread = unread_distribution(autoencoder, raw)
        return [SampledLatents(unread, autoencoder) for _ in range(raw.shape[0])]
    if pixels is None:
        runtime.monitor.say("The latent was decoded because this inpainting model needs to see the unmasked area.")
        pixels = to_pixels(autoencoder.decode(raw, runtime.policy, monitor=runtime.monitor), autoencoder.factor)
    hidden = pixels * (repaint < 0.5)
    if autoencoder.is_tiny:
        return [FixedLatents(one) for one in autoencoder.encode_tiny(hidden, runtime.policy).split(1)]
    return [SampledLatents(one, autoencoder) for one in autoencoder.distributions(hidden, runtime.policy)]
