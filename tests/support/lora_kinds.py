"""Layers of every kind that LoRA files have, with the weights that a merge by hand in float64 gives.

Each merge is written from the kind's definition, with loops where those are plainer than the pack's tensor expressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

Tensors = dict[str, torch.Tensor]
Merge = Callable[[torch.Tensor, float], torch.Tensor]


class Case(NamedTuple):
    layer: str
    tensors: Tensors
    """Ending of the tensor's name -> tensor."""
    weight: Merge | None
    """(The layer's weight in float64, strength) -> what it becomes."""
    bias: Merge | None = None


LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
WIDE = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"
CONV, POINT = "up_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in"
NORM = "down_blocks.0.resnets.0.norm1"


def numbers(*shape: int, scale: float = 0.3) -> torch.Tensor:
    """The same for a shape every time."""
    generator = torch.Generator().manual_seed(sum((place + 1) * size for place, size in enumerate(shape)))
    return scale * torch.randn(shape, generator=generator)


def two(count: int) -> tuple[int, int]:
    """Two factors of ``count``."""
    first = next(one for one in (4, 3, 2, 1) if count % one == 0)
    return first, count // first


def core_product(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(a.shape[1], b.shape[1], *core.shape[2:], dtype=torch.float64)
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            out += a[i].double()[:, None, None, None] * b[j].double()[None, :, None, None] * core[i, j].double()
    return out


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.double() @ b.double()


def added(change: torch.Tensor) -> Merge:
    return lambda weight, strength: weight + strength * change.reshape(weight.shape)


def loha(layer: str, shape: tuple[int, ...], core: bool, alpha: float | None = 3.0, rank: int = 4) -> Case:
    inputs = math.prod(shape[1:])
    tensors = {}
    for one in ("w1", "w2"):
        grow = 1.0 if one == "w1" else 2.0
        if core:
            tensors[f"hada_{one}_a"] = grow * numbers(rank, shape[0])
            tensors[f"hada_{one}_b"] = grow * numbers(rank, shape[1])
            tensors[f"hada_{one.replace('w', 't')}"] = grow * numbers(rank, rank, *shape[2:])
        else:
            tensors[f"hada_{one}_a"] = grow * numbers(shape[0], rank)
            tensors[f"hada_{one}_b"] = numbers(rank, inputs)
    t = tensors
    if core:
        halves = [core_product(t[f"hada_w{n}_a"], t[f"hada_w{n}_b"], t[f"hada_t{n}"]) for n in (1, 2)]
    else:
        halves = [product(t[f"hada_w{n}_a"], t[f"hada_w{n}_b"]) for n in (1, 2)]
    change = halves[0] * halves[1]
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
        change = change * (alpha / rank)
    return Case(layer, tensors, added(change))


def lokr(layer: str, shape: tuple[int, ...], first_whole: bool, second: str, rank: int = 2) -> Case:
    """``second``: whole, flat (a matrix for a convolution) or core."""
    (a, b), (c, d), kernel = two(shape[0]), two(shape[1]), tuple(shape[2:])
    tensors = {"alpha": torch.tensor(3.0)}
    if first_whole:
        tensors["lokr_w1"] = numbers(a, c)
        left = tensors["lokr_w1"].double()
    else:
        tensors |= {"lokr_w1_a": numbers(a, rank), "lokr_w1_b": numbers(rank, c)}
        left = product(tensors["lokr_w1_a"], tensors["lokr_w1_b"])
    if second == "whole":
        tensors["lokr_w2"] = numbers(b, d, *kernel)
        right = tensors["lokr_w2"].double()
    elif second == "flat":
        tensors |= {"lokr_w2_a": numbers(b, rank), "lokr_w2_b": numbers(rank, d * math.prod(kernel))}
        right = product(tensors["lokr_w2_a"], tensors["lokr_w2_b"]).reshape(b, d, *kernel)
    else:
        tensors |= {"lokr_w2_a": numbers(rank, b), "lokr_w2_b": numbers(rank, d)}
        tensors["lokr_t2"] = numbers(rank, rank, *kernel)
        right = core_product(tensors["lokr_w2_a"], tensors["lokr_w2_b"], tensors["lokr_t2"])
    change = torch.zeros(shape, dtype=torch.float64)
    for row in range(a):
        for column in range(c):
            change[row * b : (row + 1) * b, column * d : (column + 1) * d] = left[row, column] * right
    scale = 1.0 if first_whole and second == "whole" else 3.0 / rank
    return Case(layer, tensors, added(scale * change))


def oft(layer: str, shape: tuple[int, ...], alpha: float, rescale: bool = False) -> Case:
    """``alpha`` * outputs is the longest that all antisymmetric matrices together may be; 0: no limit."""
    count, size = two(shape[0])
    blocks = numbers(count, size, size, scale=0.1)
    tensors = {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}
    own = blocks.double() - blocks.double().transpose(1, 2)
    length = float((own**2).sum() ** 0.5)
    if alpha:
        assert length > alpha * shape[0], "a limit that does not act proves nothing"
        own = own * (alpha * shape[0] / length)
    factors = torch.ones(shape[0], dtype=torch.float64)
    if rescale:
        tensors["rescale"] = 1 + numbers(shape[0], *(1,) * (len(shape) - 1))
        factors = tensors["rescale"].double().reshape(-1)

    def merge(weight: torch.Tensor, strength: float) -> torch.Tensor:
        rows = weight.reshape(count, size, -1)
        identity = torch.eye(size, dtype=torch.float64)
        turned = [((identity + q) @ torch.linalg.inv(identity - q)).T @ own_rows for q, own_rows in zip(own, rows)]
        whole = torch.cat(turned) * factors[:, None]
        return weight + strength * (whole.reshape(weight.shape) - weight)

    return Case(layer, tensors, merge)


def difference(layer: str, shape: tuple[int, ...], bias: bool) -> Case:
    tensors = {"diff": numbers(*shape)}
    if bias:
        tensors["diff_b"] = numbers(shape[0])
    return Case(layer, tensors, added(tensors["diff"].double()), added(tensors["diff_b"].double()) if bias else None)


def norm(layer: str, shape: tuple[int, ...]) -> Case:
    tensors = {"w_norm": numbers(shape[0]), "b_norm": 2 * numbers(shape[0])}
    return Case(layer, tensors, added(tensors["w_norm"].double()), added(tensors["b_norm"].double()))


def bias_alone(layer: str, shape: tuple[int, ...]) -> Case:
    tensors = {"diff_b": numbers(shape[0])}
    return Case(layer, tensors, None, added(tensors["diff_b"].double()))


def decomposed(case: Case, shape: tuple[int, ...], of_inputs: bool) -> Case:
    """``case`` as a DoRA: rows, or the inputs' columns, get the lengths in dora_scale."""
    count = shape[1] if of_inputs else shape[0]
    lengths = 1 + numbers(count).abs()
    ends = (1,) * (len(shape) - 2)
    scale = lengths.reshape(1, count, *ends) if of_inputs else lengths.reshape(count, 1, *ends)
    merge = case.weight
    assert merge is not None

    def to_lengths(weight: torch.Tensor, strength: float) -> torch.Tensor:
        changed = merge(weight, strength)
        groups = changed.transpose(0, 1) if of_inputs else changed
        result = torch.stack([one * (float(length) / one.norm()) for one, length in zip(groups, lengths)])
        return result.transpose(0, 1) if of_inputs else result

    return Case(case.layer, {**case.tensors, "dora_scale": scale}, to_lengths)


def low_rank(layer: str, shape: tuple[int, ...], rank: int = 4) -> Case:
    ends = (1,) * (len(shape) - 2)
    tensors = {"lora_down.weight": numbers(rank, *shape[1:]), "lora_up.weight": numbers(shape[0], rank, *ends)}
    tensors["alpha"] = torch.tensor(2.0)
    change = product(tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1))
    return Case(layer, tensors, added(2.0 / rank * change))


