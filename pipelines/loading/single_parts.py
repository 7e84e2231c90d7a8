"""A VAE or a ControlNet in a file of its own, in the original layout or in diffusers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.safetensors import Header
from ..model.family import SDXL_BASE, SDXL_REFINER, STABLE_DIFFUSION, ModelFamily
from .block_layout import diffusers_numbers, original_numbers
from .checkpoint_kinds import CheckpointKind
from .single_file import CONFIGS, Part, check_file, load_part, read_parts_ahead, without_prefix

if TYPE_CHECKING:
    import torch

VAE_CONFIGS = {
    STABLE_DIFFUSION.name: CheckpointKind.SD15,
    SDXL_BASE.name: CheckpointKind.SDXL,
    SDXL_REFINER.name: CheckpointKind.SDXL,
}
VAE_PREFIXES = ("first_stage_model.", "vae.")
EARLY_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""diffusers' own names of before 0.15, which published VAEs still have."""
CONTROL_PREFIX = "control_model."


def load_vae_file(
    path: Path, dtype: torch.dtype, *, family: ModelFamily, source: str | None = None, configs: Path = CONFIGS
) -> Any:
    """The AutoencoderKL of a VAE file (models/vae), shared with whoever has loaded the same.

    Args:
        family: whose latents it makes, which no key tells: the VAEs of Stable Diffusion and of SDXL have the same tensors and
            differ in the factor that their latents are scaled by.
        source: what messages and the log call the file; its name, if None.

    Raises:
        RelayError: it is a pickle, damaged, or not a VAE of 4 latent channels and factor 8; or the family has no such VAE.
    """
    where = source or path.name
    if family.name not in VAE_CONFIGS:
        raise RelayError(
            f"{where}: {family.title} takes no VAE from a file. Use it with Stable Diffusion 1.x / 2.x or SDXL."
        )
    header = check_file(path, where)
    prefix = next((start for start in VAE_PREFIXES if header.has(start + "decoder.")), "")
    channels = header.shapes.get(f"{prefix}decoder.conv_in.weight", (0, 0))[1]
    if channels != 4 or f"{prefix}encoder.conv_in.weight" not in header.shapes:
        has = f"its decoder takes {channels} channels" if channels else "it has no encoder.conv_in and decoder.conv_in"
        raise RelayError(f"{where} is not a VAE of Stable Diffusion or SDXL, whose latents have 4 channels: {has}.")

    def rename(key: str) -> str | None:
        rest = key.removeprefix(prefix)
        if not key.startswith(prefix) or not rest.startswith(
            ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
        ):
            return None
        for early, now in EARLY_ATTENTION.items():
            rest = rest.replace(early, now) if ".mid_block.attentions." in rest else rest
        return rest

    config = configs / VAE_CONFIGS[family.name].value / "vae"
    part = Part("vae", "diffusers", "AutoencoderKL", config, rename, {})
    read_parts_ahead(path, [part], dtype)
    return load_part(path, part, dtype, where)


def load_controlnet_file(path: Path, dtype: torch.dtype, *, source: str | None = None, configs: Path = CONFIGS) -> Any:
    """The ControlNetModel of a file (models/controlnet), for SD1.5, SD2.x or SDXL, shared with whoever has loaded the same.

    Its family can be read from ``config.cross_attention_dim`` (768, 1024, 2048) and ``config.addition_embed_type``.

    Raises:
        RelayError: it is a pickle, damaged, or control of another kind, which the message names.
    """
    where = source or path.name
    header = check_file(path, where)
    _refuse_other_control(header, where)
    prefix = CONTROL_PREFIX if header.has(CONTROL_PREFIX) else ""
    shapes = without_prefix(header, prefix)
    original = "input_hint_block.0.weight" in shapes
    kind = _control_kind(shapes)
    if original and kind is CheckpointKind.SDXL:
        raise RelayError(
            f"{where} is a ControlNet for SDXL in the original layout, which diffusers cannot convert. Take the diffusers file of it."
        )
    config = configs / kind.value / "controlnet"
    numbers: Callable[..., dict[str, Any]] = original_numbers if original else diffusers_numbers
    own = numbers(shapes, json.loads((config / "config.json").read_text("utf-8")), where)

    def rename(key: str) -> str | None:
        return key.removeprefix(prefix) if key.startswith(prefix) else None

    part = Part("controlnet", "diffusers", "ControlNetModel", config, rename, own)
    read_parts_ahead(path, [part], dtype)
    return load_part(path, part, dtype, where)


def _control_kind(shapes: dict[str, tuple[int, ...]]) -> CheckpointKind:
    if any(key.startswith(("add_embedding.", "label_emb.")) for key in shapes):
        return CheckpointKind.SDXL
    linear = any(key.endswith(".proj_in.weight") and len(shape) == 2 for key, shape in shapes.items())
    return CheckpointKind.SD2 if linear else CheckpointKind.SD15


def _refuse_other_control(header: Header, where: str) -> None:
    def any_key(*parts: str) -> bool:
        return any(part in key for key in header.shapes for part in parts)

    what = ""
    if "lora_controlnet" in header.shapes or any_key(".lora_down.", ".lora_A.", "lora_unet_"):
        what = "a LoRA or Control-LoRA"
    elif any_key("control_add_embedding.", "task_embedding"):
        what = "a ControlNet Union"
    elif any_key("controlnet_x_embedder", "controlnet_blocks.", "transformer_blocks.0.norm1_context"):
        what = "a ControlNet of a transformer model (SD3, Flux)"
    elif any_key("adapter.body.", "body.0.resnets."):
        what = "a T2I-Adapter"
    elif any_key("motion_modules."):
        what = "a SparseControlNet of AnimateDiff"
    elif any_key("model.diffusion_model."):
        what = "a whole checkpoint"
    elif not any_key("input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"):
        what = "of a kind that Diffusers Relay does not know"
    if what:
        raise RelayError(f"{where} is {what}. Diffusers Relay loads ControlNets of SD1.5, SD2.x and SDXL.")
