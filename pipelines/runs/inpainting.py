"""The inpainting run: repaints the masked area, and keeps the rest of the picture or latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import to_pixels
from ..base.numbers import check_numbers, check_strength
from ..control.fitting import fit_controls
from ..control.kandinsky_hint import take_hint
from ..denoising.guidance import check_guidance, check_true_cfg, say_unused_guidance
from ..denoising.job import DenoisingJob
from ..denoising.masked_picture import (
    FixedLatents,
    MaskedPicture,
    SampledLatents,
    at_latent_size,
    fit_repaint_mask,
    unread_distribution,
)
from ..denoising.noise_law import steps_at_strength
from ..denoising.schedulers import build_scheduler, check_schedule
from ..denoising.step_callback import KeepUnmasked, StepWatcher
from ..device.out_of_memory import tried_once_more
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

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InpaintSettings:
    strength: float
    steps: int
    guidance_scale: float
    seed: int
    eta: float = 0.0
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
) -> Latents:
    """Repaints the area that ``mask`` marks. Image i uses a CPU generator with ``seed + i`` (or the latent's batch_index for i).

    With a plain model, the area outside the mask is restored after each step. An inpainting model sees the mask and the masked
    picture. The latents outside the mask come back unchanged: the pipelines of Stable Diffusion's and SDXL's inpainting models
    don't ensure this, so they are restored here. Kandinsky's repaints one more latent pixel on each side.

    Args:
        mask: [1 or B, H, W], 1 = repaint; values of 0.5 or more count as 1.
        control: ControlNet units, or a Kandinsky hint.

    Source: https://huggingface.co/docs/diffusers/using-diffusers/inpaint

    Raises:
        RelayError: not exactly one of ``image`` and ``latent`` is given, there is nothing to repaint, the prompt is for another
            family, no step is left to run, the model can't do the size, the latent holds noise, or the strength is below 1 for
            Kandinsky's inpainting decoder.
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
    extent = painted_extent(components, autoencoder, image, latent)
    batch = batch_of(image, latent)
    hint, units = take_hint(control, components, extent, batch)
    controls = fit_controls(units, components, task, extent, batch)
    check_guidance(components, task, controls, settings.eta)
    check_true_cfg(components, settings.true_cfg_scale)
    repaint = fit_repaint_mask(mask, latent.noise_mask if latent else None, extent, autoencoder.factor, batch)

    own_generators = generators_for(latent, settings.seed, batch)
    encodes_picture = not (sees_mask and family.inpaints_plain_models and settings.strength == 1)
    if latent is not None and must_convert(latent, autoencoder, runtime):
        image = decode_for_conversion(latent, runtime, " with this seed")
    pixels = None
    if image is not None:
        pixels = to_pixels(image, autoencoder.factor)
        drawn_from = own_generators if encodes_picture else copies_of(own_generators)
        raw = autoencoder.encode(pixels, runtime.policy, drawn_from)
    else:
        assert latent is not None
        raw = latent.samples
    begin = autoencoder.to_model_scale(raw).to(components.dtype)
    scheduler = build_scheduler(components, own_generators)
    keep = None
    if not restores:
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
    if sees_mask and family.inpaints_plain_models:
        where = at_latent_size(repaint, autoencoder.factor).to(samples)
        samples = where * samples + (1 - where) * raw.to(samples)
    return (latent or Latents(samples)).with_samples(samples, autoencoder)


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
