"""The host's model folders and their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import comfy.utils
import folder_paths

from ...pipelines.base.errors import RelayError
from ...pipelines.files.safetensors import HOW_TO_CONVERT_WEIGHTS, SAFE_SUFFIXES
from .choices import list_or_advice


def register_folder(kind: str) -> None:
    """Tells the host of models/``kind``, unless it knows the folder already, from another pack or extra_model_paths.yaml."""
    if kind not in folder_paths.folder_names_and_paths:
        path = os.path.join(folder_paths.models_dir, kind)
        folder_paths.folder_names_and_paths[kind] = ([path], folder_paths.supported_pt_extensions)


def diffusers_folders() -> dict[str, str]:
    """Name -> path of every diffusers model under the host's diffusers folders."""
    return folders_with("model_index.json", "diffusers")


def folders_with(file: str, kind: str) -> dict[str, str]:
    """Name -> path of every folder under the host's folders for ``kind`` that contains ``file``; the first path wins.

    Subfolders of such a folder are searched too, because the file may be there by mistake. Links are followed wherever they
    lead, because the user made them.
    """
    found: dict[str, str] = {}
    for root in folder_paths.get_folder_paths(kind):
        for folder, files in _walk(root):
            if file in files:
                found.setdefault(os.path.relpath(folder, root).replace(os.sep, "/"), folder)
    return dict(sorted(found.items()))


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder with its file names. Links to folders are followed; each real folder is visited once, so that loops end."""
    seen: set[str] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        yield folder, files


def _names(kind: str) -> list[str]:
    """The names of the host's files of ``kind``."""
    try:
        return list(folder_paths.get_filename_list(kind))
    except FileNotFoundError:  # the host's cache remembers a folder that has been removed since
        folder_paths.filename_list_cache.pop(kind, None)
        return list(folder_paths.get_filename_list(kind))


def safetensors_files(kind: str) -> list[str]:
    """The names of the host's files of ``kind`` (such as ``loras``) that can be read without running code."""
    return [name for name in _names(kind) if name.lower().endswith(SAFE_SUFFIXES)]


def pick_file(name: str, value: str, kind: str) -> str:
    """The path of one of :func:`safetensors_files`. Only a listed name is accepted."""
    have = safetensors_files(kind)
    if value in have:
        return folder_paths.get_full_path_or_raise(kind, value)
    if value in _names(kind):
        raise RelayError(
            f"{name}: {value!r} is a pickle, and only safetensors files are loaded. Choose another file, or convert this one once. {HOW_TO_CONVERT_WEIGHTS}"
        )
    advice = list_or_advice(have, f"Put a safetensors file in models/{kind}.")
    raise RelayError(f"{name}: {value!r} is not among the files of this ComfyUI. {advice}")


def state_of_file(kind: str, value: str) -> str:
    """A text that changes whenever the file is written or replaced."""
    path = folder_paths.get_full_path(kind, value) if value in safetensors_files(kind) else None
    return "missing" if path is None else _state(path)


def model_files(kind: str) -> dict[str, str]:
    """Name -> path of every file in the host's folders for ``kind``, including pickles; the first path wins, as in the host."""
    paths = ((name, folder_paths.get_full_path(kind, name)) for name in _names(kind))
    return {name.replace(os.sep, "/"): path for name, path in paths if path is not None}


def vocabularies() -> dict[str, Path]:
    """The host's folders with vocabularies of tokenizers, which checkpoint files don't contain, by :attr:`.Vocabulary.name`."""
    return {"clip": Path(comfy.utils.__file__).parent / "sd1_tokenizer"}


def state_of_files(folder: str) -> str:
    """A text that changes whenever the file, or a file in the folder, is written, added, removed or replaced.

    Links are followed, both to files and to folders.
    """
    if os.path.isfile(folder):
        return _state(folder)
    return "\n".join(sorted(_state(os.path.join(place, name)) for place, names in _walk(folder) for name in names))


def _state(path: str) -> str:
    """Identity, time of writing and size of the file that is at the path now."""
    try:
        state = os.stat(path)
    except OSError:  # a broken link
        return f"{path} missing"
    identity = state.st_ino or os.path.realpath(path)  # some file systems have no inode numbers
    return f"{path} {identity} {state.st_mtime_ns, state.st_size}"
