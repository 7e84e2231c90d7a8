"""The names of a choice among folders and files, such as models/diffusers and then models/checkpoints."""

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
    """What the choice lists. Pickles are not in it; a name that a folder and a file share is there twice, with what it is."""
    safe = [name for name in files if name.lower().endswith(SAFE_SUFFIXES)]
    return [name + FOLDER if name in safe else name for name in folders] + [
        name + CHECKPOINT if name in folders else name for name in safe
    ]


def without_insides(files: Mapping[str, str], folders: Mapping[str, str]) -> dict[str, str]:
    """``files`` less the weights of one of ``folders``: they are parts of what is listed already."""
    parts = {f"{folder}/" for folder in folders}
    return {name: path for name, path in files.items() if not _is_part(name, parts)}


def _is_part(name: str, parts: AbstractSet[str]) -> bool:
    folder, slash, file = name.rpartition("/")
    return folder + slash in parts and WEIGHTS.fullmatch(file) is not None


def accepted(folders: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Every value that is taken -> its path: more than the listed ones.

    A plain name stays valid when another model gets it too: it is the folder, as it was when only folders were listed. A
    pickle's name is taken as well, to be refused with the way to convert it.
    """
    return {
        **{name + FOLDER: path for name, path in folders.items()},
        **{name + CHECKPOINT: path for name, path in files.items()},
        **files,
        **folders,
    }


def pick(name: str, value: str, folders: Mapping[str, str], files: Mapping[str, str], kind: str, none: str) -> Path:
    """The folder or file of a choice; a pickle is refused by its name, before the prompt runs."""
    from ..pipelines.loading.file_part import check_name

    paths = accepted(folders, files)
    if value not in paths:  # the refusal lists what the choice lists
        paths = {shown_name: paths[shown_name] for shown_name in shown(folders, files)}
    path = Path(comfy_host.pick_folder(name, value, paths, kind, none))
    if not path.is_dir():
        check_name(path, value)
    return path
