"""Makes models of the real architectures with random weights, because the cost of a step doesn't depend on the weights.

Each is a diffusers folder. The Stable Diffusion models are also a single file in the original layout with the same weights, for
ComfyUI's own loader. Only one component is in memory at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusers_relay.pipelines.loading.checkpoint_layout import CONFIGS
from relay_host.comfyui import get_host
from small_models.finetunes import save_weights
from small_models.original_checkpoints import original_checkpoint
from small_models.parts import DDPM, EULER, UNCLIP
from small_models.tokenizer import END, write_tokenizer_config
from small_models.weights import calibrate_autoencoder, calibrate_movq, random_module

from . import architectures

SEED = 4721
ONE_FILE = "100GB"
"""Larger than any component, so each has one file: the conversion to the original layout needs that."""


def make_stable_diffusion(folder: Path, kind: str, dtype: torch.dtype) -> None:
    """kind: a folder in pipelines/loading/configs ("sd15", "sdxl", "sdxl_refiner")."""
    configs = CONFIGS / kind
    index = json.loads((configs / "model_index.json").read_text("utf-8"))
    index["scheduler"] = ["diffusers", EULER["_class_name"]]
    for seed, (name, entry) in enumerate(index.items(), SEED):
        if not isinstance(entry, list) or entry[0] is None:
            continue
        library, class_name = entry
        if name.startswith("tokenizer"):
            write_tokenizer(folder / name, json.loads((configs / name / "tokenizer_config.json").read_text("utf-8")))
        elif name != "scheduler":
            config = json.loads((configs / name / "config.json").read_text("utf-8"))
            write_component(folder / name, library, class_name, config, dtype, seed)
    finish(folder, index, EULER)


def make_kandinsky_decoder(folder: Path, dtype: torch.dtype) -> None:
    write_component(folder / "unet", "diffusers", "UNet2DConditionModel", architectures.DECODER_UNET, dtype, SEED)
    write_component(folder / "movq", "diffusers", "VQModel", architectures.MOVQ, dtype, SEED + 1)
    index = {
        "_class_name": "KandinskyV22Pipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "movq": ["diffusers", "VQModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    finish(folder, index, DDPM)


def make_kandinsky_prior(folder: Path, dtype: torch.dtype) -> None:
    from transformers import CLIPImageProcessor

    parts: dict[str, tuple[str, str, dict[str, Any]]] = {
        "prior": ("diffusers", "PriorTransformer", architectures.PRIOR),
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection", architectures.VISION),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection", architectures.BIG_TEXT),
    }
    for seed, (name, (library, class_name, config)) in enumerate(parts.items(), SEED):
        write_component(folder / name, library, class_name, config, dtype, seed)
    write_tokenizer(folder / "tokenizer", {})
    CLIPImageProcessor().save_pretrained(folder / "image_processor")
    index = {
        "_class_name": "KandinskyV22PriorPipeline",
        **{name: [library, class_name] for name, (library, class_name, _) in parts.items()},
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
        "scheduler": ["diffusers", "UnCLIPScheduler"],
    }
    finish(folder, index, UNCLIP)


def write_component(
    folder: Path, library: str, class_name: str, config: dict[str, Any], dtype: torch.dtype, seed: int
) -> None:
    module = random_module(component_maker(library, class_name, config), seed)
    with torch.inference_mode():
        if class_name == "AutoencoderKL":
            calibrate_autoencoder(module, seed)
        elif class_name == "VQModel":
            calibrate_movq(module, seed)
    module.to(dtype).save_pretrained(folder, max_shard_size=ONE_FILE, safe_serialization=True)


def component_maker(library: str, class_name: str, config: dict[str, Any]) -> Callable[[], Any]:
    import importlib

    component_class = getattr(importlib.import_module(library), class_name)
    if library == "diffusers":
        return lambda: component_class.from_config(config)
    return lambda: component_class(component_class.config_class(**config))


def write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    shutil.copytree(get_host() / "comfy" / "sd1_tokenizer", folder, dirs_exist_ok=True)
    write_tokenizer_config(folder, config.get("pad_token", END))


def finish(folder: Path, index: dict[str, Any], scheduler: dict[str, Any]) -> None:
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2), "utf-8")
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), "utf-8")


def write_checkpoint(folder: Path, file: Path) -> None:
    save_weights(original_checkpoint(folder), file)
