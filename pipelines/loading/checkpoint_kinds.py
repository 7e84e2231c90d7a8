"""Tells which model a checkpoint file contains from the keys and shapes in its header, never from its name."""

from __future__ import annotations

import json
from pathlib import Path

from ..base.errors import RelayError, shown
from ..files.safetensors import Header
from .checkpoint_keys import VAES, without_prefix
from .checkpoint_layout import CONFIGS, CheckpointLayout, DenoiserLayout
from .checkpoint_place import placed
from .checkpoint_table import DENOISER_LAYOUTS, LAYOUTS
from .file_part import check_file
from .file_signs import ADAPTERS, ALONE, DENOISERS, FULL_WEIGHTS, quantised, shows, what_it_is

TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.")
RUNS = f"Diffusers Relay loads checkpoints and UNets of these models and of their inpainting variants: {', '.join(layout.title for layout in LAYOUTS)}."


def denoiser_in(header: Header) -> DenoiserLayout | None:
    """The kind of denoiser that the file contains in the original layout; None if there is none that the pack loads."""
    return next((denoiser for denoiser in DENOISER_LAYOUTS if denoiser.is_in(header)), None)


def is_known_kind(path: Path, configs: Path = CONFIGS) -> bool:
    """Whether the header of a file says that it can be loaded. False if it can't be read."""
    try:
        layout_of(placed(check_file(path, path.name)).header, path.name, configs)
    except (RelayError, OSError):
        return False
    return True


def layout_of(header: Header, where: str, configs: Path = CONFIGS) -> CheckpointLayout:
    """The layout of a checkpoint, which may lack its VAE, its text encoders, or both.

    Args:
        header: from :func:`.checkpoint_place.placed`.
        configs: a folder like :data:`CONFIGS`. The kind of a file without text encoders is told by the configs of denoisers.

    Raises:
        RelayError: the file is something else. The message says what, as far as its keys tell.
    """
    denoiser = denoiser_in(header)
    what, advice = _something_else(header, denoiser)
    if what:
        raise RelayError(f"{where} is {what}, not a checkpoint that can be loaded here. {advice or RUNS}")
    if denoiser is None:
        some = ", ".join(map(shown, sorted(header.shapes)[:3])) or "nothing"
        raise RelayError(f"{where} is a kind of file that Diffusers Relay does not know (it contains {some}). {RUNS}")
    has_decoder = header.has(*(place + "decoder." for place in VAES))
    if header.has(*VAES) and not has_decoder:
        raise RelayError(f"{where} contains only a part of a VAE, without its decoder. Use another file of the model.")
    return _by_text_encoder(header, denoiser, where) or _by_denoiser(header, denoiser, where, configs)


def _by_text_encoder(header: Header, denoiser: DenoiserLayout, where: str) -> CheckpointLayout | None:
    for layout in LAYOUTS:
        if layout.denoiser is not denoiser:
            continue
        if layout.is_in(header):
            return layout
        for sign in layout.incomplete:
            if shows(sign, header.shapes):
                raise RelayError(f"{where} contains {sign.what}. Use the complete checkpoint.")
    return None


def _by_denoiser(header: Header, denoiser: DenoiserLayout, where: str, configs: Path) -> CheckpointLayout:
    """The kind of a file without text encoders."""
    numbers = denoiser.kind_numbers(without_prefix(header, denoiser.place))
    for layout in LAYOUTS:
        if layout.denoiser is denoiser and layout.is_marked(header):
            config = json.loads((configs / layout.configs / denoiser.component / "config.json").read_text("utf-8"))
            if all((config.get(name) or None) == (value or None) for name, value in numbers.items()):
                return layout
    told = ", ".join(f"{name} {value}" for name, value in numbers.items() if value)
    raise RelayError(
        f"{where} contains a {denoiser.title} without text encoders, and it is none of the kinds that can be loaded here "
        f"({told or 'its shapes are unusual'}). {RUNS}"
    )


def _something_else(header: Header, denoiser: DenoiserLayout | None) -> tuple[str, str]:
    """(What the file is, what to do with it); empty strings if it may be a checkpoint that the pack loads."""
    found = what_it_is(header.shapes, ADAPTERS if denoiser else (*ADAPTERS, *DENOISERS))
    if found is None and denoiser is None:
        if what := _parts_of_a_checkpoint(header):
            return what, ""
        found = what_it_is(header.shapes, ALONE)
    if found is None and denoiser is not None:
        found = next((variant for variant in denoiser.variants if shows(variant, header.shapes)), None)
    if found or denoiser is None:
        return (found.what, found.advice) if found else ("", "")
    if bits := quantised(header.shapes):
        return f"a checkpoint with {bits} weights", FULL_WEIGHTS
    channels = denoiser.channels_in(header)
    if channels not in (0, *denoiser.channels):
        return denoiser.other_channels.get(channels, f"a {denoiser.title} with {channels} input channels"), ""
    return "", ""


def _parts_of_a_checkpoint(header: Header) -> str:
    """What a file is that has other parts of a checkpoint, but no UNet under its usual keys."""
    others = [name for name, starts in (("a VAE", VAES), ("a text encoder", TEXT_ENCODERS)) if header.has(*starts)]
    if header.has("model_ema.diffusion_model"):
        return "a checkpoint with only the averaged (EMA) weights of its UNet"
    if len(others) == 2:
        return "a checkpoint with a VAE and a text encoder, but without a known UNet"
    return ""
