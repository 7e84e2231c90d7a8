"""A LoRA's file -> LoraWeights for one kind of model: every tensor has its layer, of its shape, and alpha / rank is folded in.

Nothing in the file counts but its tensors and what :mod:`.lora_metadata` reads.
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
    """Reads a file for the model whose layers ``table`` names.

    Args:
        table: see :func:`.lora_names.places`.
        modules: component -> module.
        title: what messages call the file.
        model: what messages call the model.

    Raises:
        RelayError: the file is damaged, no LoRA, of a kind that can't be loaded or for another model; a tensor does not
            fit its layer or holds values that are not numbers.
    """
    import torch
    from safetensors import safe_open

    where = f"lora: {title}"
    header = read_header(path, where)
    names = [key for key in header.shapes if not key.startswith(BUNDLED)]
    if other := other_format(names):
        raise RelayError(f"{where} is {other.what}, which Load LoRA (Diffusers) can't load. {other.instead}")
    kind = made_for(header.shapes)
    if kind == own_kind(modules):  # then it is something else that does not fit
        kind = ""
    keys = _by_layer(names, where, kind)
    found = {name: place_of(name, table) for name in keys}
    strangers = [name for name, place in found.items() if place is None]
    made = f"is made for {kind} and " if kind else ""
    if strangers:
        raise RelayError(
            f"{where} {made}does not fit {model}: {len(strangers)} of its {len(keys)} layers are not there, such as "
            f"{shown(strangers[0])}. {FOR_THIS_KIND}"
        )
    _refuse_halves(keys, where)
    metadata = Metadata(header.metadata.get(METADATA), where)
    largest: dict[str, float] = {}
    layers: dict[str, dict[str, LoraLayer]] = {}
    with (
        torch.inference_mode(False),
        safe_open(path, framework="pt") as file,
    ):  # what is made in it is of use only there
        for name, place in found.items():
            assert place is not None
            if place.layer in layers.setdefault(place.component, {}):
                raise RelayError(f"{where} holds {shown(name)} twice, under two names. Use another file of it.")
            shape = tuple(modules[place.component].get_submodule(place.layer).weight.shape)
            tensors = {role: file.get_tensor(key) for role, key in keys[name].items()}
            tensors["down"] = _unflattened(tensors["down"], shape)
            problem = _problem(tensors, shape)
            if problem.startswith("is for"):
                raise RelayError(f"{where} {made}does not fit {model}: {shown(name)} {problem}. {FOR_THIS_KIND}")
            if problem:
                raise RelayError(f"{where} can't be used: {shown(name)} {problem}.")
            scale = _scale(tensors, metadata.of(place.component), place.layer, where)
            layer = _layer(tensors, shape, scale)
            layers[place.component][place.layer] = layer
            most = max(float(tensor.abs().max()) for tensor in layer.tensors)
            if not math.isfinite(most):
                raise RelayError(
                    f"{where} can't be used: {shown(name)} has values that overflow with its alpha. {INSTEAD}"
                )
            largest[place.component] = max(most, largest.get(place.component, 0.0))
    return LoraWeights(layers, _notes(list(header.shapes), keys, metadata), largest)


def _by_layer(names: list[str], where: str, kind: str) -> dict[str, dict[str, str]]:
    """A layer's name in the file -> what its tensors are -> their keys."""
    keys: dict[str, dict[str, str]] = {}
    unknown = []
    for key in names:
        name, role = split(key)
        if role in keys.get(name, {}):
            raise RelayError(f"{where} holds {shown(name)} twice, as {shown(key)} too. Use a file with one LoRA in it.")
        if role:
            keys.setdefault(name, {})[role] = key
        else:
            unknown.append(key)
    if unknown or not keys:
        what = (
            f"{len(unknown)} of its {len(names)} tensors, such as {shown(unknown[0])}, are not a LoRA's"
            if unknown
            else "it is empty"
        )
        raise RelayError(
            f"{where} is no LoRA that can be read here: {what}.{f' It looks made for {kind}.' if kind else ''} {INSTEAD}"
        )
    return keys


def _refuse_halves(keys: Mapping[str, Mapping[str, str]], where: str) -> None:
    halves = [name for name, tensors in keys.items() if not {"down", "up"} <= tensors.keys()]
    if halves:
        lacks = "up" if "down" in keys[halves[0]] else "down"
        raise RelayError(
            f"{where} has no {lacks} weights for {len(halves)} of its {len(keys)} layers, such as {shown(halves[0])}. It was saved in "
            "part: use another file of it."
        )