CASES: dict[str, Callable[[dict[str, tuple[int, ...]]], Case]] = {
    "LoHa": lambda s: loha(LINEAR, s[LINEAR], False),
    "LoHa without alpha": lambda s: loha(LINEAR, s[LINEAR], False, None),
    "LoHa of a convolution": lambda s: loha(CONV, s[CONV], False),
    "LoHa of a convolution, with cores": lambda s: loha(CONV, s[CONV], True),
    "LoHa of a 1x1 convolution": lambda s: loha(POINT, s[POINT], False),
    "LoKr": lambda s: lokr(LINEAR, s[LINEAR], True, "flat"),
    "LoKr, both whole": lambda s: lokr(WIDE, s[WIDE], True, "whole"),
    "LoKr, both in factors": lambda s: lokr(WIDE, s[WIDE], False, "flat"),
    "LoKr of a convolution, whole": lambda s: lokr(CONV, s[CONV], True, "whole"),
    "LoKr of a convolution, in factors": lambda s: lokr(CONV, s[CONV], False, "flat"),
    "LoKr of a convolution, with a core": lambda s: lokr(CONV, s[CONV], True, "core"),
    "OFT": lambda s: oft(LINEAR, s[LINEAR], 0.0),
    "OFT of a convolution": lambda s: oft(CONV, s[CONV], 0.0),
    "OFT with a limit": lambda s: oft(WIDE, s[WIDE], 1e-3),
    "OFT with factors": lambda s: oft(CONV, s[CONV], 0.0, rescale=True),
    "difference": lambda s: difference(WIDE, s[WIDE], True),
    "difference of a convolution": lambda s: difference(CONV, s[CONV], True),
    "difference without a bias": lambda s: difference(LINEAR, s[LINEAR], False),
    "norm": lambda s: norm(NORM, s[NORM]),
    "bias alone": lambda s: bias_alone(CONV, s[CONV]),
    "LoHa as a DoRA": lambda s: decomposed(loha(LINEAR, s[LINEAR], False), s[LINEAR], False),
    "LoHa as a DoRA of inputs": lambda s: decomposed(loha(CONV, s[CONV], True), s[CONV], True),
    "LoKr as a DoRA": lambda s: decomposed(lokr(CONV, s[CONV], True, "whole"), s[CONV], False),
    "LoRA as a DoRA of inputs": lambda s: decomposed(low_rank(WIDE, s[WIDE]), s[WIDE], True),
    "LoRA of a convolution as a DoRA of inputs": lambda s: decomposed(low_rank(CONV, s[CONV]), s[CONV], True),
}
