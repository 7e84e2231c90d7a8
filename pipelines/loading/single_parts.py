"""Loads a single-file VAE or ControlNet, in the original layout or in diffusers'."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.safetensors import Header
from ..model.family import ModelFamily
from ..model.family_lookup import titles_of
from .block_layout import diffusers_numbers, original_numbers
from .checkpoint_keys import (
    VAES,
    flat_attention,
    found_below,
    place_before,
    plain,
    plain_keys,
    vae_keys,
    without_prefix,
)
from .checkpoint_layout import CONFIGS
from .checkpoint_table import DENOISER_LAYOUTS
from .control_kinds import FIRST_HINT_LAYERS, check_control, control_layout_of, pools
from .file_part import Part, check_file, check_floats, load_part, read_parts_ahead
from .file_signs import ADAPTERS, ALONE, DENOISERS, FULL_WEIGHTS, PARTS_OF_VAE, quantised, what_it_is

if TYPE_CHECKING:
    import torch


def load_vae_file(
    path: Path, dtype: torch.dtype, *, family: ModelFamily, source: str | None = None, configs: Path = CONFIGS
) -> Any:
    """The AutoencoderKL in a VAE file (models/vae); shared if it is already in memory.

    Args:
        family: the family whose latents it makes. The keys don't tell: the VAEs of Stable Diffusion and SDXL have the same
            tensors and differ only in the scaling factor of their latents.
        source: the file's name in messages and the log; ``path.name`` if None.

    Raises:
        RelayError: it is a pickle, damaged, or not a VAE of the family's latent channels; or the family takes no VAE from a file.
    """
    where = source or path.name
    if family.vae_config is None:
        able = titles_of(lambda one: one.vae_config is not None)
        raise RelayError(f"{where}: {family.title} can't use a VAE file. Families that can: {able}.")
    whole_header = check_file(path, where)
    header = plain_keys(whole_header)
    place = _place_of_vae(header)
    config = configs / family.vae_config / "vae"
    _check_vae(header, place, where, family, json.loads((config / "config.json").read_text("utf-8")))
    assert family.autoencoder is not None
    classes = family.components[family.autoencoder]
    rename = found_below(vae_keys(place or ""), "")
    part = Part(family.autoencoder, classes.library, classes.names[0], config, rename, {}, flat_attention)
    check_floats(whole_header, part, where)
    read_parts_ahead(path, [part], dtype)
    return load_part(path, part, dtype, where)


def _place_of_vae(header: Header) -> str | None:
    """The prefix of the VAE's keys; None if there is no VAE. In a complete checkpoint, only the usual prefixes count."""
    if _has_denoiser(header):
        return next((start for start in VAES if header.has(start + "decoder.")), None)
    places = [place_before(header, f"{side}.conv_in.weight") for side in ("encoder", "decoder")]
    return places[1] if places[1] is not None else places[0]


def _has_denoiser(header: Header) -> bool:
    """Whether the file is a checkpoint."""
    return header.has(*(denoiser.place for denoiser in DENOISER_LAYOUTS))


def _check_vae(header: Header, place: str | None, where: str, family: ModelFamily, config: Mapping[str, Any]) -> None:
    channels = config["latent_channels"]
    sides = ("encoder", "decoder")
    inputs = {side: (*header.shapes.get(f"{place or ''}{side}.conv_in.weight", ()), 0, 0)[1] for side in sides}
    for side, other in (sides, sides[::-1]):
        if inputs[side] == {"encoder": 3, "decoder": channels}[side] and not inputs[other]:
            raise RelayError(
                f"{where} contains only the {side} of a VAE, without the {other}. Set VAE needs both: use the complete VAE file."
            )
    whole = _has_denoiser(header)
    signs = [sign for sign in (*ADAPTERS, *DENOISERS, *ALONE) if sign.what not in PARTS_OF_VAE]
    sign = None if whole and any(inputs.values()) else what_it_is(header.shapes, signs)
    if whole and not any(inputs.values()):
        what = f"It is {sign.what} without a VAE." if sign else "It is a checkpoint without a VAE."
    elif sign is not None:
        what = f"It is {sign.what}."
    elif not any(inputs.values()):
        what = "It has neither encoder.conv_in nor decoder.conv_in."
    elif inputs["decoder"] != channels:
        what = f"Its decoder takes {inputs['decoder']} channels."
    elif inputs["encoder"] != 3:
        what = f"Its encoder takes images with {inputs['encoder']} channels."
    elif bits := quantised(header.shapes):
        raise RelayError(f"{where} has {bits} weights, which Diffusers Relay does not load. {FULL_WEIGHTS}")
    else:
        return
    raise RelayError(f"{where} is not a VAE of {family.title}, whose latents have {channels} channels. {what}")


def load_controlnet_file(path: Path, dtype: torch.dtype, *, source: str | None = None, configs: Path = CONFIGS) -> Any:
    """The ControlNet in a file (models/controlnet), of a kind in ``control_kinds.LAYOUTS``; shared if it is already in memory.

    Raises:
        RelayError: it is a pickle, damaged, or another kind of control model, which the message names.
    """
    where = source or path.name
    whole_header = check_file(path, where)
    header = plain_keys(whole_header)
    check_control(header, path, where)
    place = place_before(header, *FIRST_HINT_LAYERS) or ""
    shapes = without_prefix(header, place)
    original = "input_hint_block.0.weight" in shapes
    layout = control_layout_of(shapes)
    if original and not layout.converts_original:
        raise RelayError(
            f"{where} is a ControlNet for {layout.title} in the original layout, which diffusers can't convert. Use its diffusers file."
        )
    config = configs / layout.configs / "controlnet"
    read_numbers: Callable[..., dict[str, Any]] = original_numbers if original else diffusers_numbers
    numbers = read_numbers(shapes, json.loads((config / "config.json").read_text("utf-8")), where)
    numbers["global_pool_conditions"] = pools(path)
    if layout.numbers is not None:
        numbers |= layout.numbers(shapes, where)

    def rename(key: str) -> str | None:
        return plain(key).removeprefix(place) if plain(key).startswith(place) else None

    classes = layout.classes
    part = Part(
        *("controlnet", classes.library, classes.names[0], config, rename, numbers),
        convert=layout.convert,
        has_pruned_variants=True,
    )
    check_floats(whole_header, part, where)
    read_parts_ahead(path, [part], dtype)
    return load_part(path, part, dtype, where)
