"""The two scales of latents.

*Raw* latents are an encoder's output and a decoder's input: the host's LATENT. The denoiser works on latents in *model* scale.
The autoencoder's own config defines the conversion: a factor, a factor and a shift, or a factor with a mean and a deviation per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LatentScale:
    """Model scale = (raw - shift) * factor, or (raw - mean) * factor / deviation."""

    factor: float = 1.0
    shift: float = 0.0
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    """One number per channel, as with ``mean``."""
    by_inverse: bool = False
    """Whether the pipelines multiply by 1 / deviation and divide by it. It is rounded differently, and there is no factor."""

    def to_model(self, raw: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] raw -> model scale, in the dtype of ``raw``, with the same operations in the same order as in the pipelines."""
        normalisation = self._normalisation(raw)
        if normalisation is None:
            return (raw - self.shift) * self.factor if self.shift else self.factor * raw
        mean, deviation = normalisation
        return (raw - mean) * (1.0 / deviation) if self.by_inverse else (raw - mean) * self.factor / deviation

    def to_raw(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] model scale -> raw, in the dtype of ``latents``, with the same operations in the same order as in the pipelines."""
        normalisation = self._normalisation(latents)
        if normalisation is None:
            raw = latents / self.factor
            return raw + self.shift if self.shift else raw
        mean, deviation = normalisation
        return latents / (1.0 / deviation) + mean if self.by_inverse else latents * deviation / self.factor + mean

    def to_decoder(self, raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """float32 raw latents -> ``dtype``, with exactly the bits that a pipeline passes to its decoder.

        A pipeline with latents in half precision divides and adds the shift or mean in half precision, so it rounds twice.
        """
        if not (self.shift or self.by_inverse) or dtype.itemsize >= raw.dtype.itemsize:
            return raw.to(dtype)
        return self.to_raw(self.to_model(raw).to(dtype))

    def _normalisation(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        import torch

        if self.mean is None or self.deviation is None:
            return None
        shape = (1, len(self.mean), 1, 1)
        return torch.tensor(self.mean).view(shape).to(like), torch.tensor(self.deviation).view(shape).to(like)


def scale_of(config: Any) -> LatentScale:
    """The scale from the config of an AutoencoderKL or a video VAE. The latter has no factor."""
    factor = getattr(config, "scaling_factor", None)
    mean, deviation = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or deviation is None:
        return LatentScale(float(config.scaling_factor), float(getattr(config, "shift_factor", None) or 0.0))
    known_factor = 1.0 if factor is None else float(factor)
    return LatentScale(known_factor, mean=tuple(mean), deviation=tuple(deviation), by_inverse=factor is None)
