"""Converts diffusers folders to single-file checkpoints in the original layout: SD1.5, SD2, SDXL base, refiner; and ControlNets."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from .native_checkpoint import Weights, original_unet, original_vae

LABEL_KEYS = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
OPEN_CLIP_KEYS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def original_checkpoint(folder: Path) -> Weights:
    """The weights of a diffusers folder under the original single-file format's keys."""
    unet = whole_unet(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    weights = {f"model.diffusion_model.{key}": value for key, value in unet.items()}
    weights |= {f"first_stage_model.{key}": value for key, value in original_vae(vae).items()}
    first, second = folder / "text_encoder" / "model.safetensors", folder / "text_encoder_2" / "model.safetensors"
    if second.exists():
        place = "conditioner.embedders.1.model." if first.exists() else "conditioner.embedders.0.model."
        weights |= open_clip(load_file(second), place)
    if first.exists():
        text = load_file(first)
        if folder.name.startswith("sd2"):
            return weights | open_clip(text, "cond_stage_model.model.")
        place = "conditioner.embedders.0." if second.exists() else "cond_stage_model."
        weights |= {f"{place}transformer.text_model.{key.removeprefix('text_model.')}": text[key] for key in text}
    return weights


def whole_unet(weights: Weights) -> Weights:
    """Also works for SDXL, which has label_emb."""
    rest = {key: value for key, value in weights.items() if not key.startswith("add_embedding.")}
    labels = {key: value for key, value in weights.items() if key.startswith("add_embedding.")}
    return {
        **original_unet(rest),
        **{f"{LABEL_KEYS[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in labels.items()},
    }


def open_clip(weights: Weights, place: str) -> Weights:
    """A CLIP text encoder in OpenCLIP's format: query, key and value in one tensor."""
    original: Weights = {}
    joined: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in weights.items():
        key = key.removeprefix("text_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        if key in OPEN_CLIP_KEYS:
            original[OPEN_CLIP_KEYS[key]] = value
        elif key == "text_projection.weight":
            original["text_projection"] = value.T.contiguous()
        else:
            assert layer is not None, key
            block = f"transformer.resblocks.{layer[1]}"
            if layer[2] in OPEN_CLIP_PARTS:
                original[f"{block}.{OPEN_CLIP_PARTS[layer[2]]}.{layer[3]}"] = value
            else:
                joined.setdefault(f"{block}.attn.in_proj_{layer[3]}", {})[layer[2][-6]] = value
    for key, parts in joined.items():
        original[key] = torch.cat([parts[part] for part in "qkv"])
    return {place + key: value for key, value in original.items()}


def original_controlnet(weights: Weights) -> Weights:
    """A ControlNet's weights under the keys below control_model."""
    original: Weights = {}
    rest: Weights = {}
    for key, value in weights.items():
        tail = key.rpartition(".")[2]
        zero = re.fullmatch(r"controlnet_down_blocks\.(\d+)\.\w+", key)
        hint = re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)\.\w+", key)
        if zero:
            original[f"zero_convs.{zero[1]}.0.{tail}"] = value
        elif hint:
            original[f"input_hint_block.{2 * int(hint[1]) + 2}.{tail}"] = value
        elif key.startswith("controlnet_mid_block."):
            original[f"middle_block_out.0.{tail}"] = value
        elif key.startswith("controlnet_cond_embedding."):
            original[f"input_hint_block.{0 if '.conv_in.' in key else 14}.{tail}"] = value
        else:
            rest[key] = value
    return {**original, **original_unet(rest)}
