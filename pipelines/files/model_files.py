"""Which files of a diffusers model the pack needs, from their names alone: the same answer for a folder and for a repo."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..model.family import ModelFamily

if TYPE_CHECKING:
    import torch

MODEL_INDEX = "model_index.json"
VARIANTS = ("auto", "fp16", "none")
LIBRARIES = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""Library of a component -> what its weight files' names begin with."""
SIDE_FILES = (".json", ".txt", ".model")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
HOW_TO_CONVERT = (
    "Convert it once, on a machine where you trust its author: load it with diffusers, then "
    "`pipeline.save_pretrained(folder, safe_serialization=True)`; or use the hub's safetensors conversion."
)


class MissingFiles(RelayError):
    """Something that the model needs is not among the files; nothing is wrong with those that are there."""


@dataclass(frozen=True)
class ComponentFiles:
    """One component: its class and the files that make it. Paths are relative to the model, with ``/``."""

    name: str
    library: str
    class_name: str
    side_files: tuple[str, ...]
    """Configs and vocabularies."""
    weights: tuple[str, ...] = ()
    """Safetensors files: one, or all shards in their order. Empty: a scheduler, tokenizer or processor."""
    shard_index: str | None = None
    variant: str | None = None
    """``"fp16"``, or None for the plain files."""
    folder: str = ""
    """Where the component lies in the model; empty: it is the whole of it, as a ControlNet is."""

    @property
    def all_files(self) -> tuple[str, ...]:
        return self.side_files + self.weights + ((self.shard_index,) if self.shard_index else ())


def plan_files(
    model_index: Mapping[str, object],
    family: ModelFamily,
    names: Collection[str],
    *,
    variant: str,
    dtype: torch.dtype,
    where: str,
) -> tuple[ComponentFiles, ...]:
    """The files of each component that ``family`` wants.

    Args:
        model_index: the parsed model_index.json.
        names: every file there is, relative to the model, with ``/``.
        variant: ``"fp16"``: those files, for each component; ``"none"``: the plain files; ``"auto"``: for each
            component, the fp16 files where they are if ``dtype`` has two bytes or fewer, else the plain files;
            in both cases the others where only the others are there.
        dtype: what the weights will be loaded as.
        where: the repo or folder, for messages.

    Raises:
        MissingFiles: a file is not there.
        RelayError: pickles only, code of its own, or an unknown variant.
    """
    wanted = _wanted(variant, dtype, where)
    folders = _by_folder(names)
    declared = {name: _declaration(model_index, name, where) for name in sorted(family.components)}
    _refuse_pickles({name: folders.get(name, []) for name in declared if _has_weights(name)}, where)
    return tuple(
        _plan_component(name, library, class_name, folders.get(name, []), wanted, where, folder=name)
        for name, (library, class_name) in declared.items()
    )


def plan_single_component(
    name: str, class_name: str, names: Collection[str], *, variant: str, dtype: torch.dtype, where: str
) -> ComponentFiles:
    """The files of a component of diffusers that is a model of its own: config.json and weights at its top.

    Args:
        name: what messages call it, e.g. ``"controlnet"``.
        names: every file there is, relative to the model.
        variant, dtype, where: as in :func:`plan_files`.

    Raises:
        MissingFiles, RelayError: as :func:`plan_files`.
    """
    files = [
        file
        for file in _by_folder(names).get("", [])
        if file == "config.json" or not file.endswith(SIDE_FILES) or ".index." in file
    ]
    _refuse_pickles({"": files}, where)
    return _plan_component(name, "diffusers", class_name, files, _wanted(variant, dtype, where), where, folder="")


def _wanted(variant: str, dtype: torch.dtype, where: str) -> tuple[str | None, ...]:
    """The variants to look for, in their order; None is the plain files."""
    if variant not in VARIANTS:
        raise RelayError(f"{where}: there is no variant {variant!r}. Choose one of: {', '.join(VARIANTS)}.")
    half_first: tuple[str | None, ...] = ("fp16", None) if dtype.itemsize <= 2 else (None, "fp16")
    return {"auto": half_first, "fp16": ("fp16",), "none": (None,)}[variant]


