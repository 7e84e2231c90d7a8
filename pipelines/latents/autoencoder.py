"""Between pixels and latents: one model's autoencoder, as the pipelines themselves use it. For raw and model scale see :mod:`.scale`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.images import to_host_images
from ..base.monitor import Monitor, SilentMonitor
from ..device.offload import OffloadPolicy, Stage
from ..device.out_of_memory import once_more
from ..device.working_memory import decode_bytes
from ..model.components import PipelineComponents
from .borrowed_module import can_tile, in_float32, in_slices, in_tiles, may_be_widened
from .encoder import encoded
from .probe import are_of_one_space, fitted_colours, probe_picture
from .scale import LatentScale, scale_of

if TYPE_CHECKING:
    import torch

    Whole = Callable[[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]

_probes: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A shared VAE (AutoencoderKL) or MoVQ (VQModel), and how its family's pipelines run it."""

    module: Any
    title: str
    """The model that it came with, for messages."""
    follows_force_upcast: bool
    """Its pipelines run it in float32 where its config says ``force_upcast``."""
    tiling: bool = False
    """Encode and decode in tiles: less memory, and near the same numbers."""
    slicing: bool = False
    """Decode a batch one picture after the other: less memory, and the same numbers."""
    host_factor: float = 1.0
    """Model scale / the host's LATENT in the family's space, for an autoencoder that itself works in model scale (TAESD)."""
    host_shift: float = 0.0
    """With it: model scale = (the host's LATENT - host_shift) * host_factor."""

    @property
    def factor(self) -> int:
        """Pixels a latent pixel, along one side."""
        return 2 ** (len(self.module.config.block_out_channels) - 1)

    @property
    def channels(self) -> int:
        return self.module.config.latent_channels

    @property
    def is_quantized(self) -> bool:
        """MoVQ: its latents have one scale and no distribution."""
        return hasattr(self.module.config, "num_vq_embeddings")

    @property
    def is_tiny(self) -> bool:
        """TAESD (AutoencoderTiny): it encodes to model scale, and has no distribution."""
        return hasattr(self.module.config, "latent_magnitude")

    @property
    def scale(self) -> LatentScale:
        """From raw to model scale and back. MoVQ has one for both."""
        if self.is_quantized:
            return LatentScale()
        return LatentScale(self.host_factor, self.host_shift) if self.is_tiny else scale_of(self.module.config)

    @property
    def can_tile(self) -> bool:
        return can_tile(self.module)

    def encode(
        self, pixels: torch.Tensor, policy: OffloadPolicy, generators: Sequence[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Pixels -> raw latents in the autoencoder's dtype on ``policy.output_device()``.

        A picture that was encoded before is not encoded again: the draw alone is made anew.

        Args:
            pixels: [B, 3, H, W] in -1..1.
            policy: where the encoder runs.
            generators: one an image: a sample of the distribution, as the pipelines draw it. None: its mode, as the
                host's VAEEncode. MoVQ and TAESD have no distribution and draw nothing.
        """
        import torch

        if self.is_tiny:
            return self.to_raw(self.encode_tiny(pixels, policy))
        if self.is_quantized:
            (latents,) = (one.clone() for one in self._encoded([pixels], policy))
            return latents.to(policy.output_device())
        distributions = self.distributions(pixels, policy)
        drawn = [d.mode() if generators is None else d.sample(generators[i]) for i, d in enumerate(distributions)]
        return torch.cat(drawn).to(device=policy.output_device(), dtype=self.module.dtype)

    def encode_tiny(self, pixels: torch.Tensor, policy: OffloadPolicy) -> torch.Tensor:
        """Pixels [B, 3, H, W] -> TAESD's latents, which are in model scale, in its dtype on ``policy.output_device()``."""
        import torch

        latents = torch.cat(self._encoded(list(pixels.split(1)), policy))
        return latents.to(device=policy.output_device(), dtype=self.module.dtype)

    def distributions(self, pixels: torch.Tensor, policy: OffloadPolicy) -> list[Any]:
        """Pixels -> what the encoder makes of each: diffusers' DiagonalGaussianDistribution of raw latents [1, C, h, w].

        They are where the encoder was, in the dtype that it ran in (:attr:`encoding_dtype`), as the pipelines draw from them.

        Args:
            pixels: [B, 3, H, W] in -1..1.
            policy: where the encoder runs.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        assert not self.is_tiny, "it has none"
        return [DiagonalGaussianDistribution(one) for one in self._encoded(list(pixels.split(1)), policy)]

    def _encoded(self, pictures: list[torch.Tensor], policy: OffloadPolicy) -> list[torch.Tensor]:
        return encoded(self.module, pictures, policy, self.encoding_dtype, tiling=self.tiling, title=self.title)

    @property
    def encoding_dtype(self) -> torch.dtype:
        """What the pipelines run the encoder in."""
        import torch

        return torch.float32 if self._forces_upcast else self.module.dtype

    @property
    def decoding_dtype(self) -> torch.dtype:
        """What the decoder runs in: float32 where its pipelines say so, because it overflows in float16."""
        import torch

        dtype: torch.dtype = self.module.dtype
        return torch.float32 if self._forces_upcast and dtype == torch.float16 else dtype

    def decode(
        self,
        raw: torch.Tensor,
        policy: OffloadPolicy,
        tiled: bool = False,
        whole_by: Whole | None = None,
        at_once: int | None = None,
        monitor: Monitor | None = None,
    ) -> torch.Tensor:
        """Raw latents [B, C, h, w] -> IMAGE [B, H, W, 3] float32 on ``policy.output_device()``.

        Args:
            tiled: by diffusers' own tiled decoding.
            whole_by: makes the IMAGE, given the latents and what decodes a part of them.
            at_once: how many pixels that decodes at a time; None: all of them.
            monitor: is told where the device was too small, and it had to be done in tiles or once more.

        Raises:
            RelayError: another channel count; ``tiled`` with an autoencoder that can't; a picture that is no numbers, in float32 too.
        """
        import torch

        self.check_channels(raw)
        monitor = monitor or SilentMonitor()

        def image(raw: torch.Tensor, run_in: torch.dtype) -> torch.Tensor:
            def image_of(tiled: bool) -> torch.Tensor:
                return self._image(raw, policy, tiled, whole_by, at_once, run_in)

            may_tile = self.can_tile and whole_by is None and not (tiled or self.tiling)
            instead = (lambda: image_of(True)) if may_tile else None
            return once_more(lambda: image_of(tiled), policy, monitor, instead)

        made = image(raw, self.decoding_dtype)
        overflown = [index for index, one in enumerate(made) if not one.isfinite().all()]
        if overflown and may_be_widened(self.decoding_dtype, self.title):
            made[overflown] = image(raw[overflown], torch.float32)
        if not made.isfinite().all():
            raise RelayError(
                f"latent: the autoencoder of {self.title} decoded it to NaN or infinite values, so there is no picture. The "
                "latent may be far out of range (after a node that does arithmetic on latents), or the model's file may be damaged."
            )
        return made

    def _image(
        self,
        raw: torch.Tensor,
        policy: OffloadPolicy,
        tiled: bool,
        whole_by: Whole | None,
        at_once: int | None,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        import torch

        tiled = tiled or self.tiling
        pixels = at_once or raw.shape[0] * raw.shape[2] * raw.shape[3] * self.factor**2
        working_bytes = decode_bytes(self.module, pixels, dtype, tiled)
        with (
            policy.on_device(Stage.VAE, [self.module], working_bytes) as device,
            in_float32(self.module, dtype != self.module.dtype),
            in_tiles(self.module, tiled, self.title),
            in_slices(self.module, self.slicing),
            torch.no_grad(),
        ):
            # Scaled in the dtype of ``raw``, then cast: the other order loses bits of half precision.
            given = self.scale.to_model(raw).to(dtype) if self.is_tiny else self.scale.to_decoder(raw, dtype)
            given = given.to(device)
            image = self._decoded(given) if whole_by is None else whole_by(given, self._decoded)
            return image.to(policy.output_device())

    def _decoded(self, raw: torch.Tensor) -> torch.Tensor:
        """IMAGE, of latents that lie where the module is, in its dtype and scale."""
        options = {"force_not_quantize": True} if self.is_quantized else {}
        return to_host_images(self.module.decode(raw, return_dict=False, **options)[0])

    def to_model_scale(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw -> model scale, in the dtype of ``raw``: cast afterwards."""
        return raw if self.is_quantized else self.scale.to_model(raw)

    def to_raw(self, latents: torch.Tensor) -> torch.Tensor:
        """Model scale -> raw float32. float32 first, then the division: the other order loses bfloat16's bits."""
        latents = latents.float()
        return latents if self.is_quantized else self.scale.to_raw(latents)

    def is_same_space(self, other: Autoencoder, policy: OffloadPolicy) -> bool:
        """Whether the latents of one mean the same to the other, told from what the encoders do to a probe picture."""
        if self.module is other.module:
            return True
        if (self.factor, self.channels, self.is_quantized) != (other.factor, other.channels, other.is_quantized):
            return False
        return are_of_one_space(self._probe(policy), other._probe(policy))

    def check_channels(self, raw: torch.Tensor) -> None:
        """Refuses latents that can't be of this autoencoder's shape."""
        if raw.ndim != 4 or raw.shape[1] != self.channels:
            raise RelayError(
                f"latent: shape {list(raw.shape)} is not [batch, {self.channels}, height, width], which the {self.title} autoencoder takes. "
                "It comes from a model of another kind: decode it with that model first."
            )

    @property
    def _forces_upcast(self) -> bool:
        return self.follows_force_upcast and bool(getattr(self.module.config, "force_upcast", False))

    def rgb_factors(self, policy: OffloadPolicy) -> tuple[torch.Tensor, torch.Tensor]:
        """What a latent pixel looks like, for previews: ([C, 3] factors, [3] offsets) from model scale to -1..1.

        The linear map that fits the probe picture best, so that a space for which nobody has published one has it too.
        """
        return fitted_colours(self.to_model_scale(self._probe(policy)), self.factor)

    def _probe(self, policy: OffloadPolicy) -> torch.Tensor:
        if self.module not in _probes:
            # never in tiles: whoever asks first must not decide what the others get
            _probes[self.module] = replace(self, tiling=False).encode(probe_picture(), policy).float().cpu()
        return _probes[self.module]


def autoencoder_of(components: PipelineComponents) -> Autoencoder:
    """The autoencoder of a model.

    Raises:
        RelayError: the family makes no latents.
    """
    family = components.family
    if family.autoencoder is None:
        raise RelayError(
            f"model: {components.source} ({family.title}) has no autoencoder, so it can't make or read latents. Connect a model that paints."
        )
    options = components.options
    return Autoencoder(
        components[family.autoencoder],
        components.source,
        family.force_upcast_by_config,
        options.vae_tiling,
        options.vae_slicing,
        family.host_factor,
        family.host_shift,
    )
