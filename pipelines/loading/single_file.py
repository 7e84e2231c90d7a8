"""Loads a checkpoint file in the original layout as PipelineComponents, with the pack's own configs and without network access.

diffusers converts each component: ``from_single_file`` gets the component's tensors and a folder of configs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..files.registry import REGISTRY, content_digest
from ..files.safetensors import Header
from ..model.components import PipelineComponents
from ..model.family import ModelFamily
from ..model.family_lookup import recognise
from .checkpoint_keys import Rename, prefixed
from .checkpoint_kinds import layout_of
from .checkpoint_layout import CONFIGS, CheckpointLayout, Vocabulary
from .checkpoint_place import placed
from .file_part import Part, check_file, check_floats, load_part, read_parts_ahead
from .folder import read_model_index
from .prediction import scheduler_of

if TYPE_CHECKING:
    import torch


def load_checkpoint(
    path: Path,
    *,
    dtype: torch.dtype,
    vocabularies: Mapping[str, Path],
    source: str | None = None,
    monitor: Monitor,
    configs: Path = CONFIGS,
) -> PipelineComponents:
    """Loads a file of one of the kinds in :mod:`.checkpoint_table`.

    The header tells the kind. Only the tensors of the components are read, and they are cast as they are read. Modules are
    in ``dtype``, on the CPU, in evaluation mode, without gradients, and are shared like those of a folder. The model of a
    file without a VAE or without text encoders lacks them, and the monitor is told.

    Args:
        vocabularies: the folders of the vocabularies, which checkpoints don't contain, by :attr:`.Vocabulary.name`.
        source: the model's name in messages and the log; the file's name if None.
        configs: a folder like :data:`CONFIGS`.

    Raises:
        RelayError: it is a pickle, damaged, or another kind of file, which the message names.
    """
    where = source or path.name
    whole_header = check_file(path, where)
    file = placed(whole_header)
    header = file.header
    layout = layout_of(header, where, configs)
    folder = configs / layout.configs
    model_index = read_model_index(folder, where)
    family = recognise(model_index, where)
    kinds = {name: classes.kind for name, classes in family.components.items()}
    absent = _absent(family, layout, header)
    stored = [name for name in kinds if kinds[name] == "model" and name not in absent]
    parts = {
        name: _part(name, model_index[name], folder / name, layout, header, where)
        for name in sorted(stored, key=lambda name: (name == family.denoiser, name))
    }
    parts = {name: replace(part, rename=_of_file(part.rename, file.renamed)) for name, part in parts.items()}
    for part in parts.values():
        check_floats(whole_header, part, where)
    read_parts_ahead(path, list(parts.values()), dtype)
    modules: dict[str, Any] = {}
    for name in sorted(family.components.keys() - absent):
        monitor.check()
        if kinds[name] == "scheduler":
            changes = layout.scheduler_changes(path, header, file.renamed)
            modules[name] = scheduler_of(folder, model_index[name][1], changes)
        elif kinds[name] == "tokenizer":
            modules[name] = _tokenizer(layout.vocabularies[name], vocabularies, folder / name, where)
        else:
            modules[name] = load_part(path, parts[name], dtype, where)
    config = {name: model_index[name] for name in family.config_flags if name in model_index}
    if family.autoencoder in absent:
        monitor.say(f"{where} contains no VAE. Give the model one with Set VAE.")
    if absent.intersection(family.text_encoders):
        monitor.say(
            f"{where} contains no text encoder. Encode prompts with a complete {layout.title} model, and connect them to this one."
        )
    return PipelineComponents(family=family, source=where, modules=modules, dtype=dtype, config=config)


def _absent(family: ModelFamily, layout: CheckpointLayout, header: Header) -> set[str]:
    """The autoencoder if the file has none; all text encoders and tokenizers if it has no text encoder. Every other part must be there."""

    def has(name: str) -> bool:
        return layout.components[name].place_in(header) is not None

    absent = {name for name in (family.autoencoder,) if name is not None and not (layout.has_own_vae or has(name))}
    if not any(map(has, family.text_encoders)):
        absent |= {*family.text_encoders, *layout.vocabularies}
    return absent


def _of_file(rename: Rename, renamed: Rename) -> Rename:
    """``rename``, for the keys that the file has: ``renamed`` maps them to those of a complete checkpoint."""

    def rename_key(key: str) -> str | None:
        found = renamed(key)
        return None if found is None else rename(found)

    return rename_key


def _part(
    name: str, declared: tuple[str, str], config: Path, layout: CheckpointLayout, header: Header, where: str
) -> Part:
    stored = layout.components[name]
    place = stored.place_in(header)
    if place is None:
        raise RelayError(f"{where} has no {name}, which a model of its kind needs. Use the complete checkpoint.")
    part = Part(name, *declared, config, prefixed(place, to=stored.places[0]), {})
    return stored.complete(part, place, header, where)


def _tokenizer(vocabulary: Vocabulary, folders: Mapping[str, Path], settings: Path, where: str) -> Any:
    """The tokenizer with the settings of the kind. Other files next to the vocabulary are ignored."""
    folder = folders[vocabulary.name]
    if not all((folder / name).is_file() for name in vocabulary.files):
        raise RelayError(
            f"{where}: {vocabulary.title} ({', '.join(vocabulary.files)}) is missing from ComfyUI's folder {vocabulary.host_folder}. "
            "Repair the ComfyUI installation."
        )
    config = json.loads((settings / "tokenizer_config.json").read_text("utf-8"))
    options = {name: kind(config[name]) for name, kind in vocabulary.settings.items()}
    key = ("tokenizer", vocabulary.name, content_digest(folder, vocabulary.files), *options.values())
    return REGISTRY.get(key, lambda: vocabulary.build(folder, options))
