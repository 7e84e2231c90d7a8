"""A LoRA's file -> LoraWeights for one kind of model: every tensor has its layer, of its shape, and alpha / rank is folded in.

Nothing in the file counts but its tensors, and of its metadata alpha and its patterns, as literal names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.safetensors import read_header
from ..model.adapters import LoraLayer, LoraWeights
from .lora_formats import INSTEAD, made_for, other_format
from .lora_names import Place, place_of, split

if TYPE_CHECKING:
    import torch

BUNDLED = "bundle_emb."
METADATA = "lora_adapter_metadata"
"""Where diffusers writes an adapter's config."""
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
    if what := other_format(names):
        raise RelayError(f"{where} is {what}, which Load LoRA (Diffusers) can't load. {INSTEAD}")
    kind = made_for(header.shapes)
    keys = _by_layer(names, where, kind)
    found = {name: place_of(name, table) for name in keys}
    strangers = [name for name, place in found.items() if place is None]
    made = f"is made for {kind} and " if kind else ""
    if strangers:
        raise RelayError(
            f"{where} {made}does not fit {model}: {len(strangers)} of its {len(keys)} layers are not there, such as "
            f"{strangers[0][:80]}. {FOR_THIS_KIND}"
        )
    _refuse_halves(keys, where)
    alphas = _Alphas(header.metadata.get(METADATA), where)
    layers: dict[str, dict[str, LoraLayer]] = {}
    with (
        torch.inference_mode(False),
        safe_open(path, framework="pt") as file,
    ):  # what is made in it is of use only there
        for name, place in found.items():
            assert place is not None
            if place.layer in layers.setdefault(place.component, {}):
                raise RelayError(f"{where} holds {name[:80]} twice, under two names. Use another file of it.")
            tensors = {role: file.get_tensor(key) for role, key in keys[name].items()}
            shape = tuple(modules[place.component].get_submodule(place.layer).weight.shape)
            problem = _problem(tensors, shape)
            if problem.startswith("is for"):
                raise RelayError(f"{where} {made}does not fit {model}: {name[:80]} {problem}. {FOR_THIS_KIND}")
            if problem:
                raise RelayError(f"{where} can't be used: {name[:80]} {problem}.")
            layers[place.component][place.layer] = _layer(tensors, shape, alphas.of(place))
    alphas.check_used()
    return LoraWeights(layers, _notes(list(header.shapes), keys, alphas))


def _by_layer(names: list[str], where: str, kind: str) -> dict[str, dict[str, str]]:
    """A layer's name in the file -> what its tensors are -> their keys."""
    keys: dict[str, dict[str, str]] = {}
    unknown = []
    for key in names:
        name, role = split(key)
        if role:
            keys.setdefault(name, {})[role] = key
        else:
            unknown.append(key)
    if unknown or not keys:
        what = (
            f"{len(unknown)} of its {len(names)} tensors, such as {unknown[0][:80]}, are not a LoRA's"
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
            f"{where} has no {lacks} weights for {len(halves)} of its {len(keys)} layers, such as {halves[0][:80]}. It was saved in "
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
    magnitude = tensors.get("magnitude")
    if magnitude is not None and magnitude.numel() != shape[0]:
        return "is a DoRA whose lengths are those of the inputs and not of the outputs, which can't be loaded here"
    if (
        magnitude is not None
        and shape[0] == shape[1]
        and tuple(magnitude.shape[:2]) == (1, shape[1])
        and len(shape) == 2
    ):
        return "is a DoRA whose lengths are those of the inputs and not of the outputs, which can't be loaded here"
    return ""


def _layer(tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], alpha: tuple[float, bool] | None) -> LoraLayer:
    import torch

    down, up = tensors["down"], tensors["up"]
    dtype = down.dtype if down.dtype.itemsize > 1 else torch.float32  # 8 bits are for storage
    rank = down.shape[0]
    if "mid" in tensors:
        outer = down.float().reshape(rank, -1)
        down = torch.einsum("mrij,rc->mcij", tensors["mid"].float(), outer)
    scale = 1.0
    if "alpha" in tensors:
        scale = float(tensors["alpha"]) / rank
    elif alpha is not None:
        scale = alpha[0] / (math.sqrt(rank) if alpha[1] else rank)
    ends = (1,) * (len(shape) - 2)
    magnitude = tensors.get("magnitude")
    return LoraLayer(
        down.reshape(rank, shape[1], *shape[2:]).to(dtype).contiguous(),
        (up.float() * scale).reshape(shape[0], rank, *ends).to(dtype).contiguous(),
        None
        if magnitude is None
        else magnitude.float().reshape((1, shape[0], *ends) if ends else (shape[0],)).contiguous(),
    )


class _Alphas:
    """What an adapter's config in the metadata says of alpha: numbers, for layers by their literal names."""

    def __init__(self, text: str | None, where: str) -> None:
        self._where = where
        self._config: dict[str, Any] = {}
        self._patterns: dict[str, float] = {}
        self._used: set[str] = set()
        if text is None:
            return
        try:
            config = json.loads(text)
        except (ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise self._unreadable()
        self._config = config
        for key, value in config.items():
            if key.rpartition(".")[2] == "alpha_pattern" and value:
                if not isinstance(value, dict):
                    raise self._unreadable()
                component = key.rpartition(".")[0]
                self._patterns |= {
                    f"{component}.{name.removeprefix('^')}": self._number(one) for name, one in value.items()
                }

    def __bool__(self) -> bool:
        return bool(self._config)

    def of(self, place: Place) -> tuple[float, bool] | None:
        """(alpha, whether it is divided by the root of the rank); None: the metadata say nothing, and alpha is the rank."""
        rooted = self._config.get(f"{place.component}.use_rslora", False) is True
        layer = place.layer.removeprefix("text_model.")
        for pattern, alpha in self._patterns.items():
            component, _, name = pattern.partition(".")
            name = name.removeprefix("text_model.")
            if component == place.component and (layer == name or layer.endswith(f".{name}")):
                self._used.add(pattern)
                return alpha, rooted
        common = self._config.get(f"{place.component}.lora_alpha")
        return None if common is None else (self._number(common), rooted)

    def check_used(self) -> None:
        """
        Raises:
            RelayError: a pattern is no layer's name: it may be an expression, which is not evaluated.
        """
        if unused := set(self._patterns) - self._used:
            raise RelayError(
                f"{self._where}: alpha_pattern in its metadata names {len(unused)} layers that the file has not, such as {min(unused)[:80]}. "
                "Save the LoRA again with the names of its layers."
            )

    def _number(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise self._unreadable()
        return float(value)

    def _unreadable(self) -> RelayError:
        return RelayError(f"{self._where}: its {METADATA} can't be read. Save the LoRA again, or without metadata.")


def _notes(names: list[str], keys: Mapping[str, Mapping[str, str]], alphas: _Alphas) -> tuple[str, ...]:
    notes = []
    words = sorted({name.removeprefix(BUNDLED).split(".")[0] for name in names if name.startswith(BUNDLED)})
    if words:
        notes.append(
            f"The LoRA brings embeddings of its own ({', '.join(words)[:120]}), which are not loaded: use their files with Load Textual Inversion."
        )
    from_peft = any(name.startswith("base_model.model.") for name in keys)
    if from_peft and not alphas and not any("alpha" in tensors for tensors in keys.values()):
        notes.append(
            "The LoRA was saved by PEFT, which writes alpha into another file: it is taken to be the rank. Set strength to alpha / rank if that is not so."
        )
    return tuple(notes)
