"""The trained modules as files: each in its own folder, as float16 safetensors, as written by save_pretrained.

A fine-tune's file has only the tensors that differ from its base; files next to it name the base and map the tensors that have
other names there.
"""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

MODELS = Path(__file__).resolve().parent / "models"
"""The models in the repository."""

CLASSES = {
    "vae": "diffusers.AutoencoderKL",
    "movq": "diffusers.VQModel",
    "taesd": "diffusers.AutoencoderTiny",
    "unet": "diffusers.UNet2DConditionModel",
    "controlnet": "diffusers.ControlNetModel",
    "prior": "diffusers.PriorTransformer",
    "text": "transformers.CLIPTextModelWithProjection",
    "picture": "transformers.CLIPVisionModelWithProjection",
}
"""{folder name up to the first underscore: class}."""
BASE_FILE = "base.txt"
CHANGED_FILE = "changed.safetensors"
RENAMED_FILE = "renamed.json"
"""Maps a fine-tune's tensor names to names in the base."""
NOT_OURS = ("_name_or_path", "dtype", "torch_dtype")
"""Config entries about how the file was written."""


class Store:
    """The modules of one folder, by name."""

    def __init__(self, folder: Path = MODELS) -> None:
        self.folder = folder

    def has(self, name: str) -> bool:
        return (self.folder / name / "config.json").is_file() or self.file(name).is_file()

    def load(self, name: str) -> Any:
        """Loads it in float32, in evaluation mode, without gradients. Raises KeyError if the name's class is unknown."""
        kind, folder = self._class(name), self.folder / name
        base = folder / BASE_FILE
        if base.is_file():
            module = kind.from_config(kind.load_config(folder))
            changed = {key: value.float() for key, value in load_file(folder / CHANGED_FILE).items()}
            known = self.load(base.read_text("utf-8").strip()).state_dict()
            renamed = _read_names(folder / RENAMED_FILE)
            module.load_state_dict(
                {
                    key: changed[key] if key in changed else known[renamed.get(key, key)].reshape(value.shape)
                    for key, value in module.state_dict().items()
                }
            )
        else:
            module = kind.from_pretrained(folder)
        return module.float().eval().requires_grad_(False)

    def save(self, name: str, module: Any, *, base: str | None = None) -> float:
        """Replaces the stored module. Returns its size in MB. base: the model that it is a fine-tune of, or shares parts with."""
        target = self.folder / name
        known = {} if base is None else self.load(base).state_dict()
        shutil.rmtree(target, ignore_errors=True)
        half = copy.deepcopy(module).half()
        if base is None:
            half.save_pretrained(target, safe_serialization=True)
        else:
            half.save_config(target)
            (target / BASE_FILE).write_text(f"{base}\n", "utf-8")
            places = {key: _place(key, value, known) for key, value in half.state_dict().items()}
            changed = {key: value for key, value in half.state_dict().items() if places[key] is None}
            renamed = {key: place for key, place in places.items() if place not in (None, key)}
            save_file(changed, target / CHANGED_FILE, metadata={"format": "pt"})
            if renamed:
                (target / RENAMED_FILE).write_text(json.dumps(renamed, indent=1) + "\n", "utf-8")
        config = target / "config.json"
        entries = {key: value for key, value in json.loads(config.read_text("utf-8")).items() if key not in NOT_OURS}
        config.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")
        return sum(file.stat().st_size for file in target.iterdir()) / 1e6

    def save_tensors(self, name: str, tensors: dict[str, torch.Tensor]) -> float:
        """Writes tensors to their own file, as for LoRAs and embeddings. Returns the size in MB."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, self.file(name), metadata={"format": "pt"})
        return self.file(name).stat().st_size / 1e6

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _class(self, name: str) -> Any:
        module, _, class_name = CLASSES[name.split("_")[0]].rpartition(".")
        return getattr(importlib.import_module(module), class_name)


def _place(key: str, value: torch.Tensor, known: dict[str, torch.Tensor]) -> str | None:
    """The name of equal values in the base, in any shape; tries their own name first."""
    names = [key, *known] if value.numel() > 1 else [key]
    return next((name for name in names if _same(value, known.get(name))), None)


def _same(value: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and value.numel() == other.numel() and torch.equal(value.flatten(), other.half().flatten())


def _read_names(file: Path) -> dict[str, str]:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}
