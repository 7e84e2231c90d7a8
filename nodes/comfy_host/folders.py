"""The host's model folders and their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import comfy.utils
import folder_paths

from ...pipelines.base.errors import RelayError
from ...pipelines.files.safetensors import HOW_TO_CONVERT_WEIGHTS, SAFE_SUFFIXES


def diffusers_folders() -> dict[str, str]:
    """Name -> path of every diffusers model under the host's diffusers folders."""
    return folders_with("model_index.json", "diffusers")


def folders_with(file: str, kind: str) -> dict[str, str]:
    """Name -> path of every folder that holds ``file`` under the host's folders for ``kind``; the first path wins.

    Folders below one that holds it are looked at too: the file may lie there by mistake. Links are followed, wherever they
    lead: who made them is the user.
    """
    found: dict[str, str] = {}
    for root in folder_paths.get_folder_paths(kind):
        for folder, files in _walk(root):
            if file in files:
                found.setdefault(os.path.relpath(folder, root).replace(os.sep, "/"), folder)
    return dict(sorted(found.items()))


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder and its files' names, through links to folders; each real folder once, so that circles end."""
    seen: set[str] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        yield folder, files


def safetensors_files(kind: str) -> list[str]:
    """The names of the host's files of ``kind`` (``loras``, ``embeddings``) that can be read without running code."""
    return [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(SAFE_SUFFIXES)]


def pick_file(name: str, value: str, kind: str) -> str:
    """The path of a choice among :func:`safetensors_files`; nothing but a listed name gets through."""
    have = safetensors_files(kind)
    if value in have:
        return folder_paths.get_full_path_or_raise(kind, value)
    if value in folder_paths.get_filename_list(kind):
        raise RelayError(
            f"{name}: {value!r} is a pickle, and only safetensors are read: choose another, or convert it once. {HOW_TO_CONVERT_WEIGHTS}"
        )
    listed = ", ".join(have) or f"none: put a safetensors file in models/{kind}"
    raise RelayError(
        f"{name}: {value!r} is not among the files of this ComfyUI. It has: {listed}. Choose one of these, or add the missing one."
    )


def state_of_file(kind: str, value: str) -> str:
    """Another text whenever the file is written, or another takes its place."""
    path = folder_paths.get_full_path(kind, value) if value in safetensors_files(kind) else None
    return "missing" if path is None else _state(path)


def model_files(kind: str) -> dict[str, str]:
    """Name -> path of every file of the host's folders for ``kind``, pickles too; the first path wins, as in the host."""
    names = folder_paths.get_filename_list(kind)
    paths = ((name, folder_paths.get_full_path(kind, name)) for name in names)
    return {name.replace(os.sep, "/"): path for name, path in paths if path is not None}


def tokenizer_folder() -> Path:
    """Where the host keeps CLIP's vocabulary, which checkpoint files lack."""
    return Path(comfy.utils.__file__).parent / "sd1_tokenizer"


def state_of_files(folder: str) -> str:
    """Another text whenever the file, or a file in the folder, is written, added, taken away, or has another in its place;
    what links to files and folders lead to counts as lying there."""
    if os.path.isfile(folder):
        return _state(folder)
    return "\n".join(sorted(_state(os.path.join(place, name)) for place, names in _walk(folder) for name in names))


def _state(path: str) -> str:
    """The file that is at a path now: which one it is, and when it was written."""
    try:
        state = os.stat(path)
    except OSError:  # a link that leads nowhere
        return f"{path} missing"
    which = state.st_ino or os.path.realpath(path)  # some file systems number no files
    return f"{path} {which} {state.st_mtime_ns, state.st_size}"
