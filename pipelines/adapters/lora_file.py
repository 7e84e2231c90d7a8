"""Reads a LoRA file as LoraWeights for one kind of model: each tensor fits its layer, and alpha / rank is multiplied in.

Only the tensors and the entries that :mod:`.lora_metadata` reads are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, shown
from ..files.safetensors import read_header
from ..model.adapters import LoraLayer, LoraWeights, WeightChange
from .lora_formats import INSTEAD, made_for, other_format, own_kind
from .lora_kinds import LOW_RANK, Kind, Lacking, kind_of
from .lora_layers import Change, LayerError, OtherShape, Target, read_layer
from .lora_metadata import METADATA, AdapterSettings, Metadata
from .lora_names import Place, is_of_encoder, place_of, split
from .weight_changes import Difference

if TYPE_CHECKING:
    import torch

BUNDLED = "bundle_emb."
FOR_THIS_KIND = "Use a LoRA that was trained for this kind of model."
INPUT_LAYER = "conv_in"
"""The layer of a UNet that reads the latents. That of an inpainting model also reads a mask and a picture."""


def read_lora(
    path: Path,
    table: Mapping[str, Place],
    modules: Mapping[str, Any],
    *,
    title: str,
    model: str,
    has_encoders: bool = True,
) -> LoraWeights:
    """Reads a LoRA file for the model with the layers in ``table``.

    Args:
        table: see :func:`.lora_names.places`.
        modules: component -> module.
        title: the file's name for messages.
        model: the model's name for messages.
        has_encoders: whether the model has text encoders. If not, the file's layers for them are skipped, with a note.

    Raises:
        RelayError: the file is damaged, not a LoRA, a kind of LoRA that can't be loaded, or for another model; or a tensor
            does not fit its layer, or has NaN or infinite values.
    """
    import torch
    from safetensors import safe_open

    where = f"lora: {title}"
    header = read_header(path, where)
    names = [key for key in header.shapes if not key.startswith(BUNDLED)]
    if other := other_format(names):
        raise RelayError(f"{where} is {other.what}, which Load LoRA (Diffusers) can't load. {other.instead}")
    made_for_kind = made_for(header.shapes)
    if made_for_kind == own_kind(modules):  # the kind is right, so it can't be the reason if something does not fit
        made_for_kind = ""
    keys = _by_layer(names, where, made_for_kind)
    skipped = [] if has_encoders else [name for name in keys if is_of_encoder(name)]
    if len(skipped) == len(keys):
        raise RelayError(
            f"{where} only changes text encoders, and {model} has none. Load it into the model that encodes the prompt."
        )
    keys = {name: roles for name, roles in keys.items() if name not in skipped}
    found = {name: place_of(name, table) for name in keys}
    unknown = [name for name, place in found.items() if place is None]
    does_not_fit = f"{where} {f'was made for {made_for_kind} and ' if made_for_kind else ''}does not fit {model}"
    if unknown:
        raise RelayError(
            f"{does_not_fit}, which lacks {len(unknown)} of its {len(keys)} layers, such as {shown(unknown[0])}. {FOR_THIS_KIND}"
        )
    _refuse_twice(found, where)
    kinds = _kinds(keys, where)
    metadata = Metadata(header.metadata.get(METADATA), where)
    contents = _Contents(where)
    # tensors that are created in inference mode can't be used outside it
    with torch.inference_mode(False), safe_open(path, framework="pt") as file:
        for name, place in found.items():
            assert place is not None
            tensors = {role: file.get_tensor(key) for role, key in keys[name].items()}
            scale = partial(_scale, tensors, kinds[name], metadata.of(place.component), place.layer, where)
            layer = modules[place.component].get_submodule(place.layer)
            target = Target(tuple(layer.weight.shape), None if layer.bias is None else layer.bias.numel())
            try:
                contents.add(name, place, read_layer(kinds[name], tensors, target, scale))
            except OtherShape as error:
                if not _reads_other_channels(place, error.wanted, target.shape):
                    raise RelayError(f"{does_not_fit}: {shown(name)} {error}. {FOR_THIS_KIND}") from None
                contents.skip(error.wanted[1], target.shape[1])
            except LayerError as error:
                raise RelayError(f"{where} can't be used: {shown(name)} {error}.") from None
    if not contents.layers and not contents.changes:
        raise RelayError(
            f"{does_not_fit}: its only layer, {shown(next(iter(found)))}, reads other channels. {FOR_THIS_KIND}"
        )
    if skipped:
        contents.skipped.append(
            f"{model} has no text encoder, so the {len(skipped)} layers of the LoRA for text encoders are not used. To use them, load the LoRA "
            "into the model that encodes the prompt too."
        )
    notes = (*contents.skipped, *_notes(list(header.shapes), keys, metadata))
    return LoraWeights(contents.layers, contents.changes, notes, contents.largest)


class _Contents:
    """Collects the changes of a file's layers."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.layers: dict[str, dict[str, LoraLayer]] = {}
        self.changes: dict[str, dict[str, WeightChange]] = {}
        self.largest: dict[str, float] = {}
        self.skipped: list[str] = []

    def add(self, name: str, place: Place, change: Change) -> None:
        """
        Args:
            name: the layer's name in the file.
        """
        added: list[torch.Tensor] = []
        if change.low_rank is not None:
            self.layers.setdefault(place.component, {})[place.layer] = change.low_rank
            added += change.low_rank.tensors
        for parameter, one in (("weight", change.weight), ("bias", change.bias)):
            if one is not None:
                self.changes.setdefault(place.component, {})[f"{place.layer}.{parameter}"] = one
                added += one.tensors if isinstance(one, Difference) else []
        for tensor in added:
            most = float(tensor.float().abs().max())
            if not math.isfinite(most):
                raise RelayError(
                    f"{self._where} can't be used: the values of {shown(name)} overflow when multiplied by its alpha. {INSTEAD}"
                )
            self.largest[place.component] = max(most, self.largest.get(place.component, 0.0))

    def skip(self, own: int, models: int) -> None:
        """Notes that the input layer is skipped. ``own``, ``models``: the channels that the LoRA's and the model's layer reads."""
        self.skipped.append(
            f"The LoRA's {INPUT_LAYER} is for {own} channels and the model's reads {models}, so this layer of the LoRA is not used."
        )


