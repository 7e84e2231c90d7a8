"""The facts about an autoencoder: its kind, scale and dtypes. For raw and model scale see :mod:`.scale`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from .borrowed_module import can_tile
from .frame_axis import has_frames
from .scale import LatentScale, scale_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class AutoencoderFacts:
    """A shared VAE (AutoencoderKL, AutoencoderTiny, AsymmetricAutoencoderKL or a video VAE) or MoVQ (VQModel), and how its family's
    pipelines run it."""

    module: Any
    title: str
    """The model that it belongs to, for messages."""
    follows_force_upcast: bool
    """Whether its pipelines run it in float32 if its config has ``force_upcast``."""
    tiling: bool = False
    """Encode and decode in tiles: less memory, and nearly the same values."""
    slicing: bool = False
    """Decode a batch one picture after the other: less memory, and the same values."""
    host_factor: float = 1.0
    """Model scale / the host's LATENT in the family's space, for an autoencoder that works in model scale (TAESD)."""
    host_shift: float = 0.0
    """Used with ``host_factor``: model scale = (the host's LATENT - host_shift) * host_factor."""

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, along one side."""
        config = self.module.config
        return 2 ** (len(config.temperal_downsample) if self.has_frames else len(config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        config = self.module.config
        return config.z_dim if self.has_frames else config.latent_channels

    @property
    def has_frames(self) -> bool:
        """Whether it and the host's LATENT for its space have a frame axis, see :mod:`.frame_axis`."""
        return has_frames(self.module)

    @property
    def is_quantized(self) -> bool:
        """Whether it is a MoVQ. Its latents have only one scale and no distribution."""
        return hasattr(self.module.config, "num_vq_embeddings")

    @property
    def is_tiny(self) -> bool:
        """Whether it is a TAESD (AutoencoderTiny). It encodes to model scale and has no distribution."""
        return hasattr(self.module.config, "latent_magnitude")

    @property
    def reads_mask(self) -> bool:
        """Whether its decoder can also read a picture and a mask (AsymmetricAutoencoderKL)."""
        return hasattr(getattr(self.module, "decoder", None), "condition_encoder")

    @property
    def scale(self) -> LatentScale:
        """Between raw and model scale. With MoVQ, the two are the same."""
        if self.is_quantized:
            return LatentScale()
        return LatentScale(self.host_factor, self.host_shift) if self.is_tiny else scale_of(self.module.config)

    @property
    def can_tile(self) -> bool:
        return can_tile(self.module)

    @property
    def encoding_dtype(self) -> torch.dtype:
        """The dtype in which the pipelines run the encoder."""
        import torch

        return torch.float32 if self._forces_upcast else self.module.dtype

    @property
    def decoding_dtype(self) -> torch.dtype:
        """The dtype of the decoder: float32 instead of float16 if its pipelines do that, because float16 overflows."""
        import torch

        dtype: torch.dtype = self.module.dtype
        return torch.float32 if self._forces_upcast and dtype == torch.float16 else dtype

    @property
    def _forces_upcast(self) -> bool:
        return self.follows_force_upcast and bool(getattr(self.module.config, "force_upcast", False))

    def to_model_scale(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw -> model scale, in the dtype of ``raw``. Cast afterwards, not before."""
        return raw if self.is_quantized else self.scale.to_model(raw)

    def to_raw(self, latents: torch.Tensor) -> torch.Tensor:
        """Model scale -> raw float32. It casts before it divides; the other order loses bits in bfloat16."""
        latents = latents.float()
        return latents if self.is_quantized else self.scale.to_raw(latents)

    def check_channels(self, raw: torch.Tensor) -> None:
        """Refuses latents with the wrong rank or number of channels for this autoencoder."""
        if raw.ndim != 4 or raw.shape[1] != self.channels:
            raise RelayError(
                f"latent: shape {list(raw.shape)} is not [batch, {self.channels}, height, width], which the {self.title} autoencoder takes. "
                "It comes from a model of another kind: decode it with that model first."
            )
