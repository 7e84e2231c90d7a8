"""Reads a LoRA file as LoraWeights for one kind of model: each tensor fits its layer, and alpha / rank is multiplied in.

Only the tensors and the entries that :mod:`.lora_metadata` reads are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, shown
from ..files.safetensors import read_header
from ..model.adapters import LoraLayer, LoraWeights
from .lora_formats import INSTEAD, made_for, other_format, own_kind
from .lora_metadata import METADATA, AdapterSettings, Metadata
from .lora_names import Place, place_of, split

if TYPE_CHECKING:
    import torch

BUNDLED = "bundle_emb."
FOR_THIS_KIND = "Use a LoRA that was trained for this kind of model."


def read_lora(
    path: Path, table: Mapping[str, Place], modules: Mapping[str, Any], *, title: str, model: str
) -> LoraWeights:
    """Reads a LoRA file for the model with the layers in ``table``.

    Args:
        table: see :func:`.lora_names.places`.
        modules: component -> module.
        title: the file's name for messages.
        model: the model's name for messages.

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
    kind = made_for(header.shapes)
    if kind == own_kind(modules):  # the kind is right, so it can't be the reason if something does not fit
        kind = ""
    keys = _by_layer(names, where, kind)
    found = {name: place_of(name, table) for name in keys}
    unknown = [name for name, place in found.items() if place is None]
    made_for_kind = f"was made for {kind} and " if kind else ""
    if unknown:
        raise RelayError(
            f"{where} {made_for_kind}does not fit {model}, which lacks {len(unknown)} of its {len(keys)} layers, such as "
            f"{shown(unknown[0])}. {FOR_THIS_KIND}"
        )
    _refuse_incomplete(keys, where)
    metadata = Metadata(header.metadata.get(METADATA), where)
    largest: dict[str, float] = {}
    layers: dict[str, dict[str, LoraLayer]] = {}
    # tensors that are created in inference mode can't be used outside it
    with torch.inference_mode(False), safe_open(path, framework="pt") as file:
        for name, place in found.items():
            assert place is not None
            if place.layer in layers.setdefault(place.component, {}):
                raise RelayError(
                    f"{where} has the layer {shown(name)} twice, under two names. Use another file of this LoRA."
                )
            shape = tuple(modules[place.component].get_submodule(place.layer).weight.shape)
            tensors = {role: file.get_tensor(key) for role, key in keys[name].items()}
            tensors["down"] = _unflattened(tensors["down"], shape)
            problem = _problem(tensors, shape)
            if problem.startswith("is for"):
                raise RelayError(
                    f"{where} {made_for_kind}does not fit {model}: {shown(name)} {problem}. {FOR_THIS_KIND}"
                )
            if problem:
                raise RelayError(f"{where} can't be used: {shown(name)} {problem}.")
            scale = _scale(tensors, metadata.of(place.component), place.layer, where)
            layer = _layer(tensors, shape, scale)
            layers[place.component][place.layer] = layer
            most = max(float(tensor.abs().max()) for tensor in layer.tensors)
            if not math.isfinite(most):
                raise RelayError(
                    f"{where} can't be used: the values of {shown(name)} overflow when multiplied by its alpha. {INSTEAD}"
                )
            largest[place.component] = max(most, largest.get(place.component, 0.0))
    return LoraWeights(layers, _notes(list(header.shapes), keys, metadata), largest)


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


def _refuse_incomplete(keys: Mapping[str, Mapping[str, str]], where: str) -> None:
    incomplete = [name for name, tensors in keys.items() if not {"down", "up"} <= tensors.keys()]
    if incomplete:
        lacks = "up" if "down" in keys[incomplete[0]] else "down"
        raise RelayError(
            f"{where} has no {lacks} weights for {len(incomplete)} of its {len(keys)} layers, such as {shown(incomplete[0])}. The file is "
            "incomplete: use another file of this LoRA."
        )


