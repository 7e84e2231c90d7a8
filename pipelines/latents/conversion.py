"""Converts latents between latent spaces, and tells the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..base.images import to_pixels
from ..device.out_of_memory import tried_once_more
from ..device.runtime import Runtime
from .autoencoder import Autoencoder
from .latent_space import Latents

if TYPE_CHECKING:
    import torch


def must_convert(latent: Latents, target: Autoencoder, runtime: Runtime) -> bool:
    """Whether the latent is in another space than ``target``.

    Args:
        latent: without a tag, it is assumed to be in the space of ``target``.
        target: the autoencoder of the model that will read it.
        runtime: the devices for the comparison of the two autoencoders, if they were not compared before.

    Raises:
        RelayError: the latent has no tag and the wrong number of channels, or is in another space and still holds noise.
    """
    space = latent.space
    if space is None or space.is_same_space(target, runtime.policy):
        target.check_channels(latent.samples)
        return False
    if latent.noise_left is not None:
        raise RelayError(
            f"latent: it is in the latent space of {space.title} and still holds noise (left at denoising_end {latent.noise_left:g}), so it can't be "
            f"converted for {target.title}. Run {space.title} to the end first, or continue with a model of the same space."
        )
    return True


def decode_for_conversion(latent: Latents, runtime: Runtime, how: str = "") -> torch.Tensor:
    """The IMAGE of a latent in another space (see :func:`must_convert`). The user is told, including ``how`` it is encoded."""
    space = latent.space
    assert space is not None
    if latent.picture is not None:
        runtime.monitor.say(f"Latent converted from {space.title}: its own picture was encoded{how}.")
        return latent.picture
    runtime.monitor.say(f"Latent converted from {space.title}: decoded, then encoded{how}.")
    return space.decode(latent.samples, runtime.policy, monitor=runtime.monitor)


@tried_once_more
def convert(latent: Latents, target: Autoencoder, runtime: Runtime) -> Latents:
    """The latent in the space of ``target``: unchanged, or decoded and encoded to the distribution's mode.

    Raises:
        RelayError: as :func:`must_convert`.
    """
    if not must_convert(latent, target, runtime):
        return latent.with_samples(latent.samples, target, noise_left=latent.noise_left, picture=latent.picture)
    image = decode_for_conversion(latent, runtime)
    raw = target.encode(to_pixels(image, target.factor), runtime.policy).float()
    return latent.with_samples(raw, target)
