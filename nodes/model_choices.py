"""The names in a list of folders and files, such as models/diffusers followed by models/checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from ..pipelines.files.safetensors import SAFE_SUFFIXES
from . import comfy_host

FOLDER, CHECKPOINT = " (folder)", " (checkpoint)"
WEIGHTS = re.compile(r"diffusion_pytorch_model.*|model[.-].*")
"""How diffusers and transformers name a folder's weights."""


def shown(folders: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
    """The names to list. Pickles are left out; if a folder and a file have the same name, both are listed with a suffix that tells them apart."""
    safe = [name for name in files if name.lower().endswith(SAFE_SUFFIXES)]
    return [name + FOLDER if name in safe else name for name in folders] + [
        name + CHECKPOINT if name in folders else name for name in safe
    ]


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