def _problem(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> str:
    """Why the tensors can't be added to a layer whose weight has ``shape``; empty if they can."""
    down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
    for role, tensor in tensors.items():
        if not tensor.is_floating_point() and role != "alpha":
            return f"has {role} weights of type {str(tensor.dtype).removeprefix('torch.')}, but LoRA weights must be floats"
        if not tensor.float().isfinite().all():
            return f"has NaN or infinite values in its {role} weights: the training of this LoRA went wrong"
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        return f"has {tensors['alpha'].numel()} alphas instead of one"
    if min(down.ndim, up.ndim) < 2 or 0 in (*down.shape, *up.shape):
        return f"has weights of the wrong shapes {list(down.shape)} and {list(up.shape)}"
    inner = (up.shape[1], down.shape[0]) if mid is None else (up.shape[1], mid.shape[0], *mid.shape[1:2], down.shape[0])
    if len(set(inner)) != 1:
        return f"has different ranks: {' and '.join(str(rank) for rank in dict.fromkeys(inner))}"
    if mid is not None and (mid.ndim != 4 or len(shape) != 4 or tuple(mid.shape[2:]) != shape[2:]):
        return f"is not for a layer of shape {list(shape)}"
    sides = up.shape[0], down.shape[1]
    kernel = tuple(down.shape[2:]) if mid is None else shape[2:]
    fits = kernel == shape[2:] or (set(kernel) | set(shape[2:]) <= {1})
    if sides != shape[:2] or not fits or set(up.shape[2:]) - {1}:
        return f"is for a layer of shape {[*sides, *kernel]}, but the model's has {list(shape)}"
    return _lengths_problem(tensors, shape)


def _lengths_problem(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> str:
    """The same for DoRA's magnitude vector: [out, 1, ...], or in PEFT [out] or [1, out, 1, 1]. LyCORIS can write [1, in, ...]."""
    lycoris, peft = tensors.get("dora_scale"), tensors.get("magnitude")
    if lycoris is not None and peft is not None:
        return "has two DoRA magnitude vectors"
    lengths = peft if lycoris is None else lycoris
    if lengths is None:
        return ""
    of_inputs = lengths.ndim > 1 and lengths.shape[0] == 1 and lengths.numel() == lengths.shape[1] == shape[1]
    in_peft = peft is not None and len(shape) > 2  # [1, out, 1, 1]
    if of_inputs and shape[0] != 1 and not (in_peft and shape[0] == shape[1]):
        return "is a DoRA with magnitudes for the inputs instead of the outputs, which can't be loaded here"
    if lengths.numel() != shape[0]:
        return f"has a DoRA magnitude vector with {lengths.numel()} values, but the layer has {shape[0]} outputs"
    return ""


def _unflattened(down: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The down weights in the shape of a convolution's. Some programs save them as a matrix, [rank, in * height * width]."""
    is_flat = len(shape) > 2 and down.ndim == 2 and down.shape[1] == math.prod(shape[1:])
    return down.reshape(down.shape[0], *shape[1:]) if is_flat else down


def _scale(tensors: Mapping[str, torch.Tensor], settings: AdapterSettings | None, layer: str, where: str) -> float:
    """alpha / rank. Without an alpha and without metadata, alpha is the rank."""
    rank = tensors["down"].shape[0]
    from_alpha = float(tensors["alpha"]) / rank if "alpha" in tensors else None
    if settings is None:
        return 1.0 if from_alpha is None else from_alpha
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


def _layer(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], scale: float) -> LoraLayer:
    import torch

    down, up = tensors["down"], tensors["up"]
    dtype = down.dtype if down.dtype.itemsize > 1 else torch.float32  # 8-bit floats are only for storage
    rank = down.shape[0]
    if "mid" in tensors:
        outer = down.float().reshape(rank, -1)
        down = torch.einsum("mrij,rc->mcij", tensors["mid"].float(), outer)
    ends = (1,) * (len(shape) - 2)
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    up = up.float() * scale
    if float(up.abs().max()) > torch.finfo(dtype).max:  # multiplied by alpha, they overflow in the file's dtype
        dtype = torch.float32
    return LoraLayer(
        down.reshape(rank, shape[1], *shape[2:]).to(dtype).contiguous(),
        up.reshape(shape[0], rank, *ends).to(dtype).contiguous(),
        None
        if magnitude is None
        else magnitude.float().reshape((1, shape[0], *ends) if ends else (shape[0],)).contiguous(),
    )


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
