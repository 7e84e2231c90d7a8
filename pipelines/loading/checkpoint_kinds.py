"""Tells which model a checkpoint file contains from the keys and shapes in its header, never from its name."""

from __future__ import annotations

from enum import Enum

from ..base.errors import RelayError, shown
from ..files.safetensors import Header
from .file_signs import ADAPTERS, ALONE, DENOISERS, FULL_WEIGHTS, UNET_ALONE, quantised, what_it_is

UNET = "model.diffusion_model."
FIRST_LAYER = UNET + "input_blocks.0.0.weight"
VAES = ("first_stage_model.", "vae.")
"""The prefixes that a VAE's keys may have."""
TEXT_ENCODERS = ("cond_stage_model.", "conditioner.embedders.")


class CheckpointKind(str, Enum):
    """A kind of checkpoint that the pack loads. The value is the name of its folder in configs/."""

    SD15 = "sd15"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl_refiner"


UNET_CHANNELS = {5: "a Stable Diffusion 2 depth model", 7: "the Stable Diffusion x4 upscaler", 8: "an InstructPix2Pix"}
"""Input channels of UNets in the original layout -> what the model is. 4 is a plain model, 9 an inpainting model."""
RUNS = "Diffusers Relay loads checkpoints of Stable Diffusion 1.x and 2.x, SDXL base and SDXL refiner, and their inpainting variants."


def kind_of(header: Header, where: str) -> CheckpointKind:
    """The kind of a complete checkpoint in the original layout, with UNet, VAE and text encoders in one file.

    Raises:
        RelayError: the file is something else. The message says what, as far as its keys tell.
    """
    what, advice = _something_else(header)
    if what:
        raise RelayError(f"{where} is {what}, not a checkpoint that can be loaded here. {advice or RUNS}")
    if not header.has(UNET + "input_blocks."):
        some = ", ".join(map(shown, sorted(header.shapes)[:3])) or "nothing"
        raise RelayError(f"{where} is a kind of file that Diffusers Relay does not know (it contains {some}). {RUNS}")
    kind = _by_text_encoder(header)
    missing = [
        name
        for name, there in (
            ("text encoder", kind is not None),
            ("VAE", header.has(*(place + "decoder." for place in VAES))),
        )
        if not there
    ]
    if kind is None and header.has("conditioner.embedders.0.transformer."):
        raise RelayError(
            f"{where} contains an SDXL UNet with only one of its two text encoders. Use the complete checkpoint."
        )
    if kind is None or missing:
        raise RelayError(f"{where} contains a UNet, but no {' and no '.join(missing)}. {UNET_ALONE}")
    return kind


def _by_text_encoder(header: Header) -> CheckpointKind | None:
    if header.has("conditioner.embedders.1."):
        return CheckpointKind.SDXL
    if header.has("conditioner.embedders.0.model."):  # some Stable Diffusion 2 files have this prefix too
        return CheckpointKind.SDXL_REFINER if header.has(UNET + "label_emb.") else CheckpointKind.SD2
    if header.has("cond_stage_model.model."):
        return CheckpointKind.SD2
    if header.has("cond_stage_model.transformer."):
        return CheckpointKind.SD15
    if header.has("conditioner.embedders.0.transformer.") and not header.has(UNET + "label_emb."):
        return CheckpointKind.SD15
    return None


def _something_else(header: Header) -> tuple[str, str]:
    """(What the file is, what to do with it); empty strings if it may be a checkpoint that the pack loads."""
    has_unet = header.has(UNET + "input_blocks.")
    found = what_it_is(header.shapes, ADAPTERS if has_unet else (*ADAPTERS, *DENOISERS))
    if found is None and not has_unet:
        if what := _parts_of_a_checkpoint(header):
            return what, ""
        found = what_it_is(header.shapes, ALONE)
    if found or not has_unet:
        return (found.what, found.advice) if found else ("", "")
    if any(".time_stack." in key for key in header.shapes):
        return "a Stable Video Diffusion model", ""
    if "edm_mean" in header.shapes:
        return "a Playground v2.5 model", ""
    if "edm_vpred.sigma_max" in header.shapes:
        return "an SDXL model with EDM v-prediction (CosXL)", ""
    if header.has("embedder.model.visual."):
        return "a Stable Diffusion 2.1 unCLIP model", ""
    if header.has("cc_projection."):
        return "a Zero123 model", ""
    if header.has("cond_stage_model.roberta."):
        return "an AltDiffusion model", ""
    if bits := quantised(header.shapes):
        return f"a checkpoint with {bits} weights", FULL_WEIGHTS
    channels = (*header.shapes.get(FIRST_LAYER, ()), 0, 0)[1]
    if channels not in (0, 4, 9):
        return UNET_CHANNELS.get(channels, f"a UNet with {channels} input channels"), ""
    return "", ""


def _parts_of_a_checkpoint(header: Header) -> str:
    """What a file is that has other parts of a checkpoint, but no UNet under its usual keys."""
    others = [name for name, starts in (("a VAE", VAES), ("a text encoder", TEXT_ENCODERS)) if header.has(*starts)]
    if header.has("model_ema.diffusion_model"):
        return "a checkpoint with only the averaged (EMA) weights of its UNet"
    if len(others) == 2:
        return "a checkpoint with a VAE and a text encoder, but without a known UNet"
    return ""
