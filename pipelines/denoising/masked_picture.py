"""The picture and mask of an inpainting run, and the stand-in autoencoder that passes them to a pipeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import Extent
from ..latents.autoencoder import Autoencoder
from .step_callback import fit_mask

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class MaskedPicture:
    """The inputs of an inpainting run besides its prompt."""

    mask: torch.Tensor
    """[B, 1, H, W] float32 of pixels, 1 = repaint, 0 = keep."""
    encodes_picture: bool
    """Whether the pipeline encodes the picture itself. A run at full strength with an inpainting UNet does not."""
    masked: Sequence[Any]
    """One per image, in batch order: what the pipeline gets when it encodes the masked picture."""


@dataclass(frozen=True, eq=False)
class FixedLatents:
    """Latents that are returned without sampling, instead of an encoder's output."""

    latents: torch.Tensor
    """[1, C, h, w] in model scale."""

    def to(self, device: torch.device) -> FixedLatents:
        return FixedLatents(self.latents.to(device))


@dataclass(frozen=True, eq=False)
class SampledLatents:
    """An encoder's distribution, sampled when the pipeline asks for it and with the generator that it passes.

    The pipelines sample the masked picture after the noise. Sampling it earlier would change the generators' state.
    """

    distribution: Any
    """diffusers' DiagonalGaussianDistribution of raw latents [1, C, h, w]."""
    autoencoder: Autoencoder
    device: torch.device | None = None
    """The device for the latents; None: the device of the distribution."""

    def to(self, device: torch.device) -> SampledLatents:
        return replace(self, device=device)

    @property
    def latent_dist(self) -> SampledLatents:
        return self

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        raw = self.distribution.sample(generator).to(self.autoencoder.module.dtype)
        return self.autoencoder.to_model_scale(raw).to(self.device)


class EncodedPictures:
    """Stands in for ``vae`` in one pipeline object: each call of ``encode`` returns the next item of ``answers``.

    The answers are in model scale, so the config is the autoencoder's own with a scale of 1.
    """

    def __init__(self, vae: Any, answers: Sequence[Any]) -> None:
        own = {name: value for name, value in vae.config.items() if name not in ("latents_mean", "latents_std")}
        self.config = SimpleNamespace(**own | {"scaling_factor": 1.0, "shift_factor": 0.0, "force_upcast": False})
        self.dtype = vae.dtype
        self._answers = deque(answers)

    def encode(self, picture: torch.Tensor) -> Any:
        """``picture`` [1, 3, H, W] is a dummy; the answer is moved to its device."""
        return self._answers.popleft().to(picture.device)


def unread_distribution(autoencoder: Autoencoder, raw: torch.Tensor) -> Any:
    """For a masked picture that a pipeline encodes and then ignores. Only the sampling matters, because it moves the generators on.

    ``raw`` [B, C, h, w] gives the shape.
    """
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    _, channels, height, width = raw.shape
    return DiagonalGaussianDistribution(torch.zeros(1, 2 * channels, height, width, dtype=autoencoder.encoding_dtype))


def fit_repaint_mask(
    mask: torch.Tensor, noise_mask: torch.Tensor | None, extent: Extent, factor: int, batch: int
) -> torch.Tensor:
    """The host's MASK in the pipelines' form: [batch, 1, H, W] of 0 and 1, 1 = repaint.

    Values of 0.5 or more count as 1. A mask of another size is stretched to the picture's size, as the pipelines' own mask processor
    scales a PIL mask (lanczos, 8 bits). If the latent has a ``noise_mask``, only the area that both masks mark is repainted.

    Args:
        mask: [H, W], [1 or B, H, W] or [1 or B, 1, H, W], 0..1.
        noise_mask: the latent's, at any resolution, or None.
        extent: the size of the picture, in pixels.
        factor: pixels per latent pixel, along one side.
        batch: how many pictures are painted.

    Raises:
        RelayError: the shape is not a mask's, the number of masks is neither 1 nor ``batch``, or nothing is left to repaint.
    """
    fitted = repaint_from_half(mask, noise_mask, extent, factor, batch)
    if not at_latent_size(fitted, factor).any():
        both = " in both the mask and the latent's own noise_mask" if noise_mask is not None else ""
        raise RelayError(
            f"mask: it leaves nothing to repaint. Only values of 0.5 or more{both} are repainted, and areas thinner than a latent "
            f"pixel ({factor} pixels) can be lost. Paint a larger mask (1 = repaint), or invert it if it marks what to keep."
        )
    return fitted


