"""Builds the change of one layer from its tensors in a LoRA file, after a check that they are sound and fit the layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..model.adapters import LoraLayer, WeightChange
from .lora_kinds import BIASES, LOW_RANK, Kind
from .weight_changes import Decomposed, Difference, Factors, Hadamard, Kronecker, LowRank, Rotation

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
Scale = Callable[[int], float]
"""alpha / rank of the layer, by its rank."""


class LayerError(ValueError):
    """Why a layer of a file can't be used; the text completes the sentence "the layer ..."."""


class OtherShape(LayerError):
    """The layer is for a weight of another shape."""

    def __init__(self, wanted: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__(f"is for a layer of shape {list(wanted)}, but the model's has {list(shape)}")
        self.wanted = wanted


class Target(NamedTuple):
    """The model's layer."""

    shape: tuple[int, ...]
    """Shape of its weight."""
    biases: int | None
    """Number of its biases; None if it has none."""


class Change(NamedTuple):
    """What a file changes in one layer."""

    low_rank: LoraLayer | None
    weight: WeightChange | None
    bias: WeightChange | None


def read_layer(kind: Kind, tensors: Tensors, target: Target, scale: Scale) -> Change:
    """The change of a layer.

    Args:
        tensors: role -> tensor, with all that ``kind`` needs.
        scale: called only for kinds that have an alpha and a rank.

    Raises:
        LayerError: the tensors are not sound, or don't fit the layer.
    """
    _check_values(tensors)
    shape = target.shape
    if kind is LOW_RANK:
        return _low_rank(tensors, target, scale)
    builders: dict[str, Callable[[], WeightChange | None]] = {
        "LoHa": lambda: _hadamard(tensors, shape, scale),
        "LoKr": lambda: _kronecker(tensors, shape, scale),
        "OFT": lambda: _rotation(tensors, shape),
        "full difference": lambda: _difference(tensors["diff"], shape),
        "norm": lambda: _norm(tensors["w_norm"], shape),
        "bias": lambda: None,
    }
    change = builders[kind.name]()
    if change is not None and (magnitude := _magnitude(tensors, shape)) is not None:
        change = Decomposed(change, magnitude)
    return Change(None, change, _bias(tensors, target))


def _check_values(tensors: Tensors) -> None:
    for role, tensor in tensors.items():
        if not tensor.is_floating_point() and role != "alpha":
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise LayerError(f"has {role} weights of type {dtype}, but LoRA weights must be floats")
        if not tensor.float().isfinite().all():
            raise LayerError(f"has NaN or infinite values in its {role} weights: the training of this LoRA went wrong")
    if "alpha" in tensors and tensors["alpha"].numel() != 1:
        raise LayerError(f"has {tensors['alpha'].numel()} alphas instead of one")


def _low_rank(tensors: Tensors, target: Target, scale: Scale) -> Change:
    import torch

    shape = target.shape
    down, up, mid = _unflattened(tensors["down"], shape), tensors["up"], tensors.get("mid")
    _check_low_rank(down, up, mid, shape)
    magnitude, bias = _magnitude(tensors, shape), _bias(tensors, target)
    dtype = _at_least_16_bits(down)
    rank = down.shape[0]
    if mid is not None:
        down = torch.einsum("mrij,rc->mcij", mid.float(), down.float().reshape(rank, -1))
    ends = (1,) * (len(shape) - 2)
    up = up.float() * scale(rank)
    if float(up.abs().max()) > torch.finfo(dtype).max:  # multiplied by alpha, they overflow in the file's dtype
        dtype = torch.float32
    down = down.reshape(rank, shape[1], *shape[2:]).to(dtype).contiguous()
    up = up.reshape(shape[0], rank, *ends).to(dtype).contiguous()
    if magnitude is not None and magnitude.shape[0] != shape[0]:  # of the inputs, which PEFT has not
        return Change(None, Decomposed(LowRank(down, up), magnitude), bias)
    if magnitude is not None:
        magnitude = magnitude.reshape((1, shape[0], *ends) if ends else (shape[0],)).contiguous()
    return Change(LoraLayer(down, up, magnitude), None, bias)


def _check_low_rank(down: torch.Tensor, up: torch.Tensor, mid: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    if min(down.ndim, up.ndim) < 2 or 0 in (*down.shape, *up.shape):
        raise LayerError(f"has weights of the wrong shapes {list(down.shape)} and {list(up.shape)}")
    inner = (up.shape[1], down.shape[0]) if mid is None else (up.shape[1], mid.shape[0], *mid.shape[1:2], down.shape[0])
    _check_ranks(inner)
    if mid is not None and (mid.ndim != 4 or len(shape) != 4 or tuple(mid.shape[2:]) != shape[2:]):
        raise OtherShape((up.shape[0], down.shape[1], *mid.shape[2:]), shape)
    kernel = tuple(down.shape[2:]) if mid is None else shape[2:]
    if set(up.shape[2:]) - {1}:
        raise LayerError(f"has up weights of the wrong shape {list(up.shape)}")
    _check_shape((up.shape[0], down.shape[1], *kernel), shape)


def _hadamard(tensors: Tensors, shape: tuple[int, ...], scale: Scale) -> Hadamard:
    first, first_shape, rank = _factors(tensors, "hada_w1_a", "hada_w1_b", "hada_t1", shape)
    second, second_shape, other = _factors(tensors, "hada_w2_a", "hada_w2_b", "hada_t2", shape)
    _check_ranks((rank, other))
    _check_shape(first_shape, shape)
    _check_shape(second_shape, shape)
    return Hadamard(first, second, scale(rank))


def _kronecker(tensors: Tensors, shape: tuple[int, ...], scale: Scale) -> Kronecker:
    first, (rows, columns, *kernel), rank = _factors(tensors, "lokr_w1_a", "lokr_w1_b", "", (0, 0), "lokr_w1")
    if kernel:
        raise LayerError(f"has lokr_w1 weights of the wrong shape {[rows, columns, *kernel]}")
    second, own, other = _factors(tensors, "lokr_w2_a", "lokr_w2_b", "lokr_t2", shape, "lokr_w2")
    ranks = [one for one in (rank, other) if one]
    _check_ranks(ranks)
    _check_shape((rows * own[0], columns * own[1], *own[2:]), shape)
    # without a rank, LyCORIS has no alpha either: it saves one that is not used
    return Kronecker(first, second, scale(ranks[0]) if ranks else 1.0)


def _factors(
    tensors: Tensors, a_role: str, b_role: str, core_role: str, shape: tuple[int, ...], whole_role: str = ""
) -> tuple[Factors, tuple[int, ...], int]:
    """(The factors, the shape of their product, its rank: 0 if it is whole). ``shape``: that of the layer, for its kernel."""
    if whole_role in tensors:
        whole = tensors[whole_role]
        if whole.ndim not in (2, 4) or 0 in whole.shape:
            raise LayerError(f"has {whole_role} weights of the wrong shape {list(whole.shape)}")
        return Factors(whole), _with_kernel(tuple(whole.shape), shape), 0
    a, b, core = tensors[a_role], tensors[b_role], tensors.get(core_role)
    if a.ndim != 2 or b.ndim != 2 or 0 in (*a.shape, *b.shape) or (core is not None and core.ndim != 4):
        raise LayerError(f"has {a_role} and {b_role} weights of the wrong shapes {list(a.shape)} and {list(b.shape)}")
    if core is None:
        _check_ranks((a.shape[1], b.shape[0]))
        return Factors(a, b), _with_kernel((a.shape[0], b.shape[1]), shape), b.shape[0]
    _check_ranks((a.shape[0], *core.shape[:2], b.shape[0]))
    return Factors(a, b, core), (a.shape[1], b.shape[1], *core.shape[2:]), b.shape[0]


def _with_kernel(found: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a convolution's weight that was saved as a matrix, [out, in * height * width]."""
    area = math.prod(shape[2:])
    is_flat = len(found) == 2 and area > 1 and found[1] % area == 0
    return (found[0], found[1] // area, *shape[2:]) if is_flat else found


def _rotation(tensors: Tensors, shape: tuple[int, ...]) -> Rotation:
    blocks, rescale = tensors["oft_blocks"], tensors.get("rescale")
    if blocks.ndim == 4:
        raise LayerError("is a BOFT, which Load LoRA (Diffusers) can't load. Use a plain LoRA")
    if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2] or 0 in blocks.shape:
        raise LayerError(f"has oft_blocks of the wrong shape {list(blocks.shape)}")
    outputs = blocks.shape[0] * blocks.shape[1]
    if len(shape) < 2 or outputs != shape[0]:
        raise OtherShape((outputs, *shape[1:]), shape)
    if rescale is not None and rescale.numel() != outputs:
        raise LayerError(f"has {rescale.numel()} rescale factors, but the layer has {outputs} outputs")
    # kohya and LyCORIS multiply the alpha of an OFT, which limits its turns, by the outputs
    return Rotation(blocks, rescale, float(tensors["alpha"]) * outputs if "alpha" in tensors else 0.0)


def _difference(difference: torch.Tensor, shape: tuple[int, ...]) -> Difference:
    if len(shape) == 1 or difference.ndim == 1:
        if tuple(difference.shape) != shape:
            raise OtherShape(tuple(difference.shape), shape)
    else:
        _check_shape(tuple(difference.shape), shape)
    return Difference(difference.reshape(shape))


def _norm(difference: torch.Tensor, shape: tuple[int, ...]) -> Difference:
    if len(shape) != 1 or difference.numel() != shape[0]:
        raise OtherShape((difference.numel(),), shape)
    return Difference(difference.reshape(shape))


def _bias(tensors: Tensors, target: Target) -> Difference | None:
    found = [tensors[role] for role in BIASES if role in tensors]
    if len(found) > 1:
        raise LayerError(f"has both {' and '.join(BIASES)} weights")
    if not found:
        return None
    if target.biases is None:
        raise LayerError("changes biases, but the model's layer has none")
    if found[0].numel() != target.biases:
        raise LayerError(f"changes {found[0].numel()} biases, but the model's layer has {target.biases}")
    return Difference(found[0].reshape(-1))


def _magnitude(tensors: Tensors, shape: tuple[int, ...]) -> torch.Tensor | None:
    """DoRA's magnitude vector, [out, 1, ...] or, for the inputs, [1, in, 1, ...].

    PEFT's is [out] or [1, out, 1, 1]. LyCORIS' and OneTrainer's are in the shapes of the result.
    """
    lycoris, peft = tensors.get("dora_scale"), tensors.get("magnitude")
    if lycoris is not None and peft is not None:
        raise LayerError("has two DoRA magnitude vectors")
    found = peft if lycoris is None else lycoris
    if found is None:
        return None
    count = found.numel()
    if lycoris is not None and found.ndim > 1 and found.shape[0] == 1 and count == found.shape[1] == shape[1]:
        return found.float().reshape(1, count, *(1,) * (len(shape) - 2)).contiguous()
    if count != shape[0]:
        raise LayerError(f"has a DoRA magnitude vector with {count} values, but the layer has {shape[0]} outputs")
    return found.float().reshape(count, *(1,) * (len(shape) - 1)).contiguous()


def _check_ranks(ranks: Iterable[int]) -> None:
    if len(set(ranks)) > 1:
        raise LayerError(f"has different ranks: {' and '.join(str(rank) for rank in dict.fromkeys(ranks))}")


def _check_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """A 1x1 convolution and a linear layer may have each other's weights."""
    same_kernel = found[2:] == shape[2:] or set(found[2:]) | set(shape[2:]) <= {1}
    if len(shape) < 2 or found[:2] != shape[:2] or not same_kernel:
        raise OtherShape(found, shape)


def _unflattened(down: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The down weights in the shape of a convolution's. Some programs save them as a matrix."""
    return down.reshape(_with_kernel(tuple(down.shape), shape)) if down.ndim == 2 else down


def _at_least_16_bits(tensor: torch.Tensor) -> torch.dtype:
    import torch

    return tensor.dtype if tensor.dtype.itemsize > 1 else torch.float32  # 8-bit floats are only for storage
