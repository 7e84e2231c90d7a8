"""Maps the keys of a checkpoint file, whichever program wrote it, to the keys that diffusers expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..files.safetensors import Header

if TYPE_CHECKING:
    import torch

Rename = Callable[[str], "str | None"]
"""A key of the file -> the key for diffusers; None if the tensor does not belong to this component."""

COMPILED = "_orig_mod."
OPEN_CLIP = "model."
"""The last part of the prefix of a text encoder's keys in OpenCLIP's layout. In transformers' layout it is ``transformer.``"""
CLIP_TARGET = "cond_stage_model.transformer."
"""The prefix under which diffusers looks for a text encoder in transformers' layout, for every kind of checkpoint."""
NO_WEIGHTS = ("position_ids", "logit_scale")
"""Endings of keys in a text encoder that are not used to encode a text."""
VAES = ("first_stage_model.", "vae.")
"""The prefixes that a VAE's keys may have in a whole checkpoint."""
VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
ATTENTION = {
    # names that programs give to the layers of a VAE's attention -> the original name, diffusers' current name
    ("q", "query", "to_q"): ("q", "to_q"),
    ("k", "key", "to_k"): ("k", "to_k"),
    ("v", "value", "to_v"): ("v", "to_v"),
    ("proj_out", "proj_attn", "to_out.0"): ("proj_out", "to_out.0"),
    ("norm", "group_norm"): ("norm", "group_norm"),
}


def place_before(header: Header, *ends: str) -> str | None:
    """The prefix before a key that ends with one of ``ends``: ``""``, or text that ends with a dot. None if there is no such key.

    Training frameworks save a model with ``module.`` or ``state_dict.`` before every key. The shortest prefix is returned.
    """
    found = {key.removesuffix(end) for key in header.shapes for end in ends if key.endswith(end)}
    return min((place for place in found if not place or place.endswith(".")), key=len, default=None)


def plain(key: str) -> str:
    """The key without the name that torch.compile inserts into the keys of a compiled module."""
    return key.replace(COMPILED, "")


def plain_keys(header: Header) -> Header:
    """The header with :func:`plain` keys."""
    return replace(header, shapes={plain(key): shape for key, shape in header.shapes.items()})


def below(header: Header, place: str) -> Header:
    """The header with ``place`` removed from the start of its keys. Keys that don't start with it are unchanged."""
    if not place:
        return header
    return replace(header, shapes={key.removeprefix(place): shape for key, shape in header.shapes.items()})


def found_below(rename: Rename, place: str) -> Rename:
    """``rename``, for a file whose :func:`plain` keys start with ``place``."""
    return lambda key: rename(plain(key).removeprefix(place)) if plain(key).startswith(place) else None


def prefixed(*starts: str, to: str | None = None) -> Rename:
    """Accepts the keys that begin with one of ``starts``, and replaces that beginning with ``to`` if given."""

    def rename(key: str) -> str | None:
        for start in starts:
            if key.startswith(start):
                return key if to is None else to + key.removeprefix(start)
        return None

    return rename


def without_prefix(header: Header, start: str) -> dict[str, tuple[int, ...]]:
    """The shapes whose keys begin with ``start``, by the rest of the key."""
    return {key.removeprefix(start): shape for key, shape in header.shapes.items() if key.startswith(start)}


def vae_keys(place: str) -> Rename:
    """The keys of a VAE, in the original or diffusers' layout, without ``place`` and with current names for its attention."""

    def rename(key: str) -> str | None:
        rest = key.removeprefix(place)
        if not key.startswith(place) or not rest.startswith(VAE_PARTS):
            return None
        for layout, between in enumerate((".mid.attn_1.", ".mid_block.attentions.0.")):
            side, found, name = rest.partition(between)
            if found:
                layer, _, tail = name.rpartition(".")
                names = next((names for known, names in ATTENTION.items() if layer in known), (layer, layer))
                return f"{side}{found}{names[layout]}.{tail}"
        return rest

    return rename


def flat_attention(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turns the attention weights of a VAE into those of linear layers: the original layout has 1 x 1 convolutions."""
    return {
        key: value.flatten(1)
        if value.ndim == 4 and value.shape[2:] == (1, 1) and (".attn_1." in key or ".attentions.0." in key)
        else value
        for key, value in tensors.items()
    }


def clip_keys(place: str, has_projection: bool) -> Rename:
    """The keys of a CLIP text encoder in transformers' layout. Early files lack ``text_model`` in their keys.

    Args:
        place: the prefix of its keys.
        has_projection: whether the encoder has a projection layer after its text model.
    """

    def rename(key: str) -> str | None:
        rest = key.removeprefix(place)
        if not key.startswith(place) or rest.endswith(NO_WEIGHTS):
            return None
        if rest.startswith("text_projection"):
            return CLIP_TARGET + rest if has_projection else None
        return CLIP_TARGET + (rest if rest.startswith("text_model.") else f"text_model.{rest}")

    return rename


def open_clip_projection(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Restores OpenCLIP's ``text_projection`` matrix where diffusers' conversion script saved a layer's weight, its transpose."""
    layer = ".model.text_projection.weight"
    return {
        key.removesuffix(".weight") if key.endswith(layer) else key: value.T if key.endswith(layer) else value
        for key, value in tensors.items()
    }
