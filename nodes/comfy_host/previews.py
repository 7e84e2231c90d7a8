"""The host's previews of a run's latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.latent_formats
import comfy.model_management as memory

from ...pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from .memory import HostOffload

if TYPE_CHECKING:
    from ...pipelines.model.components import PipelineComponents


class FittedFormat(comfy.latent_formats.LatentFormat):
    """A latent format for a space that the host doesn't know. Its colours are fitted when the first preview is needed."""

    def __init__(self, autoencoder: Autoencoder, policy: HostOffload) -> None:
        self.latent_channels = autoencoder.channels
        self._autoencoder, self._policy = autoencoder, policy

    @property
    def latent_rgb_factors(self) -> list[list[float]]:
        return self._autoencoder.rgb_factors(self._policy)[0].tolist()

    @property
    def latent_rgb_factors_bias(self) -> list[float]:
        return self._autoencoder.rgb_factors(self._policy)[1].tolist()


def previewer_for(model: PipelineComponents, policy: HostOffload) -> Any:
    """The host's previewer for the model's latents, or None if previews are off."""
    import latent_preview

    if model.family.preview_format is None:
        latent_format = FittedFormat(autoencoder_of(model), policy)
    else:
        latent_format = getattr(comfy.latent_formats, model.family.preview_format)()
    return latent_preview.get_previewer(memory.get_torch_device(), latent_format)
