"""Which files of a diffusers model the pack needs, from their names alone: the same answer for a folder and for a repo."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..model.component_classes import Classes
from ..model.family import ModelFamily
from ..model.family_table import is_absent

if TYPE_CHECKING:
    import torch

MODEL_INDEX = "model_index.json"
VARIANTS = ("auto", "fp16", "none")
LIBRARIES = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""Library of a component -> what its weight files' names begin with."""
CONFIG_OF_MODEL, CONFIG_OF_SCHEDULER, CONFIG_OF_PROCESSOR = (
    "config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
)
SIDE_FILES = {
    "model": (CONFIG_OF_MODEL,),
    "scheduler": (CONFIG_OF_SCHEDULER,),
    "processor": (CONFIG_OF_PROCESSOR,),
    "tokenizer": (
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
}
"""Kind of a component -> the small files that are read. No other file of its folder is fetched or looked at, such as an
adapter_config.json."""
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
    classes: Classes
    """What it may be."""
    class_name: str
    """What it is, one of :attr:`classes`."""
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
    def library(self) -> str:
        return self.classes.library

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
        RelayError: pickles only, a class that the component may not be, or an unknown variant.
    """
    wanted = _wanted(variant, dtype, where)
    folders = _by_folder(names)
    lacking = {name for name in family.optional if is_absent(model_index.get(name))}
    declared = {
        name: _declaration(model_index, name, family, where)
        for name in sorted(family.components)
        if name not in lacking
    }
    _refuse_pickles(
        {name: folders.get(name, []) for name in declared if family.components[name].kind == "model"}, where
    )
    return tuple(
        _plan_component(name, family.components[name], class_name, folders.get(name, []), wanted, where, folder=name)
        for name, class_name in declared.items()
    )


def plan_single_component(
    name: str, classes: Classes, names: Collection[str], *, variant: str, dtype: torch.dtype, where: str
) -> ComponentFiles:
    """The files of a component of diffusers that is a model of its own: config.json and weights at its top.

    Args:
        name: what messages call it, e.g. ``"controlnet"``.
        classes: the one class that it may be.
        names: every file there is, relative to the model.
        variant, dtype, where: as in :func:`plan_files`.

    Raises:
        MissingFiles, RelayError: as :func:`plan_files`.
    """
    files = _by_folder(names).get("", [])
    (class_name,) = classes.names
    _refuse_pickles({"": files}, where)
    return _plan_component(name, classes, class_name, files, _wanted(variant, dtype, where), where, folder="")


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


def _declaration(model_index: Mapping[str, object], name: str, family: ModelFamily, where: str) -> str:
    """The class of a component, out of those that the family's table has for it."""
    entry = model_index.get(name)
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        raise RelayError(
            f"{where}: model_index.json declares no {name} (its entry is {short(entry)}). The model needs one: take a complete copy of it."
        )
    classes = family.components[name]
    class_name = classes.named(*entry)
    if class_name is None:
        raise RelayError(
            f"{where}: its {name} is to be {short(entry[1])} of {short(entry[0])}, and the {name} of a {family.title} model can be: "
            f"{', '.join(classes.names)} of {classes.library}. Nothing else is loaded: use a copy of the model that has one of these."
        )
    return class_name


def short(value: object) -> str:
    """A value of a model's file as messages show it: no line of a stranger's is longer than the rest."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    classes: Classes,
    class_name: str,
    files: list[str],
    wanted: tuple[str | None, ...],
    where: str,
    *,
    folder: str,
) -> ComponentFiles:
    side_files = tuple(_at(folder, file) for file in SIDE_FILES[classes.kind] if file in files)
    if classes.kind != "model":
        _require_config(name, classes.kind, files, where)
        return ComponentFiles(name, classes, class_name, side_files, folder=folder)
    if CONFIG_OF_MODEL not in files:
        raise MissingFiles(f"{where} lacks {_at(folder, CONFIG_OF_MODEL)}.")
    stem = LIBRARIES[classes.library]
    for variant in wanted:
        weights, index = _weights(files, stem, variant)
        if weights:
            return ComponentFiles(
                name,
                classes,
                class_name,
                side_files,
                tuple(_at(folder, file) for file in weights),
                index and _at(folder, index),
                variant,
                folder,
            )
    raise _no_weights(name, folder, stem, files, wanted, where)


def _require_config(name: str, kind: str, files: list[str], where: str) -> None:
    choices = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}] if kind == "tokenizer" else [set(SIDE_FILES[kind])]
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
