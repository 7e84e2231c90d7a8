"""Small checkpoint files in the original layout, each with a diffusers folder that has the same weights.

The folders also serve as configs: `configs` has them under the names of the kinds, like the pack's own folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from diffusers_relay.pipelines.base.monitor import Monitor, SilentMonitor
from diffusers_relay.pipelines.loading.single_file import load_checkpoint
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels
from small_models.inpainting import make_inpaint
from small_models.original_checkpoints import original_checkpoint
from small_models.parts import TEXT_WIDTH, make_tokenizer, make_unet, save

KINDS = {"sd15": "sd15", "sd2": "sd2", "sdxl_base": "sdxl", "sdxl_refiner": "sdxl_refiner"}
DDIM = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class SmallCheckpoints:
    root: Path
    folders: dict[str, Path]
    """{name in KINDS: folder}, and "NAME_inpaint" with a UNet of 9 channels."""
    vocabularies: dict[str, Path]

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    def file(self, name: str) -> Path:
        return self.root / f"{name}.safetensors"


def open_checkpoint(
    small: SmallCheckpoints, path: Path, *, dtype: torch.dtype = torch.float32, monitor: Monitor | None = None
) -> PipelineComponents:
    return load_checkpoint(
        path, dtype=dtype, vocabularies=small.vocabularies, monitor=monitor or SilentMonitor(), configs=small.configs
    )


def make_small_checkpoints(root: Path, models: SmallModels) -> SmallCheckpoints:
    folders = {name: models.named[name] for name in KINDS if name != "sd2"}
    folders["sd2"] = make_sd2(root / "folders" / "sd2", folders["sd15"])
    for name in ("sd15", "sdxl_base"):
        folders[f"{name}_inpaint"] = make_inpaint(root / "folders" / f"{name}_inpaint", folders[name])
    for name, kind in KINDS.items():
        copy_configs(folders[name], root / "configs" / kind)
    made = SmallCheckpoints(root, folders, {"clip": models.named["sd15"] / "tokenizer"})
    for name, folder in folders.items():
        write_file(made.file(name), original_checkpoint(folder))
    return made


def write_file(path: Path, weights: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata=metadata)
    return path


def copy_configs(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors", "vocab.json", "merges.txt"))


def make_sd2(folder: Path, sd15: Path) -> Path:
    """Like SD1.5, except for linear projections, heads of one width, and OpenCLIP's padding."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer, _ = make_tokenizer(folder / "tokenizer", pad_token="!")
    unet = make_unet(
        4409,
        cross_attention_dim=TEXT_WIDTH,
        use_linear_projection=True,
        attention_head_dim=[2, 4],
        upcast_attention=True,
    )
    others: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    base = StableDiffusionPipeline.from_pretrained(sd15, torch_dtype=torch.float32)
    pipeline = StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler.from_config(DDIM),
        **others,
    )
    return save(pipeline, folder, DDIM)
