"""A model in both formats: a diffusers folder, and a single-file checkpoint for ComfyUI's own loader.

ComfyUI reads a UNet's depth from the checkpoint's keys, but it recognises SD1.5 by a first width of 320 and a text width of 768, and
always builds the text encoder and VAE at full size. So this model has the smallest UNet that ComfyUI still recognises as SD1.5 (one
level, one block), with a full-size text encoder and VAE, all in float16, and ComfyUI's tokenizer.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

from .finetunes import save_weights
from .parts import PNDM, make_autoencoder, make_unet, save, scheduler, text_conditions
from .tokenizer import write_tokenizer_config
from .weights import fit_unet, random_module

NATIVE_NAME = "relay_native_sd15"
VOCAB_SIZE = 49408
TEXT_WIDTH = 768

Weights = dict[str, torch.Tensor]


class NativePair(NamedTuple):
    checkpoint: Path
    folder: Path


def make_checkpoints(models_dir: Path, comfyui: Path, *, seed: int = 3607) -> NativePair:
    """Makes models_dir/checkpoints/NAME.safetensors and models_dir/diffusers/NAME with the same weights.

    comfyui: the host's folder, from which the tokenizer files are copied.
    """
    folder = make_native_sd15(models_dir / "diffusers" / NATIVE_NAME, comfyui, seed=seed)
    checkpoint = models_dir / "checkpoints" / f"{NATIVE_NAME}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_weights(original_weights(folder), checkpoint)
    return NativePair(checkpoint, folder)


def make_native_sd15(folder: Path, comfyui: Path, *, seed: int) -> Path:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    shutil.copytree(comfyui / "comfy" / "sd1_tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    write_tokenizer_config(folder / "tokenizer")
    text_config = CLIPTextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=TEXT_WIDTH,
        intermediate_size=3072,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        hidden_act="quick_gelu",
        bos_token_id=VOCAB_SIZE - 2,
        eos_token_id=VOCAB_SIZE - 1,
        pad_token_id=1,
    )
    unet = make_unet(
        seed,
        cross_attention_dim=TEXT_WIDTH,
        block_out_channels=(320,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        attention_head_dim=8,
        norm_num_groups=32,
    )
    fit_unet(unet, scheduler(PNDM), seed, text_conditions(TEXT_WIDTH), batch=24)
    vae = make_autoencoder(
        seed + 2, scaling_factor=0.18215, widths=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=random_module(lambda: CLIPTextModel(text_config), seed + 1).half(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet.half(),
        scheduler=scheduler(PNDM),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipeline, folder, PNDM)


def original_weights(folder: Path) -> Weights:
    """The weights of an SD1.5 diffusers folder under the original single-file format's keys."""
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    return {
        **{f"model.diffusion_model.{key}": value for key, value in original_unet(unet).items()},
        **{f"first_stage_model.{key}": value for key, value in original_vae(vae).items()},
        **{
            f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": value
            for key, value in text.items()
        },
    }


RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_KEY = re.compile(r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def original_unet(weights: Weights) -> Weights:
    resnets = {key.split(".")[3] for key in weights if key.startswith("down_blocks.0.resnets.")}
    layers = len(resnets)
    return {_unet_key(key, layers, weights): value for key, value in weights.items()}


def _unet_key(key: str, layers: int, weights: Weights) -> str:
    """`layers` is the number of resnets in a down block; an up block has one more.

    The original format numbers the layers of all down blocks in one sequence, where each downsampler counts as a layer, and those of the up
    blocks in another, where each upsampler is the last part of its block's last layer.
    """
    match = UNET_KEY.fullmatch(key)
    if match is None:
        end, tail = key.rsplit(".", 1)
        return f"{UNET_ENDS[end]}.{tail}"
    side, block, kind, index, rest = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    first = block * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        has_attention = f"up_blocks.{block}.attentions.0.norm.weight" in weights
        return f"output_blocks.{first + layers}.{2 if has_attention else 1}.{rest}"
    place = {
        "down": f"input_blocks.{1 + first + index}",
        "up": f"output_blocks.{first + index}",
        "mid": "middle_block",
    }[side]
    part = (2 * index if kind == "resnets" else 1) if side == "mid" else int(kind == "attentions")
    if kind == "resnets":
        name, tail = rest.rsplit(".", 1)
        rest = f"{RESNET_PARTS[name]}.{tail}"
    return f"{place}.{part}.{rest}"


VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_vae(weights: Weights) -> Weights:
    levels = len({key.split(".")[2] for key in weights if key.startswith("decoder.up_blocks.")})
    original = {}
    for key, value in weights.items():
        if ".attentions.0." in key:
            side, _, part = key.partition(".mid_block.attentions.0.")
            name, tail = part.rsplit(".", 1)
            key = f"{side}.mid.attn_1.{VAE_ATTENTION[name]}.{tail}"
            if tail == "weight" and value.ndim == 2:
                value = value[:, :, None, None]  # the original has a 1 x 1 convolution instead of this linear layer
        else:
            key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
            key = re.sub(r"down_blocks\.(\d)", r"down.\1", key)
            key = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{levels - 1 - int(found[1])}", key)
            key = key.replace(".resnets.", ".block.").replace("samplers.0.", "sample.")
            key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        original[key] = value
    return original
