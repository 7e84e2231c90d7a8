"""The small models that the example workflows run on, which are made for the published models and at their sizes.

The other small models are quick at 64 x 64. These attend only where their latents are a quarter as wide, and so do 1024 x 1024 in the
time that the tests have. What the examples do not ask more of is as in the other small models: the autoencoders above all.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from .native_checkpoint import TEXT_WIDTH as NATIVE_TEXT_WIDTH
from .native_checkpoint import Weights, original_unet
from .small_finetunes import make_finetune, save_weights
from .small_inpainting import make_inpaint
from .small_parts import (
    EULER,
    PNDM,
    TEXT_WIDTH,
    TIME_IDS_WIDTH,
    make_text_encoder,
    make_unet,
    scheduler,
    text_conditions,
)
from .small_weights import PICTURE_STD, fit_unet, random_module, scale_output

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
"""The file that ComfyUI's first workflow loads, and so the SD1.5 that its users have."""
SCALING_FACTOR = 0.18215

DEEP = {
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}


def make_example_models(folder: Path, models: dict[str, Path]) -> dict[str, Path]:
    """Stand-ins of the same names for those of `models`, as small_models.make_all gave them, that are slow at real sizes.

    And one that only an example asks for: elden_ring.
    """
    sd15 = make_example_sd15(models["sd15"], folder / "sd15")
    return {
        "sd15": sd15,
        "comic": make_finetune(sd15, folder / "comic", seed=1021),
        "pixel": make_finetune(sd15, folder / "pixel", seed=1033),
        "sd15_inpaint": make_inpaint(folder / "sd15_inpaint", sd15),
        "elden_ring": make_finetune(sd15, folder / "elden_ring", seed=1069),
        "sdxl_base": make_example_sdxl(models["sdxl_base"], folder / "sdxl_base", seed=6229),
        "sdxl_refiner": make_example_sdxl(models["sdxl_refiner"], folder / "sdxl_refiner", seed=6427),
    }


def make_example_sd15(source: Path, folder: Path, *, seed: int = 5147) -> Path:
    """Its prompts are as wide as SD1.5's, so that they also serve ComfyUI's own sampler with an SD1.5 checkpoint."""
    shutil.copytree(source, folder)
    unet = make_unet(seed, cross_attention_dim=NATIVE_TEXT_WIDTH, **DEEP)
    fit_unet(unet, scheduler(PNDM), seed, text_conditions(NATIVE_TEXT_WIDTH))
    replace_part(folder / "unet", unet)
    vocab_size = _config(source / "text_encoder")["vocab_size"]
    replace_part(
        folder / "text_encoder", make_text_encoder(seed + 1, vocab_size, act="quick_gelu", width=NATIVE_TEXT_WIDTH)
    )
    return folder


def make_example_sdxl(source: Path, folder: Path, *, seed: int) -> Path:
    """`source` is a base or a refiner; this differs from it in nothing but the UNet."""
    shutil.copytree(source, folder)
    config = _config(source / "unet")
    time_ids = (config["projection_class_embeddings_input_dim"] - TEXT_WIDTH) // TIME_IDS_WIDTH
    same = ("cross_attention_dim", "addition_embed_type", "addition_time_embed_dim", "use_linear_projection")
    unet = make_unet(
        seed,
        **{name: config[name] for name in (*same, "projection_class_embeddings_input_dim")},
        **DEEP,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 2, 4),
    )

    def conditions(batch: int, generator: torch.Generator) -> dict[str, Any]:
        pooled = torch.randn(batch, TEXT_WIDTH, generator=generator)
        added = {"text_embeds": pooled, "time_ids": torch.full((batch, time_ids), 1024.0)}
        return {**text_conditions(config["cross_attention_dim"])(batch, generator), "added_cond_kwargs": added}

    fit_unet(unet, scheduler(EULER), seed, conditions)
    replace_part(folder / "unet", unet)
    return folder


def make_example_checkpoint(folder: Path, *, seed: int = 3637) -> Path:
    """A checkpoint for ComfyUI's own loader: an SD1.5 UNet, a tiny autoencoder of the kind that ComfyUI knows as TAESD, and no text encoder.

    SD1.5's own autoencoder would take most of a minute for one picture here, and has no smaller form that ComfyUI would load.
    """
    unet = make_unet(
        seed,
        cross_attention_dim=NATIVE_TEXT_WIDTH,
        block_out_channels=(320, 320, 320),
        down_block_types=DEEP["down_block_types"],
        up_block_types=DEEP["up_block_types"],
        attention_head_dim=8,
        norm_num_groups=32,
    )
    fit_unet(unet, scheduler(PNDM), seed, text_conditions(NATIVE_TEXT_WIDTH), batch=48)
    weights = {f"model.diffusion_model.{key}": value for key, value in original_unet(unet.state_dict()).items()}
    weights |= {f"first_stage_model.{key}": value for key, value in tiny_autoencoder(seed + 1).items()}
    file = folder / CHECKPOINT
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights({key: value.half() for key, value in weights.items()}, file)
    return file


@torch.no_grad()
def tiny_autoencoder(seed: int) -> Weights:
    """diffusers' AutoencoderTiny under ComfyUI's keys. In ComfyUI's the decoder begins with a layer that has no weights."""
    from diffusers import AutoencoderTiny

    vae = random_module(AutoencoderTiny, seed, gain=1.4)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
    last = vae.decoder.layers[-1]
    picture = vae.decoder.layers(latents)
    last.bias.sub_(picture.mean((0, 2, 3)))
    scale_output(last, picture, PICTURE_STD / 2)
    last.bias.add_(0.5)
    weights = {"vae_scale": torch.tensor(SCALING_FACTOR), "vae_shift": torch.tensor(0.0)}
    for key, value in vae.state_dict().items():
        side, _, number, rest = key.split(".", 3)
        weights[f"taesd_{side}.{int(number) + (side == 'decoder')}.{rest}"] = value
    return weights


def replace_part(folder: Path, module: Any) -> None:
    shutil.rmtree(folder)
    module.save_pretrained(folder, safe_serialization=True)


def _config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text("utf-8")))
