"""The latent contract: the contents of the pack's LATENT, and which space it is in.

``samples`` are raw (see :mod:`.scale`), [B, C, h, w] float32 on the host's intermediate device, so that the host's
own nodes can read and write them. In the host, some spaces have one more axis for frames (see :mod:`.frame_axis`). ``noise_mask`` (1 = repaint) and ``batch_index`` have the host's meaning. Another
key, :data:`TAG_KEY`, says which autoencoder's space the samples are in and how much noise they still hold, and may have the
picture that they show. The host's nodes may drop it. A latent without it is assumed to be in the space of the model that reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from .autoencoder import Autoencoder
from .frame_axis import with_frame, without_frame

if TYPE_CHECKING:
    import torch

TAG_KEY = "diffusers_relay"


@dataclass(frozen=True)
class NoiseLeft:
    """The run that made the samples stopped at ``denoising_end``. Valid only while ``fingerprint`` matches the samples."""

    denoising_end: float
    fingerprint: str


@dataclass(frozen=True, eq=False)
class PictureOf:
    """The pictures from which the samples were encoded. Valid only while ``fingerprint`` matches the samples."""

    image: torch.Tensor
    """IMAGE [B, H, W, 3]. H and W need not be multiples of the autoencoder's factor."""
    fingerprint: str


@dataclass(frozen=True, eq=False)
class LatentTag:
    """Is passed in the host's dict. It references the autoencoder, but nothing else of the model."""

    space: Autoencoder
    noise: NoiseLeft | None = None
    picture: PictureOf | None = None
    """Of an inpainting run that put its result back into a picture: no decoder would give it exactly."""


@dataclass(frozen=True, eq=False)
class Latents:
    """A LATENT that was read from the host's dict."""

    samples: torch.Tensor
    """Raw, [B, C, h, w] float32."""
    tag: LatentTag | None = None
    noise_mask: torch.Tensor | None = None
    """At any resolution, 1 = repaint."""
    batch_index: tuple[int, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    """Keys of other packs, passed on unchanged."""
    has_frames: bool = False
    """Whether the host's LATENT has a frame axis."""

    @property
    def batch(self) -> int:
        return self.samples.shape[0]

    @property
    def space(self) -> Autoencoder | None:
        return self.tag.space if self.tag else None

    @property
    def noise_is_void(self) -> bool:
        """Whether the tag says that there is noise, but the samples have changed since. The host's nodes copy the tag."""
        noise = self.tag.noise if self.tag else None
        return noise is not None and noise.fingerprint != fingerprint(self.samples)

    @property
    def noise_left(self) -> float | None:
        """The ``denoising_end`` at which the samples were left, or None if they are clean (as far as is known)."""
        noise = self.tag.noise if self.tag else None
        return None if noise is None or self.noise_is_void else noise.denoising_end

    @property
    def picture(self) -> torch.Tensor | None:
        """The IMAGE from which the samples were encoded, or None if it is not known or the samples have changed since."""
        picture = self.tag.picture if self.tag else None
        return None if picture is None or picture.fingerprint != fingerprint(self.samples) else picture.image

    def with_samples(
        self,
        samples: torch.Tensor,
        space: Autoencoder,
        noise_left: float | None = None,
        picture: torch.Tensor | None = None,
    ) -> Latents:
        """The latent after a run: new samples and tag. The mask and the rest are kept, as the host's samplers do."""
        noise = None if noise_left is None else NoiseLeft(noise_left, fingerprint(samples))
        encoded = None if picture is None else PictureOf(picture, fingerprint(samples))
        return replace(self, samples=samples, has_frames=space.has_frames, tag=LatentTag(space, noise, encoded))

    def to_host(self) -> dict[str, Any]:
        """The host's LATENT."""
        latent: dict[str, Any] = {
            **self.others,
            "samples": with_frame(self.samples) if self.has_frames else self.samples,
        }
        if self.noise_mask is not None:
            latent["noise_mask"] = self.noise_mask
        if self.batch_index is not None:
            latent["batch_index"] = list(self.batch_index)
        if self.tag is not None:
            latent[TAG_KEY] = self.tag
        return latent


def from_host(latent: Mapping[str, Any]) -> Latents:
    """Reads the host's LATENT; the dict is not kept. A tag that this pack did not make is ignored.

    Raises:
        RelayError: it is not an image latent, the batch is empty, batch_index has another length, or a value is NaN or infinite.
    """
    samples = latent.get("samples")
    frames = False
    if samples is not None and samples.ndim == 5 and samples.shape[2] == 1:
        samples, frames = without_frame(samples), True
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
        has_frames=frames,
        tag=tag if isinstance(tag, LatentTag) else None,
        noise_mask=latent.get("noise_mask"),
        batch_index=None if index is None else tuple(int(i) for i in index),
        others={key: value for key, value in latent.items() if key not in known},
    )


def fingerprint(samples: torch.Tensor) -> str:
    """A hash of the exact values and shape of ``samples``."""
    values = samples.detach().float().cpu().contiguous()
    return hashlib.blake2b(str(list(values.shape)).encode() + values.numpy().tobytes(), digest_size=16).hexdigest()
