"""Gives the keys of a file with a denoiser the prefix that they have in a complete checkpoint, and removes other prefixes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..files.safetensors import Header
from .checkpoint_keys import Rename, below, place_before, plain, plain_keys
from .checkpoint_table import DENOISER_LAYOUTS
from .file_signs import what_it_is


@dataclass(frozen=True)
class Placed:
    """A file with the keys of a complete checkpoint."""

    header: Header
    renamed: Rename
    """The file's key -> the key in :attr:`header`; None if the tensor is not below the place that training frameworks add."""


def placed(file: Header) -> Placed:
    """The header of a file as if its denoiser were in a complete checkpoint.

    A file with only a UNet may have no prefix before its keys, another one, or diffusers' layout. Its keys below that prefix
    get the checkpoint's; in diffusers' layout, the rest of each key is unchanged.
    """
    header = plain_keys(file)
    place = place_before(header, *(one.place + layer for one in DENOISER_LAYOUTS for layer in one.first_layers))
    if place is not None:
        return Placed(below(header, place), _moved(place, ""))
    sign = what_it_is(header.shapes)
    for denoiser in DENOISER_LAYOUTS:
        alone = place_before(header, *denoiser.always_has) if sign in denoiser.alone else None
        if alone is not None:
            rename = _moved(alone, denoiser.place)
            shapes = {rename(key) or key: shape for key, shape in header.shapes.items()}
            return Placed(replace(header, shapes=shapes), rename)
    return Placed(header, plain)


def _moved(place: str, to: str) -> Rename:
    """Replaces ``place`` at the start of a plain key."""
    return lambda key: to + plain(key).removeprefix(place) if plain(key).startswith(place) else None
