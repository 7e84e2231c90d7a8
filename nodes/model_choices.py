"""The names in a list of folders and files, such as models/diffusers followed by models/checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from pathlib import Path

from ..pipelines.files.safetensors import SAFE_SUFFIXES
from . import comfy_host

FOLDER, CHECKPOINT = " (folder)", " (checkpoint)"
DENOISER = " (diffusion model)"
"""Always added to the name of a file in models/diffusion_models, so that a new file elsewhere can't change what a saved name means."""
WEIGHTS = re.compile(r"diffusion_pytorch_model.*|model[.-].*")
"""How diffusers and transformers name a folder's weights."""


def shown(folders: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """The names to list. Pickles are left out; if a folder and a file have the same name, both are listed with a suffix that tells them apart."""
    safe = [name for name, path in files.items() if path.lower().endswith(SAFE_SUFFIXES)]
    return [name + FOLDER if name in safe else name for name in folders] + [
        name + CHECKPOINT if name in folders else name for name in safe
    ]


def denoisers(files: Mapping[str, str]) -> dict[str, str]:
    """The files of models/diffusion_models with the names to list."""
    return {name + DENOISER: path for name, path in files.items()}


def that_load(files: Mapping[str, str]) -> dict[str, str]:
    """``files`` without those that Load Diffusers Model can't load, as their headers tell. Each header is read once."""
    return {name: path for name, path in files.items() if _loads(path, comfy_host.state_of_files(path))}


@lru_cache(maxsize=4096)
def _loads(path: str, state: str) -> bool:
    from ..pipelines.loading.checkpoint_kinds import is_known_kind

    return is_known_kind(Path(path))


def without_insides(files: Mapping[str, str], folders: Mapping[str, str]) -> dict[str, str]:
    """``files`` without the weights inside ``folders``, which are listed already."""
    parts = {f"{folder}/" for folder in folders}
    return {name: path for name, path in files.items() if not _is_part(name, parts)}


def _is_part(name: str, parts: AbstractSet[str]) -> bool:
    folder, slash, file = name.rpartition("/")
    return folder + slash in parts and WEIGHTS.fullmatch(file) is not None


def accepted(folders: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Every accepted value -> its path. More values are accepted than listed.

    A plain name stays valid when a folder and a file share it: it means the folder, because older versions listed only
    folders. A pickle's name is accepted too, so that the error can say how to convert it.
    """
    return {
        **{name + FOLDER: path for name, path in folders.items()},
        **{name + CHECKPOINT: path for name, path in files.items()},
        **files,
        **folders,
    }


def pick(name: str, value: str, folders: Mapping[str, str], files: Mapping[str, str], kind: str, none: str) -> Path:
    """The path of the chosen folder or file.

    Raises:
        RelayError: the value is not in the list, or is the name of a pickle.
    """
    from ..pipelines.loading.file_part import check_name

    paths = accepted(folders, files)
    if value not in paths:  # so that the error lists the same names as the node
        paths = {shown_name: paths[shown_name] for shown_name in shown(folders, files)}
    path = Path(comfy_host.pick_folder(name, value, paths, kind, none))
    if not path.is_dir():
        check_name(path, f"{name}: {value}")
    return path