def repaint_from_half(
    mask: torch.Tensor, noise_mask: torch.Tensor | None, extent: Extent, factor: int, batch: int
) -> torch.Tensor:
    """:func:`fit_repaint_mask` that may leave nothing to repaint."""
    import torch

    fitted = _stretched(checked_masks(mask, batch), extent, factor)
    if noise_mask is not None:
        size = (extent.height, extent.width)
        own = torch.nn.functional.interpolate(_as_masks("noise_mask", noise_mask), size, mode="nearest-exact")
        own = own.repeat(-(-batch // own.shape[0]), 1, 1, 1)[:batch]  # as the host repeats it
        fitted = torch.minimum(fitted, (own >= 0.5).float())
    return fitted.expand(batch, -1, -1, -1).clone()


def fit_soft_mask(
    mask: torch.Tensor, noise_mask: torch.Tensor | None, extent: Extent, factor: int, batch: int
) -> torch.Tensor:
    """The host's MASK in latent pixels with its grey values: [batch, 1, h, w] in 0..1, scaled as the host scales a noise_mask.

    The arguments are those of :func:`fit_repaint_mask`. Where the latent has a ``noise_mask``, the lower value counts.

    Raises:
        RelayError: as :func:`fit_repaint_mask`, but only values of 0 are not repainted.
    """
    import torch

    like = torch.empty(batch, 1, extent.height // factor, extent.width // factor)
    fitted = fit_mask(checked_masks(mask, batch), like)
    if noise_mask is not None:
        fitted = torch.minimum(fitted, fit_mask(noise_mask.cpu(), like))
    if not fitted.any():
        both = " in both the mask and the latent's own noise_mask" if noise_mask is not None else ""
        raise RelayError(
            f"mask: it leaves nothing to repaint. With soft_mask, values above 0{both} are repainted. Paint a larger mask (1 = repaint), "
            "or invert it if it marks what to keep."
        )
    return fitted


def checked_masks(mask: torch.Tensor, batch: int) -> torch.Tensor:
    """[1 or batch, 1, H, W] float32 in 0..1 on the CPU.

    Raises:
        RelayError: the shape is not a mask's, or the number of masks is neither 1 nor ``batch``.
    """
    masks = _as_masks("mask", mask)
    if masks.shape[0] not in (1, batch):
        raise RelayError(
            f"mask: the batch has {masks.shape[0]} masks, but {batch} {'picture is' if batch == 1 else 'pictures are'} painted. "
            "Use one mask for all pictures, or one for each."
        )
    return masks


def at_pixel_size(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """[B, 1, h, w] -> [B, 1, H, W]: each latent pixel as a square of pixels. :func:`at_latent_size` gives the mask back."""
    return mask.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def at_latent_size(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """[B, 1, H, W] -> [B, 1, h, w], by nearest pixel, as the pipelines scale a mask to latents."""
    import torch

    size = (mask.shape[-2] // factor, mask.shape[-1] // factor)
    return torch.nn.functional.interpolate(mask, size=size)


def _as_masks(name: str, mask: torch.Tensor) -> torch.Tensor:
    """[B, 1, H, W] float32 in 0..1 on the CPU."""
    shape = list(mask.shape)
    masks = mask.float().cpu()
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim == 3:
        masks = masks[:, None]
    if masks.ndim != 4 or masks.shape[1] != 1 or min(masks.shape) == 0 or not masks.isfinite().all():
        raise RelayError(f"{name}: expected a mask of shape [batch, height, width] with values 0..1, got {shape}.")
    return masks.clamp(0, 1)


def _stretched(masks: torch.Tensor, extent: Extent, factor: int) -> torch.Tensor:
    import numpy as np
    from diffusers.image_processor import VaeImageProcessor
    from PIL import Image

    processor = VaeImageProcessor(
        vae_scale_factor=factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    if tuple(masks.shape[-2:]) == (extent.height, extent.width):
        return processor.preprocess(masks)
    eight_bits = (np.rint(one[0].numpy() * 255.0).astype(np.uint8) for one in masks)
    return processor.preprocess([Image.fromarray(one) for one in eight_bits], height=extent.height, width=extent.width)
