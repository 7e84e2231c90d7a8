"""The work of Encode Image (Diffusers) and Decode Latent (Diffusers)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import to_pixels
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from ..model.components import PipelineComponents
from .autoencoder import Autoencoder, autoencoder_of
from .generators import generators
from .latent_space import Latents

if TYPE_CHECKING:
    import torch


@tried_once_more
def encode(components: PipelineComponents, image: torch.Tensor, seed: int, runtime: Runtime) -> Latents:
    """IMAGE -> latents, sampled as in the pipelines. Image i uses a CPU generator with ``seed + i``."""
    autoencoder = autoencoder_for_wires(components)
    pixels = to_pixels(image, autoencoder.factor)
    samples = autoencoder.encode(pixels, runtime.policy, generators(seed, range(pixels.shape[0]))).float()
    return Latents(samples).with_samples(samples, autoencoder)


def decode(components: PipelineComponents, latent: Latents, tiled: bool, runtime: Runtime) -> torch.Tensor:
    """Latents -> IMAGE, with the model's decoder, or the latent's own decoder if it is in another space.

    A latent that knows its picture is not decoded: this is the picture.
    """
    autoencoder = autoencoder_for_wires(components)
    if latent.picture is not None:
        runtime.monitor.say(
            "Nothing was decoded: this is the picture into which padding_mask_crop put the repainted area."
        )
        return latent.picture
    space = latent.space
    if space is not None and not space.is_same_space(autoencoder, runtime.policy):
        runtime.monitor.say(
            f"Decoded with the autoencoder of {space.title}, because the latent is not in the space of {components.source}."
        )
        autoencoder = space
    if latent.noise_left is not None:
        runtime.monitor.say(
            f"The latent was left at denoising_end {latent.noise_left:g}, so the picture shows the noise that is still in it."
        )
    elif latent.noise_is_void:
        runtime.monitor.say("The latent was changed after the run that left noise in it.")
    image = autoencoder.decode(latent.samples, runtime.policy, tiled, monitor=runtime.monitor)
    if not image.any():
        runtime.monitor.say(
            "Every pixel is black. If that is not what the latent should show, load the model in float32."
        )
    return image


def autoencoder_for_wires(components: PipelineComponents) -> Autoencoder:
    """The autoencoder of a model whose latents go from node to node.

    Raises:
        RelayError: as :func:`autoencoder_of`, or the model's latents never leave its runs.
    """
    if components.family.keeps_latents:
        raise RelayError(
            f"model: no other model can read the latents of {components.source} ({components.family.title}). It takes pictures or other "
            "models' latents, and makes pictures: use Super Resolution x4 (Diffusers)."
        )
    return autoencoder_of(components)