def _at(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _by_folder(names: Collection[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, []).append(file)
    return folders


def _declaration(model_index: Mapping[str, object], name: str, where: str) -> tuple[str, str]:
    entry = model_index.get(name)
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        raise RelayError(
            f"{where}: model_index.json declares no {name} (its entry is {entry!r}). The model needs one: take a complete copy of it."
        )
    library, class_name = entry
    chosen_by_files = class_name.startswith("Auto") and not class_name.startswith("Autoencoder")
    if library not in LIBRARIES or chosen_by_files:
        raise RelayError(
            f"{where}: its {name} is a {class_name} of {library!r}, which could be code of the model's own. "
            f"Diffusers Relay runs named classes of {' and '.join(LIBRARIES)} only: use a copy of the model that has those."
        )
    return library, class_name


def _has_weights(component: str) -> bool:
    return not (component.endswith("scheduler") or component.startswith("tokenizer") or component.endswith("processor"))


def _refuse_pickles(folders: Mapping[str, list[str]], where: str) -> None:
    found = {
        name: [file for file in files if file.endswith(PICKLES)]
        for name, files in folders.items()
        if not any(file.endswith(".safetensors") for file in files)
    }
    pickled = [_at(name, files[0]) for name, files in found.items() if files]
    if pickled:
        raise RelayError(
            f"{where} has weights as pickles only ({', '.join(pickled)}). A pickle can run any code when it is read, "
            f"so Diffusers Relay loads safetensors only. {HOW_TO_CONVERT}"
        )


def _plan_component(
    name: str,
    library: str,
    class_name: str,
    files: list[str],
    wanted: tuple[str | None, ...],
    where: str,
    *,
    folder: str,
) -> ComponentFiles:
    side_files = tuple(_at(folder, file) for file in files if file.endswith(SIDE_FILES) and ".index." not in file)
    if not _has_weights(name):
        _require_config(name, files, where)
        return ComponentFiles(name, library, class_name, side_files, folder=folder)
    if "config.json" not in files:
        raise MissingFiles(f"{where} lacks {_at(folder, 'config.json')}.")
    stem = LIBRARIES[library]
    for variant in wanted:
        weights, index = _weights(files, stem, variant)
        if weights:
            return ComponentFiles(
                name,
                library,
                class_name,
                side_files,
                tuple(_at(folder, file) for file in weights),
                index and _at(folder, index),
                variant,
                folder,
            )
    raise _no_weights(name, folder, stem, files, wanted, where)


def _require_config(name: str, files: list[str], where: str) -> None:
    if name.endswith("scheduler"):
        choices = [{"scheduler_config.json"}]
    elif name.startswith("tokenizer"):
        choices = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"spiece.model"}]
    else:
        choices = [{"preprocessor_config.json"}]
    if not any(choice <= set(files) for choice in choices):
        raise MissingFiles(f"{where} lacks {name}/{', '.join(sorted(choices[0]))}.")


def _weights(files: list[str], stem: str, variant: str | None) -> tuple[list[str], str | None]:
    """The weight files of one variant, and the index where they are shards; none where a shard or the index is missing."""
    single = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    if single in files:
        return [single], None
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    if index not in files:
        return [], None
    # diffusers and transformers write `stem.fp16-00001-of-00002.safetensors`; older ones `stem-00001-of-00002.fp16.safetensors`
    number = r"-(\d{5})-of-(\d{5})"
    named = rf"(?:\.{variant}{number}|{number}\.{variant})" if variant else number
    pattern = re.compile(rf"{re.escape(stem)}{named}\.safetensors")
    shards = [(file, match) for file in files if (match := pattern.fullmatch(file))]
    totals = {int(next(group for group in reversed(match.groups()) if group)) for _, match in shards}
    if totals != {len(shards)}:
        return [], None
    return [file for file, _ in shards], index


def _no_weights(
    name: str, folder: str, stem: str, files: list[str], wanted: tuple[str | None, ...], where: str
) -> RelayError:
    if wanted == ("fp16",) and _weights(files, stem, None)[0]:
        return RelayError(f"{where}: {name} has no fp16 files, only plain ones. Set variant to auto or none.")
    if wanted == (None,) and _weights(files, stem, "fp16")[0]:
        return RelayError(f"{where}: {name} has no plain files, only fp16 ones. Set variant to auto or fp16.")
    looked_for = " or ".join(
        f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors" for variant in wanted
    )
    there = [file for file in files if file.endswith(".safetensors")]
    held = f"It has {', '.join(there)}." if there else "It has no weights."
    return MissingFiles(
        f"{where} lacks {_at(folder, looked_for)}, or a complete set of its shards with their index. {held}"
    )
