"""A model's autoencoder: converts between pixels and latents exactly as the pipelines do. For raw and model scale see :mod:`.scale`."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor, SilentMonitor
from ..device.offload import OffloadPolicy
from ..model.components import PipelineComponents
from .autoencoder_facts import AutoencoderFacts
from .decoder import decoded
from .encoder import encoded
from .probe import are_of_one_space, fitted_colours, probe_picture

if TYPE_CHECKING:
    import torch

    from .decoder import Whole

_probes: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Autoencoder(AutoencoderFacts):
    """A shared autoencoder that encodes and decodes as its family's pipelines do."""

    def encode(
        self, pixels: torch.Tensor, policy: OffloadPolicy, generators: Sequence[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Pixels -> raw latents in the autoencoder's dtype on ``policy.output_device()``.

        A picture that was encoded before is not encoded again, only sampled again.

        Args:
            pixels: [B, 3, H, W] in -1..1.
            policy: where the encoder runs.
            generators: one per image, to sample the distribution as the pipelines do. None: the distribution's mode, as in the
                host's VAEEncode. MoVQ and TAESD have no distribution and ignore this.
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
        """Pixels -> the encoder's output for each picture: diffusers' DiagonalGaussianDistribution of raw latents [1, C, h, w].

        As in the pipelines, they are on the encoder's device, in the dtype that it ran in (:attr:`encoding_dtype`).

        Args:
            pixels: [B, 3, H, W] in -1..1.
            policy: where the encoder runs.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        assert not self.is_tiny, "TAESD has no distribution"
        return [DiagonalGaussianDistribution(one) for one in self._encoded(list(pixels.split(1)), policy)]

    def _encoded(self, pictures: list[torch.Tensor], policy: OffloadPolicy) -> list[torch.Tensor]:
        return encoded(self.module, pictures, policy, self.encoding_dtype, tiling=self.tiling, title=self.title)

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
            tiled: use diffusers' own tiled decoding.
            whole_by: makes the IMAGE from the latents and a function that decodes a part of them.
            at_once: how many pixels ``whole_by`` decodes at a time; None: all of them.
            monitor: is told if memory ran out and the decode was repeated, in tiles or not.

        Raises:
            RelayError: the number of channels is wrong, the autoencoder can't decode in tiles, or the picture has NaN or infinite
                values even in float32.
        """
        self.check_channels(raw)
        return decoded(self, raw, policy, monitor or SilentMonitor(), tiled=tiled, whole_by=whole_by, at_once=at_once)

    def is_same_space(self, other: Autoencoder, policy: OffloadPolicy) -> bool:
        """Whether the two share a latent space. Decided by what their encoders make of a probe picture."""
        if self.module is other.module:
            return True
        if (self.factor, self.channels, self.is_quantized) != (other.factor, other.channels, other.is_quantized):
            return False
        return are_of_one_space(self._probe(policy), other._probe(policy))

    def rgb_factors(self, policy: OffloadPolicy) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents in model scale -> colours in -1..1, for previews: ([C, 3] factors, [3] offsets).

        The linear map is fitted to the probe picture, so it also exists for spaces without a published one.
        """
        return fitted_colours(self.to_model_scale(self._probe(policy)), self.factor)

    def _probe(self, policy: OffloadPolicy) -> torch.Tensor:
        if self.module not in _probes:
            # never in tiles: the result is shared, so it must not depend on the first caller's options
            _probes[self.module] = replace(self, tiling=False).encode(probe_picture(), policy).float().cpu()
        return _probes[self.module]


def autoencoder_of(components: PipelineComponents) -> Autoencoder:
    """The autoencoder of a model.

    Raises:
        RelayError: the family makes no latents, or the model came from a file without an autoencoder.
    """
    family = components.family
    if family.autoencoder is None:
        raise RelayError(
            f"model: {components.source} ({family.title}) has no autoencoder, so it can't make or read latents. Connect a model that paints."
        )
    if family.autoencoder not in components.modules:
        raise RelayError(
            f"model: {components.source} has no VAE, because its file contains none. Choose one in Set VAE, and connect the model from that node here."
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
