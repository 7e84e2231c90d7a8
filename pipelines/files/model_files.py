"""Decides from names which files of a diffusers model the pack needs, in the same way for a folder and a repo."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..base.errors import RelayError, shown
from ..model.component_classes import Classes
from ..model.family import ModelFamily
from ..model.family_lookup import is_absent
from .component_files import CONFIG_OF_MODEL, SIDE_FILES, ComponentFiles, MissingFiles

if TYPE_CHECKING:
    import torch

VARIANTS = ("auto", "fp16", "none", "bf16", "non_ema")
BESIDE_PLAIN = ("bf16", "non_ema")
"""Variants that repositories publish for some components only. The others have plain files, which are used, as in diffusers."""
LIBRARIES = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""Library of a component -> the start of the names of its weight files."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
HOW_TO_CONVERT = (
    "If you trust its author, convert it once: load it with diffusers, then call "
    "`pipeline.save_pretrained(folder, safe_serialization=True)`. Or use the hub's safetensors conversion."
)


def plan_files(
    model_index: Mapping[str, object],
    family: ModelFamily,
    names: Collection[str],
    *,
    variant: str,
    dtype: torch.dtype,
    where: str,
) -> tuple[ComponentFiles, ...]:
    """The files of each component that ``family`` needs.

    Args:
        model_index: the parsed model_index.json.
        names: all files of the model, relative to it, with ``/``.
        variant: ``"fp16"`` for fp16 files, ``"none"`` for plain files. ``"bf16"`` and ``"non_ema"`` for such files, and plain ones
            for components without them. ``"auto"`` prefers fp16 files if ``dtype`` has at most two bytes, otherwise plain files;
            for a component with only one of them, or only bf16 files, it takes what there is.
        dtype: the dtype in which the weights will be loaded.
        where: the repo or folder, for messages.

    Raises:
        MissingFiles: a file is missing.
        RelayError: there are only pickles, a component has a class that it may not have, or the variant is unknown.
    """
    variants = _variants(variant, dtype, where)
    folders = _by_folder(names)
    absent = {name for name in family.optional if is_absent(model_index.get(name))}
    declared = {
        name: _declaration(model_index, name, family, where) for name in sorted(family.components) if name not in absent
    }
    _refuse_pickles(
        {name: folders.get(name, []) for name in declared if family.components[name].kind == "model"}, where
    )
    _require_some(variant, declared, folders, family, where)
    return tuple(
        _plan_component(name, family.components[name], class_name, folders.get(name, []), variants, where, folder=name)
        for name, class_name in declared.items()
    )


def _require_some(
    variant: str, names: Collection[str], folders: Mapping[str, list[str]], family: ModelFamily, where: str
) -> None:
    """Raises RelayError if no component has files of a variant that needs not be there for all."""
    models = [name for name in names if family.components[name].kind == "model"]
    stems = {name: LIBRARIES[family.components[name].library] for name in models}
    if variant in BESIDE_PLAIN and not any(
        _weights(folders.get(name, []), stem, variant)[0] for name, stem in stems.items()
    ):
        found = [published_variants(folders.get(name, []), stem) for name, stem in stems.items()]
        raise _no_variant(where, "it", (variant,), [one for part in found for one in part])


def plan_single_component(
    name: str, classes: Classes, names: Collection[str], *, variant: str, dtype: torch.dtype, where: str
) -> ComponentFiles:
    """The files of a diffusers component that is a separate model, with config.json and weights at its top level.

    Args:
        name: its name for messages, e.g. ``"controlnet"``.
        classes: the one class that it may have.
        names: all files of the model, relative to it.
        variant, dtype, where: as in :func:`plan_files`.

    Raises:
        MissingFiles, RelayError: as in :func:`plan_files`.
    """
    files = _by_folder(names).get("", [])
    (class_name,) = classes.names
    _refuse_pickles({"": files}, where)
    variants = _variants(variant, dtype, where)[:1] if variant in BESIDE_PLAIN else _variants(variant, dtype, where)
    return _plan_component(name, classes, class_name, files, variants, where, folder="")


def _variants(variant: str, dtype: torch.dtype, where: str) -> tuple[str | None, ...]:
    """The variants to look for, in order; None stands for the plain files."""
    if variant not in VARIANTS:
        raise RelayError(f"{where}: there is no variant {variant!r}. Choose one of: {', '.join(VARIANTS)}.")
    if variant == "auto":
        return ("fp16", None, "bf16") if dtype.itemsize <= 2 else (None, "fp16", "bf16")
    if variant in BESIDE_PLAIN:
        return (variant, None)
    return (None,) if variant == "none" else (variant,)


def _at(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _by_folder(names: Collection[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, []).append(file)
    return folders


def _declaration(model_index: Mapping[str, object], name: str, family: ModelFamily, where: str) -> str:
    """The class of a component, which must be one of those in the family's table."""
    entry = model_index.get(name)
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        raise RelayError(
            f"{where}: model_index.json has no {name} (its entry is {short(entry)}), but the model needs one. Use a complete copy of the model."
        )
    classes = family.components[name]
    class_name = classes.named(*entry)
    if class_name is None:
        raise RelayError(
            f"{where}: its {name} is declared as {short(entry[1])} of {short(entry[0])}, but the {name} of a {family.title} model can only be "
            f"{', '.join(classes.names)} of {classes.library}. Use a copy of the model with one of these."
        )
    return class_name


