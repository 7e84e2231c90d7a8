"""What a file in models/controlnet is, from its keys, and for what only its name tells, from its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import RelayError
from ..files.safetensors import Header
from .checkpoint_kinds import UNET, VAES
from .file_signs import FULL_WEIGHTS, quantised, what_it_is

FIRST_HINT_LAYERS = ("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight")
"""What a ControlNet of a UNet looks at its picture with: in the original layout, and in diffusers'."""
RUNS = "Diffusers Relay loads ControlNets of SD1.5, SD2.x and SDXL."
NAMELESS = re.compile(r"(diffusion_pytorch_)?model(\.|$)|controlnet(\.|$)", re.IGNORECASE)
"""File names that say nothing: diffusers' own. The folder's name then counts."""


@dataclass(frozen=True)
class Sign:
    """Keys, any of which tells what a file is: each is a part of a key; one that ends with ``$`` is a whole key."""

    what: str
    keys: tuple[str, ...]
    advice: str = RUNS


SIGNS = (
    Sign("a Control-LoRA", ("lora_controlnet$",)),
    Sign("a ControlLLLite", ("lllite_unet_",)),
    Sign("a ControlNet-XS", ("ctrl_to_base", "base_to_ctrl", "enc_zero_convs_in", "enc_zero_convs_out")),
    Sign("a ControlNet Union", ("control_add_embedding.", "task_embedding")),
    Sign("a SparseCtrl of AnimateDiff", ("motion_modules.",)),
    Sign("a LoRA", (".lora_down.", ".lora_A.", "lora_unet_")),
    Sign("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    Sign(
        "a T2I-Adapter",
        ("adapter.body.", "body.0.resnets.", "body.0.in_conv.", "body.0.block1.", "body.0.body.", "transformer_layes."),
    ),
    Sign(
        "a ControlNet of a transformer model (SD3, Flux, Qwen-Image, Hunyuan and the like)",
        (
            "controlnet_x_embedder",
            "controlnet_blocks.",
            "transformer_blocks.0.norm1_context",
            "after_proj_list.",
            "control_layers.",
        ),
    ),
    Sign(
        "a difference ControlNet, whose weights are to be added to those of a model",
        ("difference$",),
        "Take the whole ControlNet of that name.",
    ),
)
DIFFERENCE_NAME = re.compile(r"(^|[^a-z])diff_control", re.IGNORECASE)
SHUFFLE_NAME = re.compile(r"(^|[^a-z])shuffle([^a-z]|$)", re.IGNORECASE)
INSTANT_ID_NAME = re.compile(r"instant[-_ ]?id", re.IGNORECASE)


def check_control(header: Header, path: Path, where: str) -> None:
    """
    Raises:
        RelayError: the file is no ControlNet that the pack runs; the message names what it is.
    """
    for sign in SIGNS:
        for wanted in sign.keys:
            whole = wanted.removesuffix("$")
            if (whole in header.shapes) if wanted.endswith("$") else any(wanted in key for key in header.shapes):
                raise RelayError(f"{where} is {sign.what}. {sign.advice}")
    if not any(key.endswith(FIRST_HINT_LAYERS) for key in header.shapes):
        what, advice = "of a kind that Diffusers Relay does not know", RUNS
        if header.has(UNET + "input_blocks."):
            what = "a whole checkpoint" if header.has(*VAES) else "a UNet alone, and no ControlNet"
        elif found := what_it_is(header.shapes):
            what, advice = f"{found.what}, and no ControlNet", found.advice or RUNS
        raise RelayError(f"{where} is {what}. {advice}")
    if bits := quantised(header.shapes):
        raise RelayError(f"{where} has {bits} weights, which Diffusers Relay does not load. {FULL_WEIGHTS}")
    if DIFFERENCE_NAME.search(_name(path)):
        raise RelayError(
            f"{where} is a difference ControlNet by its name, whose weights are to be added to those of a model. Take the whole "
            "ControlNet of that name; if it is whole, name it otherwise."
        )
    if INSTANT_ID_NAME.search(_name(path)):
        raise RelayError(
            f"{where} is InstantID's ControlNet by its name, which reads a face and no prompt, and can't be run here. If it is another, name "
            "it otherwise."
        )


def pools(path: Path) -> bool:
    """Whether what the ControlNet adds is averaged over the picture, as the shuffle ControlNet needs it: no key says so, its name does."""
    return bool(SHUFFLE_NAME.search(_name(path)))


def _name(path: Path) -> str:
    return path.parent.name if NAMELESS.match(path.name) else path.stem
