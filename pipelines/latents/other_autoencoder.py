"""Gives a model another autoencoder, from another model or from a file."""

from __future__ import annotations

from typing import Any

from ..base.errors import RelayError
from ..model.components import PipelineComponents
from .autoencoder import Autoencoder, autoencoder_of


def with_vae_of(components: PipelineComponents, other: PipelineComponents) -> PipelineComponents:
    """A view of ``components`` with the autoencoder of ``other``.

    Raises:
        RelayError: the other has none, or its latents have a shape or scale that does not fit the denoiser.
    """
    return _with_autoencoder(components, autoencoder_of(other), "vae_from")


def with_vae_file(components: PipelineComponents, module: Any, *, source: str) -> PipelineComponents:
    """A view of ``components`` with an autoencoder from a file.

    Args:
        module: from ``load_vae_file``, in the model's dtype.
        source: the file's name in messages.

    Raises:
        RelayError: the autoencoder has another shape or scale than the model's own, or than its family's if it has none.
    """
    return _with_autoencoder(
        components, Autoencoder(module, source, components.family.force_upcast_by_config), "vae_file"
    )


def _with_autoencoder(components: PipelineComponents, theirs: Autoencoder, what: str) -> PipelineComponents:
    name = components.family.autoencoder
    if name is not None and name not in components.modules:
        _check_for_family(components, theirs, what)
        return components.with_changes(modules={name: theirs.module})
    ours = autoencoder_of(components)
    if _kind(ours) != _kind(theirs):
        raise RelayError(
            f"{what}: {ours.title} can't use the autoencoder of {theirs.title}. Its kind, factor, channels, scale and shift are "
            f"{_kind(theirs)}, but {_kind(ours)} is needed. Choose one of the same family."
        )
    assert name is not None
    return components.with_changes(modules={name: theirs.module})


def _check_for_family(components: PipelineComponents, theirs: Autoencoder, what: str) -> None:
    """Checks an autoencoder for a model without one: its channels are known from the denoiser, its scale from the family."""
    family = components.family
    needed = (
        components[family.denoiser].config.out_channels,
        round(family.host_factor, 4),
        round(family.host_shift, 4),
    )
    found = (theirs.channels, round(theirs.scale.factor, 4), round(theirs.scale.shift, 4))
    if theirs.is_quantized or found != needed:
        raise RelayError(
            f"{what}: {components.source} can't use the autoencoder of {theirs.title}. Its channels, scale and shift are {found}, but {needed} is "
            "needed. Choose one of the same family."
        )


def _kind(one: Autoencoder) -> tuple[object, ...]:
    return (
        "MoVQ" if one.is_quantized else "VAE",
        one.factor,
        one.channels,
        round(one.scale.factor, 4),
        round(one.scale.shift, 4),
    )
