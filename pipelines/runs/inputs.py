"""Checks that the sampling runs share: one picture or latent, size, counts, and kind of model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import Extent, as_rgb, check_extent, extent_of
from ..latents.autoencoder import Autoencoder, autoencoder_of
from ..latents.latent_space import Latents
from ..model.components import PipelineComponents

if TYPE_CHECKING:
    import torch


def check_one_source(image: torch.Tensor | None, latent: Latents | None) -> None:
    """Refuses both inputs connected, and neither."""
    if (image is None) == (latent is None):
        have = "both are" if image is not None else "neither is"
        raise RelayError(f"image, latent: connect exactly one of them; {have} connected.")


def check_counts(batch_size: int, steps: int) -> None:
    if batch_size < 1:
        raise RelayError(f"batch_size: {batch_size} is too small. Use at least 1.")
    if steps < 1:
        raise RelayError(f"steps: {steps} is too few. Use at least 1.")


MOST_PIXELS = 2**30
"""For all pictures of one run together: 64 of 4096 x 4096. More is a typo, or an attempt to exhaust the machine."""


def check_pixels(extent: Extent, batch_size: int) -> None:
    """Refuses a run that would allocate tens of gigabytes before its first step."""
    pixels = extent.width * extent.height * batch_size
    if pixels > MOST_PIXELS:
        fit = MOST_PIXELS // (extent.width * extent.height)
        instead = f"Set batch_size to {fit} or less" if fit else "Use a smaller size"
        raise RelayError(
            f"width, height, batch_size: {batch_size} pictures of {extent} are {pixels:,} pixels, and a run paints at most {MOST_PIXELS:,}. {instead}."
        )


def batch_of(image: torch.Tensor | None, latent: Latents | None) -> int:
    return image.shape[0] if image is not None else 0 if latent is None else latent.batch


def is_inpainting_model(components: PipelineComponents) -> bool:
    """Whether the denoiser was trained to see the mask and the masked picture besides the noise."""
    with_mask = 2 * autoencoder_of(components).channels + 1  # a latent, the latent of the masked picture, and the mask
    return bool(components[components.family.denoiser].config.in_channels == with_mask)


def check_not_inpainting(components: PipelineComponents) -> None:
    if is_inpainting_model(components):
        channels = components[components.family.denoiser].config.in_channels
        raise RelayError(
            f"model: {components.source} is made for inpainting (its denoiser has {channels} input channels), so it needs a mask "
            "and a masked picture. Use it with Inpaint (Diffusers), or choose the plain model of the same kind."
        )


def painted_extent(
    components: PipelineComponents, autoencoder: Autoencoder, image: torch.Tensor | None, latent: Latents | None
) -> Extent:
    """The size that will be painted: the size of the picture or latent, rounded down to whole latent pixels as the pipelines do.

    Raises:
        RelayError: the model needs a coarser multiple. The user has to choose the size then; it is not changed silently.
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
