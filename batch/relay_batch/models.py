"""A fingerprint of the model files that a workflow names: their size, first and last bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from .errors import BatchError
from .ui_convert import Prompt

ENDS = 1 << 20
"""How many bytes at each end: the beginning of a safetensors file has its header, and its weights follow."""


def model_fingerprints(comfyui: Path, prompt: Prompt) -> dict[str, str]:
    """{file in ComfyUI's folder models: fingerprint} of each file and folder there that an input of the workflow names."""
    models = comfyui / "models"
    if not models.is_dir():
        raise BatchError(f"--comfyui {comfyui}: there is no folder {models}.")
    named = {value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, str)}
    kinds = sorted(folder for folder in models.iterdir() if folder.is_dir())
    found: dict[str, str] = {}
    for value in sorted(named):
        for kind in kinds:
            for file in _files(kind, value):
                found[file.relative_to(models).as_posix()] = _fingerprint(file)
    return found


def _files(kind: Path, name: str) -> Iterator[Path]:
    """The file of that name, or all files of a folder of that name, if it is inside of `kind`."""
    parts = Path(name).parts
    if not name.strip() or len(name) > 255 or Path(name).is_absolute() or ".." in parts or "\0" in name or not parts:
        return
    place = kind / name
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from sorted(file for file in place.rglob("*") if file.is_file())


def _fingerprint(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(ENDS))
        opened.seek(max(0, size - ENDS))
        digest.update(opened.read(ENDS))
    return f"{size}-{digest.hexdigest()}"