def _problem(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> str:
    """What keeps the tensors from being added to a layer whose weight has ``shape``; empty: nothing does."""
    down, up, mid = tensors["down"], tensors["up"], tensors.get("mid")
    for role, tensor in tensors.items():
        if not tensor.is_floating_point() and role != "alpha":
            return f"holds {role} weights of {str(tensor.dtype).removeprefix('torch.')}, which is no precision that a LoRA has"
        if not tensor.float().isfinite().all():
            return f"holds values that are not numbers (NaN or infinite) in its {role} weights: the training of this LoRA went wrong"
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        return f"has {tensors['alpha'].numel()} alphas, and one is expected"
    if min(down.ndim, up.ndim) < 2 or 0 in (*down.shape, *up.shape):
        return f"has weights of shapes {list(down.shape)} and {list(up.shape)}"
    inner = (up.shape[1], down.shape[0]) if mid is None else (up.shape[1], mid.shape[0], *mid.shape[1:2], down.shape[0])
    if len(set(inner)) != 1:
        return f"has ranks that do not agree: {' and '.join(str(rank) for rank in dict.fromkeys(inner))}"
    if mid is not None and (mid.ndim != 4 or len(shape) != 4 or tuple(mid.shape[2:]) != shape[2:]):
        return f"is for another layer than one of {list(shape)}"
    sides = up.shape[0], down.shape[1]
    kernel = tuple(down.shape[2:]) if mid is None else shape[2:]
    fits = kernel == shape[2:] or (set(kernel) | set(shape[2:]) <= {1})
    if sides != shape[:2] or not fits or set(up.shape[2:]) - {1}:
        return f"is for a layer of {[*sides, *kernel]}, and the model's is {list(shape)}"
    return _lengths_problem(tensors, shape)


def _lengths_problem(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> str:
    """The same for DoRA's lengths: [out, 1, ...], or in PEFT [out] and [1, out, 1, 1]. LyCORIS can write [1, in, ...]."""
    lycoris, peft = tensors.get("dora_scale"), tensors.get("magnitude")
    if lycoris is not None and peft is not None:
        return "has the magnitude vector of a DoRA twice"
    lengths = peft if lycoris is None else lycoris
    if lengths is None:
        return ""
    of_inputs = lengths.ndim > 1 and lengths.shape[0] == 1 and lengths.numel() == lengths.shape[1] == shape[1]
    in_peft = peft is not None and len(shape) > 2  # [1, out, 1, 1]
    if of_inputs and shape[0] != 1 and not (in_peft and shape[0] == shape[1]):
        return "is a DoRA whose lengths are those of the inputs and not of the outputs, which can't be loaded here"
    if lengths.numel() != shape[0]:
        return f"has a DoRA magnitude vector of {lengths.numel()} values, and the layer has {shape[0]} outputs"
    return ""


def _unflattened(down: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Some programs save a convolution's as one matrix, [rank, in * height * width]."""
    is_flat = len(shape) > 2 and down.ndim == 2 and down.shape[1] == math.prod(shape[1:])
    return down.reshape(down.shape[0], *shape[1:]) if is_flat else down


def _scale(tensors: Mapping[str, torch.Tensor], settings: AdapterSettings | None, layer: str, where: str) -> float:
    """alpha / rank. With neither an alpha nor metadata, alpha is the rank."""
    rank = tensors["down"].shape[0]
    own = float(tensors["alpha"]) / rank if "alpha" in tensors else None
    if settings is None:
        return 1.0 if own is None else own
    said = settings.scale(layer, rank)
    settings.check_dora(layer, not tensors.keys().isdisjoint(("magnitude", "dora_scale")))
    if own is not None and not math.isclose(own, said, rel_tol=1e-3):  # an alpha may be saved in half precision
        raise RelayError(
            f"{where} contradicts itself: by its alpha {shown(layer)} has strength {own:g}, and by its metadata {said:g}. Use another copy of it."
        )
    return said


def _layer(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], scale: float) -> LoraLayer:
    import torch

    down, up = tensors["down"], tensors["up"]
    dtype = down.dtype if down.dtype.itemsize > 1 else torch.float32  # 8 bits are for storage
    rank = down.shape[0]
    if "mid" in tensors:
        outer = down.float().reshape(rank, -1)
        down = torch.einsum("mrij,rc->mcij", tensors["mid"].float(), outer)
    ends = (1,) * (len(shape) - 2)
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    up = up.float() * scale
    if float(up.abs().max()) > torch.finfo(dtype).max:  # alpha makes more of them than the file's type holds
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
            f"The LoRA brings embeddings of its own ({shown(', '.join(words))}), which are not loaded: use their files with Load Textual Inversion."
        )
    from_peft = any("base_model.model." in name for name in keys)
    if from_peft and not metadata and not any("alpha" in tensors for tensors in keys.values()):
        notes.append(
            "The LoRA was saved by PEFT, which writes alpha into another file: it is taken to be the rank. Set strength to alpha / rank if that is not so."
        )
    if metadata.trained_too:
        notes.append(
            f"The LoRA's metadata say that {' and '.join(metadata.trained_too)} of the model were trained too. They are not in the file: the "
            "picture is without them."
        )
    return tuple(notes)
