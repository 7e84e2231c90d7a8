"""The latent contract, written once: what a LATENT of the pack holds, and which space it is in.

``samples`` are raw (see :mod:`autoencoder`), [B, C, h, w] float32 on the host's intermediate device, so that the host's
own nodes read and write them. ``noise_mask`` (1 = repaint) and ``batch_index`` mean what they mean to the host. One
more key, :data:`TAG_KEY`, says which autoencoder's space the samples are in and how much noise they still hold. Nodes
of the host may drop it: a latent without it is taken to be in the space of the model that it is given to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from .autoencoder import Autoencoder

if TYPE_CHECKING:
    import torch

TAG_KEY = "diffusers_relay"


@dataclass(frozen=True)
class NoiseLeft:
    """The samples were left at ``denoising_end``; true only while they are the very ones that ``fingerprint`` marks."""

    denoising_end: float
    fingerprint: str


@dataclass(frozen=True, eq=False)
class LatentTag:
    """Travels in the host's dict. It holds the autoencoder and nothing else of the model."""

    space: Autoencoder
    noise: NoiseLeft | None = None


@dataclass(frozen=True, eq=False)
class Latents:
    """A LATENT, read."""

    samples: torch.Tensor
    """Raw, [B, C, h, w] float32."""
    tag: LatentTag | None = None
    noise_mask: torch.Tensor | None = None
    """Any resolution, 1 = repaint."""
    batch_index: tuple[int, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    """Keys of other packs, passed on untouched."""

    @property
    def batch(self) -> int:
        return self.samples.shape[0]

    @property
    def space(self) -> Autoencoder | None:
        return self.tag.space if self.tag else None

    @property
    def noise_is_void(self) -> bool:
        """The tag speaks of noise, but the samples have changed since: the host's nodes copy the tag along."""
        noise = self.tag.noise if self.tag else None
        return noise is not None and noise.fingerprint != fingerprint(self.samples)

    @property
    def noise_left(self) -> float | None:
        """The ``denoising_end`` that the samples were left at, or None where they are clean (as far as is known)."""
        noise = self.tag.noise if self.tag else None
        return None if noise is None or self.noise_is_void else noise.denoising_end

    def with_samples(self, samples: torch.Tensor, space: Autoencoder, noise_left: float | None = None) -> Latents:
        """The same picture(s) after a run: new samples and tag, the mask and the rest kept, as the host's samplers do."""
        noise = None if noise_left is None else NoiseLeft(noise_left, fingerprint(samples))
        return replace(self, samples=samples, tag=LatentTag(space, noise))

    def to_host(self) -> dict[str, Any]:
        """The host's LATENT."""
        latent: dict[str, Any] = {**self.others, "samples": self.samples}
        if self.noise_mask is not None:
            latent["noise_mask"] = self.noise_mask
        if self.batch_index is not None:
            latent["batch_index"] = list(self.batch_index)
        if self.tag is not None:
            latent[TAG_KEY] = self.tag
        return latent


def from_host(latent: Mapping[str, Any]) -> Latents:
    """Reads the host's LATENT; the dict is not kept. A tag that is not of this pack's making says nothing.

    Raises:
        RelayError: not a picture's latent, an empty batch, a batch_index of another length, values that are no numbers.
    """
    samples = latent.get("samples")
    if samples is None or samples.ndim != 4:
        shape = None if samples is None else list(samples.shape)
        raise RelayError(
            f"latent: expected samples of shape [batch, channels, height, width], got {shape}. Video and audio latents can't be used here."
        )
    if min(samples.shape) == 0:
        raise RelayError(f"latent: it is empty (shape {list(samples.shape)}). Check the node that made it.")
    if not samples.isfinite().all():
        raise RelayError("latent: some of its values are NaN or infinite. The node that made it went wrong.")
    tag = latent.get(TAG_KEY)
    index = latent.get("batch_index")
    if index is not None and len(index) != samples.shape[0]:
        raise RelayError(f"latent: batch_index names {len(index)} images, but the batch has {samples.shape[0]}.")
    known = {"samples", "noise_mask", "batch_index", TAG_KEY}
    return Latents(
        samples=samples.float(),
        tag=tag if isinstance(tag, LatentTag) else None,
        noise_mask=latent.get("noise_mask"),
        batch_index=None if index is None else tuple(int(i) for i in index),
        others={key: value for key, value in latent.items() if key not in known},
    )


def fingerprint(samples: torch.Tensor) -> str:
    """Marks the exact values and shape of ``samples``."""
    values = samples.detach().float().cpu().contiguous()
    return hashlib.blake2b(str(list(values.shape)).encode() + values.numpy().tobytes(), digest_size=16).hexdigest()
