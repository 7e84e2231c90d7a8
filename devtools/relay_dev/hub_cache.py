"""Writes small models as a Hugging Face hub cache, under the ids of the published models that they stand in for.

With HF_HUB_CACHE set to the folder and HF_HUB_OFFLINE=1, `from_pretrained(id)` finds them as if they had been downloaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from small_models.finetunes import add_fp16_files, weight_files

HUB_IDS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "stable-diffusion-v1-5/stable-diffusion-inpainting": "sd15_inpaint",
    "ogkalu/Comic-Diffusion": "comic",
    "kohbanye/pixel-art-style": "pixel",
    "nitrosocke/elden-ring-diffusion": "elden_ring",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl_base",
    "stabilityai/stable-diffusion-xl-refiner-1.0": "sdxl_refiner",
    "kandinsky-community/kandinsky-2-2-prior": "kandinsky_prior",
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky_decoder",
    "kandinsky-community/kandinsky-2-2-decoder-inpaint": "kandinsky_inpaint",
    "kandinsky-community/kandinsky-2-2-controlnet-depth": "kandinsky_depth",
    "stabilityai/sd-x2-latent-upscaler": "x2_upscaler",
    "stabilityai/stable-diffusion-x4-upscaler": "x4_upscaler",
}
"""Hub id -> name in tiny_world.layout.MODELS. The diffusers documentation uses these ids."""

HUB_CONTROLNETS = {"lllyasviel/control_v11f1p_sd15_depth": "controlnet_depth"}
"""The same for ControlNets."""
HUB_IP_ADAPTERS = {"h94/IP-Adapter": "ip_adapter"}
"""The same for IP-Adapters."""

FP16_OWNERS = ("stable-diffusion-v1-5/", "stabilityai/", "lllyasviel/")
WITH_FP16_FILES = {name for name in (*HUB_IDS, *HUB_CONTROLNETS) if name.startswith(FP16_OWNERS)}
"""The repositories that also publish variant="fp16" files."""


def make_hub_cache(cache_dir: Path, models: dict[str, Path]) -> dict[str, Path]:
    """Writes a repository for every id. Returns {id: snapshot folder}."""
    return {
        repo_id: add_repository(cache_dir, repo_id, models[name], fp16=repo_id in WITH_FP16_FILES)
        for repo_id, name in (HUB_IDS | HUB_CONTROLNETS | HUB_IP_ADAPTERS).items()
    }


def add_repository(cache_dir: Path, repo_id: str, source: Path, *, fp16: bool = False) -> Path:
    """Writes a repository with one commit on its branch main; with `fp16`, adds float16 weight files. Returns the snapshot folder."""
    repository = cache_dir / f"models--{repo_id.replace('/', '--')}"
    shutil.rmtree(repository, ignore_errors=True)
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    staging = repository / "staging"
    shutil.copytree(source, staging)
    if fp16 and not any(".fp16." in file.name for file in weight_files(staging)):
        add_fp16_files(staging)
    hashes = {file.relative_to(staging): _hash(file) for file in sorted(staging.rglob("*")) if file.is_file()}
    # The commit's name is a hash of its content, so the same models give the same cache.
    commit = hashlib.sha1(
        "".join(f"{path.as_posix()} {digest}\n" for path, digest in hashes.items()).encode()
    ).hexdigest()
    snapshot = repository / "snapshots" / commit
    for path, digest in hashes.items():
        (staging / path).replace(blobs / digest)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        _link(link, blobs / digest)
    shutil.rmtree(staging)
    reference = repository / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(commit, encoding="utf-8")
    return snapshot


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _link(link: Path, blob: Path) -> None:
    try:
        link.symlink_to(os.path.relpath(blob, link.parent))
    except OSError:  # Windows may not allow links
        shutil.copyfile(blob, link)
