"""Makes the small models once, and keeps them until the code that makes them changes.

`python -m relay_dev.model_folders` prints where they are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from relay_host.comfyui import get_host
from relay_host.paths import WORK

DEVTOOLS = Path(__file__).resolve().parents[1]
MAKERS = ("small_models/*.py", "tiny_world/*.py", "relay_dev/hub_cache.py")
"""The code that decides the models, in addition to the trained weights and the libraries."""
TRAINED = DEVTOOLS / "tiny_world" / "models"
STALE_AFTER_SECONDS = 3600
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class SmallModels:
    """Finished models. Don't change anything in these folders: copy first."""

    root: Path
    named: dict[str, Path]
    """{name in small_models.folders.make_all: diffusers folder}, each in `models`/diffusers."""

    @property
    def models(self) -> Path:
        """A host's models folder: diffusers/NAME, controlnet/NAME, checkpoints, loras, embeddings, ipadapter, clip_vision.

        Their weights are random, except for the checkpoint, the LoRA and the embedding that go with `hub_cache`.
        """
        return self.root / "models"

    @property
    def controlnets(self) -> dict[str, Path]:
        """{name in small_models.controlnets.CONTROLNETS: ControlNet folder}, each in `models`/controlnet."""
        return {folder.name: folder for folder in (self.models / "controlnet").iterdir()}

    @property
    def hub_cache(self) -> Path:
        """A Hugging Face hub cache with the tiny world's trained models under the ids of published ones."""
        return self.root / "hub"

    def published(self, repo_id: str) -> Path:
        """The folder with a repository's files in the hub cache."""
        (snapshot,) = (self.hub_cache / f"models--{repo_id.replace('/', '--')}" / "snapshots").iterdir()
        return snapshot

    def environment(self) -> dict[str, str]:
        """Environment variables that make a process find the hub ids there, without network access."""
        return {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.root / "hf-home"), "HF_HUB_CACHE": str(self.hub_cache)}


def small_models() -> SmallModels:
    """The small models; makes them first if they don't exist yet."""
    root = WORK / f"small-models-{_fingerprint()}"
    index = root / "index.json"
    if not index.is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        with FileLock(WORK / "small-models.lock"):
            if not index.is_file():
                _make(root)
    named = json.loads(index.read_text("utf-8"))
    return SmallModels(root, {name: root / path for name, path in named.items()})


def _make(root: Path) -> None:
    from small_models.adapters import make_adapters
    from small_models.controlnets import make_controlnets
    from small_models.folders import make_all
    from small_models.ip_adapters import make_ip_adapters
    from small_models.native_checkpoint import make_checkpoints
    from tiny_world import layout
    from tiny_world.store import Store

    from .hub_cache import make_hub_cache

    with tempfile.TemporaryDirectory(dir=WORK, prefix="making-models-") as name:
        scratch = Path(name) / "made"
        named = make_all(scratch / "models" / "diffusers")
        make_controlnets(scratch / "models" / "controlnet", named)
        make_checkpoints(scratch / "models", get_host())
        make_adapters(scratch / "models", named)
        make_ip_adapters(scratch / "models", named)
        trained = Store()
        make_hub_cache(scratch / "hub", layout.lay_out_all(trained, Path(name) / "trained"))
        layout.lay_out_checkpoint(trained, scratch / "models" / "checkpoints")
        layout.lay_out_loras(trained, scratch / "models" / "loras")
        layout.lay_out_embedding(trained, scratch / "models" / "embeddings")
        paths = {key: path.relative_to(scratch).as_posix() for key, path in named.items()}
        (scratch / "index.json").write_text(json.dumps(paths, indent=1), "utf-8")
        for stale in root.parent.glob("small-models-*"):
            if stale.is_dir() and time.time() - stale.stat().st_mtime > STALE_AFTER_SECONDS:  # others may still use it
                shutil.rmtree(stale, ignore_errors=True)
        scratch.rename(root)


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for file in sorted(file for pattern in MAKERS for file in DEVTOOLS.glob(pattern)):
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    for file in sorted(file for file in TRAINED.rglob("*") if file.is_file()):
        digest.update(file.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}".encode())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    print(small_models().root)
