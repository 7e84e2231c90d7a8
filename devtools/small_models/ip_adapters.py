"""Small IP-Adapters for the small models, with the keys of h94/IP-Adapter's files, and their image encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .parts import TEXT_WIDTH
from .weights import random_module

SIZE = 0.15
"""Standard deviation of the attention's tensors: large enough to show in every picture."""
VISION_WIDTH, EMBEDDING = 32, 24
BIG_VISION_WIDTH, BIG_EMBEDDING = 48, 40
HEAD, TOKENS = 64, 4


def make_ip_adapters(models: Path, named: dict[str, Path]) -> None:
    """Fills `models`/ipadapter and `models`/clip_vision for the small models in `named`."""
    from diffusers import UNet2DConditionModel

    sd15, sdxl = (UNet2DConditionModel.from_pretrained(named[name], subfolder="unet") for name in ("sd15", "sdxl_base"))
    make_repository(models / "ipadapter", sd15, sdxl)
    encoders = models / "clip_vision"
    encoders.mkdir(parents=True)
    for part, name in (("models", "small_vit_h"), ("sdxl_models", "small_vit_g")):
        (models / "ipadapter" / part / "image_encoder").rename(encoders / name)
    torch.save(plain_adapter(sd15, 71), models / "ipadapter" / "pickled.bin")


def make_repository(folder: Path, sd15: Any, sdxl: Any) -> Path:
    """A folder with the names of h94/IP-Adapter: models/ for SD1.5, sdxl_models/ for SDXL, each with its image encoder."""
    small, large = folder / "models", folder / "sdxl_models"
    make_image_encoder(small / "image_encoder", 73, VISION_WIDTH, EMBEDDING)
    make_image_encoder(large / "image_encoder", 79, BIG_VISION_WIDTH, BIG_EMBEDDING)
    save_file(plain_adapter(sd15, 71), small / "ip-adapter_sd15.safetensors")
    save_file(plus_adapter(sd15, 83), small / "ip-adapter-plus_sd15.safetensors")
    save_file(full_adapter(sd15, 89), small / "ip-adapter-full-face_sd15.safetensors")
    save_file(plain_adapter(sdxl, 97, BIG_EMBEDDING), large / "ip-adapter_sdxl.safetensors")
    save_file(plus_adapter(sdxl, 101), large / "ip-adapter-plus_sdxl_vit-h.safetensors")
    return folder


def make_image_encoder(folder: Path, seed: int, width: int, embedding: int) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=embedding,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        hidden_act="gelu",
    )
    random_module(lambda: CLIPVisionModelWithProjection(config), seed).save_pretrained(folder)


def attention(unet: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """`ip_adapter.N.to_k_ip.weight` and `to_v_ip`, N = 1, 3, 5 ... for each layer that reads the prompt."""
    tensors = {}
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(layers):
        shape = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
        for part in ("k", "v"):
            tensors[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"] = SIZE * torch.randn(shape, generator=generator)
    return tensors


def projection(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random `image_proj.*` tensors; norms near 1, biases small."""
    tensors = {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        norm = key.endswith("weight") and len(shape) == 1
        tensors[f"image_proj.{key}"] = (
            1 + 0.05 * noise if norm else noise * (0.05 if len(shape) == 1 else shape[-1] ** -0.5)
        )
    return tensors


def plain_adapter(unet: Any, seed: int, embedding: int = EMBEDDING) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    width = unet.config.cross_attention_dim
    shapes = {
        "proj.weight": (TOKENS * width, embedding),
        "proj.bias": (TOKENS * width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    return projection(shapes, generator) | attention(unet, generator)


def plus_adapter(unet: Any, seed: int, vision: int = VISION_WIDTH) -> dict[str, torch.Tensor]:
    """IP-Adapter Plus: a resampler with four layers, which reads the encoder's last but one layer."""
    generator = torch.Generator().manual_seed(seed)
    width, inner = unet.config.cross_attention_dim, 32
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (1, TOKENS, inner),
        "proj_in.weight": (inner, vision),
        "proj_in.bias": (inner,),
        "proj_out.weight": (width, inner),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (inner,) for part in ("weight", "bias")}
        shapes |= {
            f"layers.{layer}.0.to_q.weight": (HEAD, inner),
            f"layers.{layer}.0.to_kv.weight": (2 * HEAD, inner),
            f"layers.{layer}.0.to_out.weight": (inner, HEAD),
            f"layers.{layer}.1.1.weight": (4 * inner, inner),
            f"layers.{layer}.1.3.weight": (inner, 4 * inner),
        }
    return projection(shapes, generator) | attention(unet, generator)


def full_adapter(unet: Any, seed: int, vision: int = VISION_WIDTH) -> dict[str, torch.Tensor]:
    """The full face adapter: a small network for each of the encoder's tokens."""
    generator = torch.Generator().manual_seed(seed)
    width = unet.config.cross_attention_dim
    shapes = {
        "proj.0.weight": (vision, vision),
        "proj.0.bias": (vision,),
        "proj.2.weight": (width, vision),
        "proj.2.bias": (width,),
        "proj.3.weight": (width,),
        "proj.3.bias": (width,),
    }
    return projection(shapes, generator) | attention(unet, generator)


def face_id_adapter(unet: Any, seed: int) -> dict[str, torch.Tensor]:
    """An IP-Adapter FaceID, which reads a face embedding; the pack refuses it."""
    generator = torch.Generator().manual_seed(seed)
    width = unet.config.cross_attention_dim
    shapes = {
        "proj.0.weight": (2 * TEXT_WIDTH, 512),
        "proj.0.bias": (2 * TEXT_WIDTH,),
        "proj.2.weight": (TOKENS * width, 2 * TEXT_WIDTH),
        "proj.2.bias": (TOKENS * width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    return projection(shapes, generator) | attention(unet, generator)