def short(value: object) -> str:
    """A value from a model's file for a message, cut to 80 characters."""
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
            f"{where} only has weights as pickles ({', '.join(pickled)}). A pickle can run any code when it is read, "
            f"so Diffusers Relay only loads safetensors. {HOW_TO_CONVERT}"
        )


def _plan_component(
    name: str,
    classes: Classes,
    class_name: str,
    files: list[str],
    variants: tuple[str | None, ...],
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
    for variant in variants:
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
    raise _no_weights(name, folder, stem, files, variants, where)


def _require_config(name: str, kind: str, files: list[str], where: str) -> None:
    choices = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}] if kind == "tokenizer" else [set(SIDE_FILES[kind])]
    if not any(choice <= set(files) for choice in choices):
        raise MissingFiles(f"{where} lacks {name}/{', '.join(sorted(choices[0]))}.")


def _weights(files: list[str], stem: str, variant: str | None) -> tuple[list[str], str | None]:
    """The weight files of one variant, and the index if they are shards. Empty if a shard or the index is missing."""
    single = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    if single in files:
        return [single], None
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    if index not in files:
        return [], None
    # diffusers and transformers write `stem.fp16-00001-of-00002.safetensors`, older versions `stem-00001-of-00002.fp16.safetensors`
    number = r"-(\d{5})-of-(\d{5})"
    named = rf"(?:\.{variant}{number}|{number}\.{variant})" if variant else number
    pattern = re.compile(rf"{re.escape(stem)}{named}\.safetensors")
    shards = [(file, match) for file in files if (match := pattern.fullmatch(file))]
    totals = {int(next(group for group in reversed(match.groups()) if group)) for _, match in shards}
    if totals != {len(shards)}:
        return [], None
    return [file for file, _ in shards], index


def published_variants(files: Collection[str], stem: str) -> list[str | None]:
    """The variants of a component's weight files, sorted; None, which stands for the plain files, is last."""
    patterns = (rf"{stem}\.([^.-]+)\.safetensors", rf"{stem}\.safetensors\.index\.([^.]+)\.json")
    named = {match[1] for file in files for pattern in patterns if (match := re.fullmatch(pattern, file))}
    plain = {f"{stem}.safetensors", f"{stem}.safetensors.index.json"}.intersection(files)
    return [*sorted(named), *([None] if plain else [])]


def _no_variant(where: str, name: str, missing: Collection[str | None], found: Collection[str | None]) -> RelayError:
    """The error for a variant that a model or one of its components, ``name``, does not have, but others."""
    listed = sorted(set(found), key=lambda one: (one is None, one or ""))
    choices = ["auto"] if {None, "fp16", "bf16"}.intersection(listed) else []
    choices += [one or "none" for one in listed if (one or "none") in VARIANTS]
    advice = f"Set variant to {' or '.join(choices)}." if choices else "Use another copy of the model."
    has_not, has = ([shown(one or "plain") for one in group] for group in (missing, listed))
    return RelayError(f"{where}: {name} has no {' or '.join(has_not)} files, only {' and '.join(has)} ones. {advice}")


def _no_weights(
    name: str, folder: str, stem: str, files: list[str], variants: tuple[str | None, ...], where: str
) -> RelayError:
    if others := [
        one for one in published_variants(files, stem) if one not in variants and _weights(files, stem, one)[0]
    ]:
        return _no_variant(where, name, variants, others)
    looked_for = " or ".join(
        f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors" for variant in variants
    )
    present = [file for file in files if file.endswith(".safetensors")]
    it_has = f"It has {', '.join(present)}." if present else "It has no weights."
    return MissingFiles(
        f"{where} lacks {_at(folder, looked_for)}, or a complete set of its shards with their index. {it_has}"
    )
