"""Tells which model a checkpoint file contains from the keys and shapes in its header, never from its name."""

from __future__ import annotations

from ..base.errors import RelayError, shown
from ..files.safetensors import Header
from .checkpoint_keys import VAES
from .checkpoint_layout import CheckpointLayout, DenoiserLayout
from .checkpoint_table import DENOISER_LAYOUTS, LAYOUTS
from .file_signs import ADAPTERS, ALONE, DENOISERS, FULL_WEIGHTS, quantised, shows, what_it_is

TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.")
RUNS = f"Diffusers Relay loads checkpoints of these models and of their inpainting variants: {', '.join(layout.title for layout in LAYOUTS)}."


def denoiser_in(header: Header) -> DenoiserLayout | None:
    """The kind of denoiser that the file contains in the original layout; None if there is none that the pack loads."""
    return next((denoiser for denoiser in DENOISER_LAYOUTS if denoiser.is_in(header)), None)


def layout_of(header: Header, where: str) -> CheckpointLayout:
    """The layout of a checkpoint in the original layout, with denoiser and text encoders in one file. It may lack a VAE.

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
    layout = _by_text_encoder(header, denoiser, where)
    missing = [
        name
        for name, there in (
            ("text encoder", layout is not None),
            ("VAE", header.has(*(place + "decoder." for place in VAES))),
        )
        if not there
    ]
    if layout is not None and missing and header.has(*VAES):
        raise RelayError(f"{where} contains only a part of a VAE, without its decoder. Use another file of the model.")
    if layout is None:
        raise RelayError(f"{where} contains a {denoiser.title}, but no {' and no '.join(missing)}. {denoiser.alone}")
    return layout


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
    channels = (*header.shapes.get(denoiser.first_layer, ()), 0, 0)[1]
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
