"""What the writer has to know of a model without loading it: its family, and whether it was trained for inpainting."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..pipelines.model.family import ModelFamily
from ..pipelines.model.family_lookup import declared_family
from .errors import NoScript

PRESENT = ["", ""]
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    **{
        name: {"_class_name": "StableDiffusionPipeline"}
        for name in (
            *("stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-2-1"),
            *("ogkalu/Comic-Diffusion", "kohbanye/pixel-art-style", "nitrosocke/elden-ring-diffusion"),
        )
    },
    "stable-diffusion-v1-5/stable-diffusion-inpainting": {"_class_name": "StableDiffusionInpaintPipeline"},
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": {
        "_class_name": "StableDiffusionXLInpaintPipeline",
        "text_encoder": PRESENT,
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {"_class_name": "StableDiffusionXLPipeline", "text_encoder": PRESENT},
    "stabilityai/stable-diffusion-xl-refiner-1.0": {"_class_name": "StableDiffusionXLImg2ImgPipeline"},
    "kandinsky-community/kandinsky-2-2-prior": {"_class_name": "KandinskyV22PriorPipeline"},
    "kandinsky-community/kandinsky-2-2-decoder": {"_class_name": "KandinskyV22Pipeline"},
    "kandinsky-community/kandinsky-2-2-decoder-inpaint": {"_class_name": "KandinskyV22InpaintPipeline"},
    "kandinsky-community/kandinsky-2-2-controlnet-depth": {"_class_name": "KandinskyV22ControlnetPipeline"},
    "stabilityai/sd-x2-latent-upscaler": {"_class_name": "StableDiffusionLatentUpscalePipeline"},
    "stabilityai/stable-diffusion-x4-upscaler": {"_class_name": "StableDiffusionUpscalePipeline"},
}
"""model_index.json of the models that diffusers' documentation uses, as far as it decides the family."""


@dataclass(frozen=True)
class ModelFacts:
    family: ModelFamily
    is_inpainting: bool


@dataclass(frozen=True)
class Shelf:
    """Where models are looked up. Only small JSON files are read, and only here on this machine."""

    models: Path | None = None
    """A ComfyUI models folder."""
    hub: Path | None = None
    """The hub's cache; None: the usual one."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Name of a model in a diffusers folder -> its folder, for a host that has several of them."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Model -> the class of its pipeline, as the user says."""

    def facts(self, name: str, *, of_hub: bool) -> ModelFacts:
        """
        Raises:
            NoScript: the model is not known here, or the pack has no family for it.
        """
        if name in self.said:
            return facts_of({"_class_name": self.said[name], "text_encoder": PRESENT})
        folder = self._snapshot(name) if of_hub else self._folder(name)
        if folder is not None and (index := _read(folder / "model_index.json")) is not None:
            return facts_of(index, _read(folder / "unet" / "config.json"))
        if of_hub and name in PUBLISHED:
            return facts_of(PUBLISHED[name])
        where = "in the cache of the hub" if of_hub else f"in {self.models or 'a models folder (--models)'}"
        raise NoScript(
            f"The model {name!r} is not {where}, so its family is not known. Load it once, or say the class of its pipeline: "
            f"--model {name}=StableDiffusionPipeline"
        )

    def _folder(self, name: str) -> Path | None:
        if name in self.folders:
            return self.folders[name]
        if self.models is None or ".." in Path(name).parts or Path(name).is_absolute():
            return None
        return self.models / "diffusers" / name

    def _snapshot(self, repo_id: str) -> Path | None:
        if repo_id.count("/") > 1 or ".." in repo_id or "\\" in repo_id:
            return None
        repository = (self.hub or usual_cache()) / f"models--{repo_id.replace('/', '--')}"
        try:
            commit = (repository / "refs" / "main").read_text("utf-8").strip()
        except (OSError, ValueError):
            return None
        return repository / "snapshots" / commit


def usual_cache() -> Path:
    """The hub's cache, as huggingface_hub finds it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))
    return Path(home).expanduser() / "hub"


def facts_of(index: Mapping[str, Any], unet: Mapping[str, Any] | None = None) -> ModelFacts:
    """
    Args:
        index: model_index.json.
        unet: the UNet's config.json, if it is known.
    """
    family = declared_family(index, "model")
    channels = None if unet is None else unet.get("in_channels")
    if channels is None:
        return ModelFacts(family, "Inpaint" in str(index.get("_class_name")))
    return ModelFacts(family, channels == 9)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
