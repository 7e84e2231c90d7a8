"""Small LoRAs and embeddings for the small models, in common formats: kohya's and diffusers', A1111's and SDXL's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .parts import TEXT_WIDTH

RANK = 4
SIZE = 0.05
"""Standard deviation of a LoRA's tensors: large enough to show in every picture."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def make_adapters(models: Path, named: dict[str, Path]) -> None:
    """Fills `models`/loras and `models`/embeddings for the small models in `named`."""
    loras, embeddings = models / "loras", models / "embeddings"
    (loras / "styles").mkdir(parents=True)
    embeddings.mkdir(parents=True)
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    sd15 = StableDiffusionPipeline.from_pretrained(named["sd15"], safety_checker=None)
    sdxl = StableDiffusionXLPipeline.from_pretrained(named["sdxl_base"])
    save_file(kohya_lora(sd15, seed=31), loras / "sd15_kohya.safetensors")
    save_file(diffusers_lora(sd15, seed=37), loras / "styles" / "sd15_peft.safetensors")
    save_file(diffusers_lora(sd15, seed=41, parts=("unet",)), loras / "sd15_unet_only.safetensors")
    save_file(kohya_lora(sdxl, seed=43), loras / "sdxl_kohya.safetensors")
    save_file(diffusers_lora(sdxl, seed=47), loras / "sdxl_peft.safetensors")
    torch.save(diffusers_lora(sd15, seed=37), loras / "sd15_pickle.pt")

    save_file({"<small-cat>": vectors(53, 1)[0]}, embeddings / "learned.safetensors")
    save_file({"emb_params": vectors(59, 3)}, embeddings / "badhands.safetensors")
    save_file({"clip_l": vectors(61, 2), "clip_g": vectors(67, 2)}, embeddings / "sdxl_style.safetensors")
    save_file({"emb_params": torch.zeros(2, 2 * TEXT_WIDTH)}, embeddings / "too_wide.safetensors")


def vectors(seed: int, count: int, width: int = TEXT_WIDTH) -> torch.Tensor:
    """[count, width]"""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def lora_layers(pipeline: Any, part: str) -> dict[str, Any]:
    """The layers that trainers adapt: attention in the UNet, attention and MLP in text encoders."""
    ends = ATTENTION if part == "unet" else TEXT_LAYERS
    layers = dict(getattr(pipeline, part).named_modules())
    return {name: layer for name, layer in layers.items() if name.endswith(ends)}


def pairs(pipeline: Any, part: str, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{layer: (down [rank, in], up [out, rank])}."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            SIZE * torch.randn(RANK, layer.weight.shape[1], generator=generator),
            SIZE * torch.randn(layer.weight.shape[0], RANK, generator=generator),
        )
        for name, layer in lora_layers(pipeline, part).items()
    }


def text_parts(pipeline: Any) -> list[str]:
    return [name for name in ("text_encoder", "text_encoder_2") if name in pipeline.components]


def diffusers_lora(pipeline: Any, seed: int, parts: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
    tensors = {}
    for offset, part in enumerate(parts or ("unet", *text_parts(pipeline))):
        for name, (down, up) in pairs(pipeline, part, seed + offset).items():
            base = f"{part}.{name}" if part == "unet" else f"{part}.{published_text_name(name)}"
            tensors[f"{base}.lora_A.weight"], tensors[f"{base}.lora_B.weight"] = down, up
    return tensors


def kohya_lora(pipeline: Any, seed: int) -> dict[str, torch.Tensor]:
    """Alpha is half the rank, which halves the effect; the text encoders' alphas differ from the UNet's."""
    tensors = {}
    several = len(text_parts(pipeline)) > 1
    for offset, part in enumerate(("unet", *text_parts(pipeline))):
        prefix = "unet" if part == "unet" else ("te2" if part.endswith("2") else "te1") if several else "te"
        for name, (down, up) in pairs(pipeline, part, seed + offset).items():
            layer = published_text_name(name) if part != "unet" else sgm_name(pipeline.unet, name) if several else name
            base = f"lora_{prefix}_{layer.replace('.', '_')}"
            tensors[f"{base}.lora_down.weight"], tensors[f"{base}.lora_up.weight"] = down, up
            tensors[f"{base}.alpha"] = torch.tensor(RANK / 2 if part == "unet" else RANK / 1.0)
    return tensors


def sgm_name(unet: Any, name: str) -> str:
    """kohya's name for a layer in SDXL's UNet: by the numbered blocks of the original code."""
    block, index, kind, rest = re.fullmatch(r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(\w+)\.(.+)", name).groups()  # type: ignore[union-attr]
    if kind != "attentions":
        raise ValueError(f"no name for {name}")
    layer, _, inner = rest.partition(".")
    if block == "mid":
        return f"middle_block.1.{inner}"
    number = int(index) * (unet.config.layers_per_block + 1) + int(layer)
    return f"input_blocks.{number + 1}.1.{inner}" if block == "down" else f"output_blocks.{number}.1.{inner}"


def published_text_name(name: str) -> str:
    """A text encoder layer's name in files; newer transformers have one level less."""
    return name if name.startswith("text_model.") else f"text_model.{name}"
