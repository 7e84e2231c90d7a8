"""Tells what a file in models/controlnet is from its keys, or from its name where no key tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.safetensors import Header
from ..model.component_classes import CONTROLNET, CONTROLNET_UNION, Classes
from .block_layout import Shapes
from .checkpoint_keys import VAES
from .checkpoint_kinds import denoiser_in
from .file_part import Part
from .file_signs import FULL_WEIGHTS, quantised, what_it_is
from .union_file import control_types_of, union_model, union_numbers

if TYPE_CHECKING:
    import torch

FIRST_HINT_LAYERS = ("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight")
"""The first layer that a UNet's ControlNet applies to its image, in the original layout and in diffusers'."""
NAMELESS = re.compile(r"(diffusion_pytorch_)?model(\.|$)|controlnet(\.|$)", re.IGNORECASE)
"""File names that say nothing, such as diffusers' own. The folder's name is used instead."""


@dataclass(frozen=True)
class Sign:
    """Keys that tell what a file is; any one is enough. Each is part of a key, or, if it ends with ``$``, a whole key."""

    what: str
    keys: tuple[str, ...]
    advice: str = ""
    """What to do; empty: :data:`RUNS`."""


SIGNS = (
    Sign("a Control-LoRA", ("lora_controlnet$",)),
    Sign("a ControlLLLite", ("lllite_unet_",)),
    Sign("a ControlNet-XS", ("ctrl_to_base", "base_to_ctrl", "enc_zero_convs_in", "enc_zero_convs_out")),
    Sign("an AnimateDiff SparseCtrl", ("motion_modules.",)),
    Sign("a LoRA", (".lora_down.", ".lora_A.", "lora_unet_")),
    Sign("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    Sign(
        "a T2I-Adapter",
        ("adapter.body.", "body.0.resnets.", "body.0.in_conv.", "body.0.block1.", "body.0.body.", "style_embedding"),
    ),
    Sign(
        "a ControlNet for a transformer model (SD3, Flux, Qwen-Image, Hunyuan and others)",
        (
            "controlnet_x_embedder",
            "controlnet_blocks.",
            "transformer_blocks.0.norm1_context",
            "after_proj_list.",
            "control_layers.",
        ),
    ),
    Sign(
        "a difference ControlNet, whose weights must be added to those of a model",
        ("difference$",),
        "Use the complete ControlNet instead.",
    ),
)
DIFFERENCE_NAME = re.compile(r"(^|[^a-z])diff_control", re.IGNORECASE)
SHUFFLE_NAME = re.compile(r"(^|[^a-z])shuffle([^a-z]|$)", re.IGNORECASE)
INSTANT_ID_NAME = re.compile(r"instant[-_ ]?id", re.IGNORECASE)


def check_control(header: Header, path: Path, where: str) -> None:
    """
    Raises:
        RelayError: the file is not a ControlNet that the pack runs; the message says what it is.
    """
    for sign in SIGNS:
        for piece in sign.keys:
            whole = piece.removesuffix("$")
            if (whole in header.shapes) if piece.endswith("$") else any(piece in key for key in header.shapes):
                raise RelayError(f"{where} is {sign.what}. {sign.advice or RUNS}")
    if not any(key.endswith(FIRST_HINT_LAYERS) for key in header.shapes):
        what, advice = "a kind of file that Diffusers Relay does not know", RUNS
        if denoiser := denoiser_in(header):
            what = "a complete checkpoint" if header.has(*VAES) else f"only a {denoiser.title}, not a ControlNet"
        elif found := what_it_is(header.shapes):
            what, advice = f"{found.what}, not a ControlNet", found.advice or RUNS
        raise RelayError(f"{where} is {what}. {advice}")
    if bits := quantised(header.shapes):
        raise RelayError(f"{where} has {bits} weights, which Diffusers Relay does not load. {FULL_WEIGHTS}")
    if DIFFERENCE_NAME.search(_name(path)):
        raise RelayError(
            f"{where} is named like a difference ControlNet, whose weights must be added to those of a model. Use the complete "
            "ControlNet instead. If this file is complete, rename it."
        )
    if INSTANT_ID_NAME.search(_name(path)):
        raise RelayError(
            f"{where} is named like InstantID's ControlNet, which reads a face instead of the prompt and can't be used here. If it is another "
            "ControlNet, rename it."
        )


@dataclass(frozen=True, eq=False)
class ControlNetLayout:
    """One kind of ControlNet file."""

    title: str
    """The models that it is for, in messages."""
    configs: str
    """Its folder in ``configs/``, whose ``controlnet`` has its config."""
    fits: Callable[[Shapes], bool]
    """Whether a file with these shapes is of this kind, if it is of none in an earlier row. The keys have no prefix."""
    classes: Classes = CONTROLNET
    converts_original: bool = True
    """Whether diffusers can convert a file in the original layout."""
    numbers: Callable[[Shapes, str], dict[str, int]] | None = None
    """(Shapes, file for messages) -> config entries that only this kind has."""
    convert: Callable[[Part, dict[str, torch.Tensor], torch.dtype], Any] | None = None
    """See :attr:`.Part.convert`."""


def _reads_more_than_text(shapes: Shapes) -> bool:
    return any(key.startswith(("add_embedding.", "label_emb.")) for key in shapes)


def _has_sd2_attention(shapes: Shapes) -> bool:
    """By the width of the text, or, in pruned models without known widths, by the kind of the layers around the attention."""
    widths = {shape[1] for key, shape in shapes.items() if key.endswith(".attn2.to_k.weight") and len(shape) == 2}
    if widths in ({768}, {1024}):
        return widths == {1024}
    return any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in shapes.items())


LAYOUTS = (
    ControlNetLayout(
        "SDXL (Union)",
        "sdxl",
        lambda shapes: control_types_of(shapes) > 0,
        CONTROLNET_UNION,
        converts_original=False,
        numbers=union_numbers,
        convert=union_model,
    ),
    ControlNetLayout("SDXL", "sdxl", _reads_more_than_text, converts_original=False),
    ControlNetLayout("SD2.x", "sd2", _has_sd2_attention),
    ControlNetLayout("SD1.5", "sd15", fits=lambda shapes: True),
)
RUNS = f"Diffusers Relay loads ControlNets of {', '.join(layout.title for layout in LAYOUTS)}."


def control_layout_of(shapes: Shapes) -> ControlNetLayout:
    """The kind of a ControlNet file that passed :func:`check_control`."""
    return next(layout for layout in LAYOUTS if layout.fits(shapes))


def pools(path: Path) -> bool:
    """Whether the ControlNet's outputs are averaged over the image, as for the shuffle ControlNet. Only the file's name tells."""
    return bool(SHUFFLE_NAME.search(_name(path)))


def _name(path: Path) -> str:
    return path.parent.name if NAMELESS.match(path.name) else path.stem