def _reads_other_channels(place: Place, wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether the layer is the UNet's input layer and differs from the file's only in the number of channels that it reads."""
    same = len(wanted) == len(shape) and wanted[0] == shape[0] and wanted[2:] == shape[2:]
    return place.layer == INPUT_LAYER and same


def _by_layer(names: list[str], where: str, kind: str) -> dict[str, dict[str, str]]:
    """Name of a layer in the file -> role of a tensor in it -> key of the tensor."""
    keys: dict[str, dict[str, str]] = {}
    unknown = []
    for key in names:
        name, role = split(key)
        if role in keys.get(name, {}):
            raise RelayError(f"{where} has {shown(name)} twice, also as {shown(key)}. Use a file with only one LoRA.")
        if role:
            keys.setdefault(name, {})[role] = key
        else:
            unknown.append(key)
    if unknown or not keys:
        what = (
            f"{len(unknown)} of its {len(names)} tensors, such as {shown(unknown[0])}, are not LoRA weights"
            if unknown
            else "it is empty"
        )
        raise RelayError(
            f"{where} is not a LoRA that can be read here: {what}.{f' It seems to be for {kind}.' if kind else ''} {INSTEAD}"
        )
    return keys


def _refuse_twice(found: Mapping[str, Place | None], where: str) -> None:
    seen: set[Place | None] = set()
    for name, place in found.items():
        if place in seen:
            raise RelayError(
                f"{where} has the layer {shown(name)} twice, under two names. Use another file of this LoRA."
            )
        seen.add(place)


def _kinds(keys: Mapping[str, Mapping[str, str]], where: str) -> dict[str, Kind]:
    """Name of each layer in the file -> its kind."""
    kinds: dict[str, Kind] = {}
    incomplete: list[tuple[str, str]] = []
    for name, tensors in keys.items():
        try:
            kinds[name] = kind_of(tensors)
        except Lacking as error:
            incomplete.append((name, str(error)))
        except ValueError as error:
            raise RelayError(f"{where} can't be used: {shown(name)} {error}. Use another file of this LoRA.") from None
    if incomplete:
        name, lacking = incomplete[0]
        raise RelayError(
            f"{where} has no {lacking} weights for {len(incomplete)} of its {len(keys)} layers, such as {shown(name)}. The file is "
            "incomplete: use another file of this LoRA."
        )
    return kinds


def _scale(
    tensors: Mapping[str, torch.Tensor],
    kind: Kind,
    settings: AdapterSettings | None,
    layer: str,
    where: str,
    rank: int,
) -> float:
    """alpha / rank. Without an alpha and without metadata, alpha is the rank."""
    from_alpha = float(tensors["alpha"]) / rank if "alpha" in tensors else None
    if settings is None:
        return 1.0 if from_alpha is None else from_alpha
    if kind is not LOW_RANK:
        raise RelayError(
            f"{where} contradicts itself: by its metadata it is a LoRA, but {shown(layer)} is a {kind.name}. Use another copy of it."
        )
    declared = settings.scale(layer, rank)
    settings.check_dora(layer, not tensors.keys().isdisjoint(("magnitude", "dora_scale")))
    if from_alpha is not None and not math.isclose(
        from_alpha, declared, rel_tol=1e-3
    ):  # half precision may round alpha
        raise RelayError(
            f"{where} contradicts itself: by its alpha, {shown(layer)} has strength {from_alpha:g}, but by its metadata {declared:g}. Use another "
            "copy of this LoRA."
        )
    return declared


def _notes(names: list[str], keys: Mapping[str, Mapping[str, str]], metadata: Metadata) -> tuple[str, ...]:
    notes = []
    words = sorted({name.removeprefix(BUNDLED).split(".")[0] for name in names if name.startswith(BUNDLED)})
    if words:
        notes.append(
            f"The LoRA contains embeddings ({shown(', '.join(words))}), which are not loaded. Load their files with Load Textual Inversion."
        )
    from_peft = any("base_model.model." in name for name in keys)
    if from_peft and not metadata and not any("alpha" in tensors for tensors in keys.values()):
        notes.append(
            "The LoRA was saved by PEFT, which writes alpha into a separate file. alpha is assumed to be the rank: if it is not, set strength to alpha / rank."
        )
    if metadata.trained_too:
        notes.append(
            f"By the LoRA's metadata, {' and '.join(metadata.trained_too)} of the model were trained too. The file does not contain them, so "
            "the image is made without them."
        )
    return tuple(notes)
