"""Loads a checkpoint file in the original layout as PipelineComponents, with the pack's own configs and without network access.

diffusers converts each component: ``from_single_file`` gets the component's tensors and a folder of configs.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..base.monitor import Monitor
from ..files.registry import REGISTRY, content_digest
from ..files.safetensors import Header
from ..model.components import PipelineComponents
from ..model.family_lookup import recognise
from .block_layout import original_numbers
from .checkpoint_keys import (
    OPEN_CLIP,
    below,
    flat_attention,
    found_below,
    open_clip_projection,
    place_before,
    plain_keys,
    prefixed,
    text_encoder_keys,
    text_encoder_place,
    vae_keys,
    vae_place,
    without_prefix,
)
from .checkpoint_kinds import FIRST_LAYER, UNET, CheckpointKind, kind_of
from .file_part import Part, check_file, check_floats, load_part, read_parts_ahead
from .folder import read_model_index
from .prediction import prediction_of, scheduler_of

if TYPE_CHECKING:
    import torch


CONFIGS = Path(__file__).parent / "configs"
"""One folder for each kind: a diffusers model without weights and vocabularies."""


def load_checkpoint(
    path: Path,
    *,
    dtype: torch.dtype,
    tokenizer: Path,
    source: str | None = None,
    monitor: Monitor,
    configs: Path = CONFIGS,
) -> PipelineComponents:
    """Loads a Stable Diffusion 1.x, 2.x, SDXL base or refiner file, or an inpainting one (``unet.config.in_channels`` is 9).

    The header tells the kind. Only the tensors of the components are read, and they are cast as they are read. Modules are
    in ``dtype``, on the CPU, in evaluation mode, without gradients, and are shared like those of a folder.

    Args:
        tokenizer: a folder with CLIP's vocab.json and merges.txt, which checkpoints don't contain.
        source: the model's name in messages and the log; the file's name if None.
        configs: a folder like :data:`CONFIGS`.

    Raises:
        RelayError: it is a pickle, damaged, or another kind of file, which the message names.
    """
    where = source or path.name
    whole_header = check_file(path, where)
    header = plain_keys(whole_header)
    place = place_before(header, FIRST_LAYER) or ""
    header = below(header, place)
    kind = kind_of(header, where)
    folder = configs / kind.value
    model_index = read_model_index(folder, where)
    family = recognise(model_index, where)
    parts = {
        name: _part(name, model_index[name], folder / name, kind, header, where)
        for name in sorted(family.components, key=lambda name: (name == family.denoiser, name))
        if name != "scheduler" and not name.startswith("tokenizer")
    }
    parts = {name: replace(part, rename=found_below(part.rename, place)) for name, part in parts.items()}
    for part in parts.values():
        check_floats(whole_header, part, where)
    read_parts_ahead(path, list(parts.values()), dtype)
    modules: dict[str, Any] = {}
    for name in sorted(family.components):
        monitor.check()
        if name == "scheduler":
            changes = prediction_of(path, header, kind, place)
            modules[name] = scheduler_of(folder, model_index[name][1], changes)
        elif name.startswith("tokenizer"):
            modules[name] = _tokenizer(tokenizer, folder / name, where)
        else:
            modules[name] = load_part(path, parts[name], dtype, where)
    config = {name: model_index[name] for name in family.config_flags if name in model_index}
    return PipelineComponents(family=family, source=where, modules=modules, dtype=dtype, config=config)


def _part(name: str, declared: tuple[str, str], config: Path, kind: CheckpointKind, header: Header, where: str) -> Part:
    if name == "unet":
        unet_config = json.loads((config / "config.json").read_text("utf-8"))
        numbers = original_numbers(without_prefix(header, UNET), unet_config, where)
        return Part(name, *declared, config, prefixed(UNET), numbers)
    if name == "vae":
        return Part(name, *declared, config, vae_keys(vae_place(header)), {}, flat_attention)
    place = text_encoder_place(kind, name, header)
    if place is None:
        raise RelayError(f"{where} has no {name}, which a model of its kind needs. Use the complete checkpoint.")
    rename = text_encoder_keys(kind, name, place, declared[1].endswith("WithProjection"))
    if place.endswith(OPEN_CLIP):
        return Part(name, *declared, config, rename, {}, open_clip_projection, fused=True)
    return Part(name, *declared, config, rename, {})


def _tokenizer(vocabulary: Path, settings: Path, where: str) -> Any:
    """CLIP's tokenizer with the length and padding of the kind. Other files next to the vocabulary are ignored."""
    from transformers import CLIPTokenizer

    names = ["vocab.json", "merges.txt"]
    if not all((vocabulary / name).is_file() for name in names):
        raise RelayError(
            f"{where}: CLIP's vocabulary ({', '.join(names)}) is missing from ComfyUI's folder comfy/sd1_tokenizer. Repair the ComfyUI installation."
        )
    config = json.loads((settings / "tokenizer_config.json").read_text("utf-8"))
    options = {"model_max_length": int(config["model_max_length"]), "pad_token": str(config["pad_token"])}

    def load() -> Any:
        return CLIPTokenizer.from_pretrained(str(vocabulary), local_files_only=True, **options)  # nosec B615

    return REGISTRY.get(("tokenizer", content_digest(vocabulary, names), *options.values()), load)
