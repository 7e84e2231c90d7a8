"""Makes the small models once, and keeps them until what makes them changes.

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

from .host import get_host
from .paths import WORK

MAKERS = ("small_*.py", "hub_cache.py", "native_checkpoint.py")
STALE_AFTER_SECONDS = 3600
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")


@dataclass(frozen=True)
class SmallModels:
    """Finished models. Nothing in these folders may be changed: copy first."""

    root: Path
    named: dict[str, Path]
    """{name in small_models.make_all: diffusers folder}, each in `models`/diffusers."""

    @property
    def models(self) -> Path:
        """A host's models folder: diffusers/NAME, controlnet/NAME, and one checkpoint that the host's own loader takes."""
        return self.root / "models"

    @property
    def controlnets(self) -> dict[str, Path]:
        """{name in small_controlnets.CONTROLNETS: ControlNet folder}, each in `models`/controlnet."""
        return {folder.name: folder for folder in (self.models / "controlnet").iterdir()}

    @property
    def hub_cache(self) -> Path:
        """A Hugging Face hub cache with the models under the ids of published ones."""
        return self.root / "hub"

    def environment(self) -> dict[str, str]:
        """For a process that shall find the hub ids there, and go nowhere else."""
        return {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.root / "hf-home"), "HF_HUB_CACHE": str(self.hub_cache)}


def small_models() -> SmallModels:
    """The small models; made first where they are not there, which takes seconds."""
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
    from .hub_cache import make_hub_cache
    from .native_checkpoint import make_checkpoints
    from .small_adapters import make_adapters
    from .small_controlnets import add_hub_controlnets, make_controlnets
    from .small_examples import make_example_checkpoint, make_example_models
    from .small_models import make_all

    with tempfile.TemporaryDirectory(dir=WORK, prefix="making-models-") as name:
        scratch = Path(name) / "made"
        named = make_all(scratch / "models" / "diffusers")
        for_hub = named | make_example_models(Path(name) / "examples", named)
        make_hub_cache(scratch / "hub", for_hub)
        make_controlnets(scratch / "models" / "controlnet", named)
        add_hub_controlnets(scratch / "hub", for_hub, Path(name))
        make_checkpoints(scratch / "models", get_host())
        make_example_checkpoint(scratch / "models" / "checkpoints")
        make_adapters(scratch / "models", named, for_hub["sd15"])
        paths = {key: path.relative_to(scratch).as_posix() for key, path in named.items()}
        (scratch / "index.json").write_text(json.dumps(paths, indent=1), "utf-8")
        for stale in root.parent.glob("small-models-*"):
            if stale.is_dir() and time.time() - stale.stat().st_mtime > STALE_AFTER_SECONDS:  # others may still use it
                shutil.rmtree(stale, ignore_errors=True)
        scratch.rename(root)


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for file in sorted(file for pattern in MAKERS for file in Path(__file__).parent.glob(pattern)):
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}".encode())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    print(small_models().root)
