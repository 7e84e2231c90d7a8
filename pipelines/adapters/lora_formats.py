"""Tells what a file is if it is not a plain LoRA, and which model a LoRA was made for, where names or shapes prove it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .lora_names import split

INSTEAD = "Use a plain LoRA, or convert it to one."


class Format(NamedTuple):
    what: str
    signs: tuple[str, ...]
    """Pieces of tensor names; any one is enough. A space stands for the end of the name."""
    instead: str = INSTEAD
    """What to do."""


FORMATS = (
    Format("a Control-LoRA", ("lora_controlnet",)),
    Format("an OFT or BOFT of PEFT, whose settings are in another file", (".oft_R", ".oft_r", ".boft_R", ".boft_s")),
    Format("a GLoRA (LyCORIS)", (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight")),
    Format("an IA3 file (LyCORIS)", (".on_input", ".ia3_l")),
    Format("a VeRA file", ("vera_lambda_", "vera_A", "vera_B")),
    Format("a LoRA with biases of its own", (".lora_B.bias ", ".lora_up.bias ")),
    Format("a file that replaces weights", (".set_weight ",)),
    Format("a LoRA in the format of lora_diffusion", (":up ", ":down ")),
    Format("an IP-Adapter", ("ip_adapter.", "image_proj.", ".to_k_ip.", ".to_v_ip.")),
    Format("an AnimateDiff motion module or LoRA", ("motion_modules.", "motion_modules_")),
    Format(
        "a ControlNet",
        ("control_model.", "controlnet_cond_embedding.", "zero_convs."),
        "Put it into models/controlnet and use Load ControlNet (Diffusers).",
    ),
    Format(
        "a textual inversion",
        ("emb_params", "string_to_param"),
        "Put it into models/embeddings and use Load Textual Inversion.",
    ),
    Format(
        "a complete checkpoint",
        ("first_stage_model.", "cond_stage_model.", "conditioner.embedders."),
        "Put it into models/checkpoints and use Load Diffusers Model.",
    ),
)
MADE_FOR = {
    "SDXL": ("lora_te2_", "text_encoder_2.", "label_emb", "add_embedding"),
    "Flux": ("double_blocks", "single_transformer_blocks", "single_blocks"),
    "Stable Diffusion 3": ("joint_blocks",),
    "Stable Cascade": ("lora_prior_unet_", "prior_unet."),
    "Qwen-Image": ("txt_mod", "img_mod", "add_q_proj.lora"),
    "Wan": ("blocks.0.cross_attn", "blocks_0_cross_attn"),
    "Z-Image or Lumina": ("context_refiner", "noise_refiner", "adaLN_modulation"),
    "PixArt or another model with T5": ("lora_te3_", "text_encoder_3."),
    "a transformer model": (
        " transformer.",
        "lora_transformer_",
        "transformer_blocks.0.attn.",
        "transformer_blocks_0_attn_",
    ),
}
"""Kind of model -> pieces of tensor names that only its LoRAs have, most specific first. A space stands for the start of the name."""
OF_INPUTS = ("down", "hada_w1_b", "diff")
"""Roles of tensors whose second size is the number of inputs of their layer."""
CONTEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL", 1280: "the SDXL refiner"}
"""Width of the text embeddings that a UNet's cross-attention reads -> the kind of model."""


def other_format(names: Iterable[str]) -> Format | None:
    """What the file is if it is not a plain LoRA; None if its names don't tell."""
    names = [f".{name} " for name in names]
    return next((kind for kind in FORMATS if any(sign in name for name in names for sign in kind.signs)), None)


def made_for(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The kind of model that a LoRA was made for; empty if neither names nor shapes prove it.

    Args:
        shapes: name of each tensor in the file -> its shape.
    """
    for kind, signs in MADE_FOR.items():
        if any(sign in f" {name}" for name in shapes for sign in signs):
            return kind
    widths = {
        shape[1]
        for name, shape in shapes.items()
        if "attn2" in name and "to_k" in name and split(name)[1] in OF_INPUTS and len(shape) >= 2
    }
    return CONTEXT_WIDTHS.get(widths.pop(), "") if len(widths) == 1 else ""


def own_kind(modules: Mapping[str, Any]) -> str:
    """What :func:`made_for` returns for a LoRA for a model with these components."""
    if {"text_encoder", "text_encoder_2"} <= modules.keys():
        return "SDXL"
    width = getattr(getattr(modules.get("unet"), "config", None), "cross_attention_dim", None)
    return CONTEXT_WIDTHS.get(width, "") if isinstance(width, int) else ""
