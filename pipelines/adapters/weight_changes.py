"""Changes of a weight that are not a plain low-rank product, and their merge into a copy of the weight while a stage runs.

PEFT's LoRA adds its product to a layer's output and leaves the weight alone. Its LoHa and LoKr do so too, which runs each layer
twice at every step and rounds the products in the model's dtype, and they have no DoRA; its OFT turns the inputs, where the files
of LyCORIS and kohya turn the outputs. So these are merged, in float32, as the trainers themselves merge them.
Sources: https://arxiv.org/abs/2108.06098 (LoHa), https://arxiv.org/abs/2309.14859 (LoKr),
https://arxiv.org/abs/2306.07280 (OFT), https://arxiv.org/abs/2402.09353 (DoRA)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from ..model.adapters import Lora, WeightChange

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference itself, of the weight's shape."""

    difference: torch.Tensor

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        return strength * self.difference.to(weight)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.difference]


@dataclass(frozen=True, eq=False)
class LowRank:
    """``up @ down``, for a DoRA that PEFT does not have."""

    down: torch.Tensor
    """[rank, in, ...]"""
    up: torch.Tensor
    """[out, rank, ...]; already multiplied by alpha / rank."""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        product = self.up.to(weight).flatten(1) @ self.down.to(weight).flatten(1)
        return strength * product.reshape(weight.shape)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.down, self.up]


@dataclass(frozen=True, eq=False)
class Factors:
    """A matrix or a convolution's weight: ``a @ b``, or with a core (Tucker) [rank, rank, k, k], ``a`` [rank, out] and ``b`` [rank, in]."""

    a: torch.Tensor
    """The whole matrix if there is no ``b``."""
    b: torch.Tensor | None = None
    core: torch.Tensor | None = None

    def product(self, like: torch.Tensor) -> torch.Tensor:
        """The product in the dtype and on the device of ``like``."""
        import torch

        a = self.a.to(like)
        if self.b is None:
            return a
        b = self.b.to(like)
        return a @ b if self.core is None else torch.einsum("ijkl,ip,jr->prkl", self.core.to(like), a, b)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in (self.a, self.b, self.core) if tensor is not None]


@dataclass(frozen=True, eq=False)
class Hadamard:
    """LoHa: the elementwise product of two products."""

    first: Factors
    second: Factors
    scale: float
    """alpha / rank"""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        product = self.first.product(weight) * self.second.product(weight)
        return strength * self.scale * product.reshape(weight.shape)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self.first.tensors, *self.second.tensors]


@dataclass(frozen=True, eq=False)
class Kronecker:
    """LoKr: the Kronecker product of two matrices, or of a matrix and a convolution's weight."""

    first: Factors
    second: Factors
    scale: float
    """alpha / rank; 1 if both are whole."""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        import torch

        second = self.second.product(weight).contiguous()  # kron views its input
        first = self.first.product(weight)
        product = torch.kron(first.reshape(*first.shape, *(1,) * (second.ndim - 2)), second)
        return strength * self.scale * product.reshape(weight.shape)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self.first.tensors, *self.second.tensors]


@dataclass(frozen=True, eq=False)
class Rotation:
    """OFT: each block of the weight's outputs is turned by the Cayley transform of its antisymmetric matrix."""

    blocks: torch.Tensor
    """[blocks, size, size]; blocks * size is the number of outputs."""
    rescale: torch.Tensor | None
    """[out, 1, ...]: factors for the turned rows."""
    longest: float
    """The norm that the antisymmetric matrices are scaled down to if theirs is larger; 0: no limit."""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        import torch

        blocks = self.blocks.to(weight)
        antisymmetric = blocks - blocks.mT
        norm = float(antisymmetric.norm())
        if norm > self.longest > 0:
            antisymmetric = antisymmetric * (self.longest / norm)
        identity = torch.eye(blocks.shape[-1], dtype=weight.dtype, device=weight.device)
        turn = torch.linalg.solve(identity - antisymmetric, identity + antisymmetric, left=False)
        turned = (turn.mT @ weight.reshape(*blocks.shape[:2], -1)).reshape(weight.shape)
        if self.rescale is not None:
            turned = self.rescale.to(weight).reshape(-1, *(1,) * (weight.ndim - 1)) * turned
        return strength * (turned - weight)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [self.blocks] if self.rescale is None else [self.blocks, self.rescale]


@dataclass(frozen=True, eq=False)
class Decomposed:
    """DoRA: the rows, or the inputs' columns, of weight + strength * change are scaled to the norms in ``magnitude``."""

    change: WeightChange
    magnitude: torch.Tensor
    """[out, 1, ...], or [1, in, 1, ...] if they are those of the inputs."""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        import torch

        changed = weight + self.change.added(weight, strength)
        others = [axis for axis in range(weight.ndim) if self.magnitude.shape[axis] == 1]
        norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        return changed * (self.magnitude.to(weight) / norms) - weight

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self.change.tensors, self.magnitude]


@contextmanager
def merged(module: torch.nn.Module, component: str, chosen: Sequence[tuple[Lora, float]]) -> Iterator[None]:
    """Inside this context, the module's parameters have the changes of the LoRAs in ``chosen``, at their strengths.

    Each change is computed from the model's own weight, and they are added, so that their order does not matter. Afterwards, the
    parameters have their own values again, bit for bit. On a device other than the CPU, the original is kept on the CPU.

    Raises:
        RelayError: a merged weight has values that the module's dtype can't represent.
    """
    import torch

    by_parameter: dict[str, list[tuple[Lora, float, WeightChange]]] = {}
    for lora, strength in chosen:
        for name, change in lora.weights.changes.get(component, {}).items():
            by_parameter.setdefault(name, []).append((lora, strength, change))
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    try:
        # tensors that are created in inference mode can't be used outside it
        with torch.inference_mode(False), torch.no_grad():
            for name, changes in by_parameter.items():
                parameter = module.get_parameter(name)
                merged_weight = _merged(parameter.data, changes, name)
                kept.append((parameter, parameter.data.cpu()))
                parameter.data = merged_weight
        yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            for parameter, original in kept:
                parameter.data = _in_format_of(parameter.data, original)


def _merged(original: torch.Tensor, changes: Sequence[tuple[Lora, float, WeightChange]], name: str) -> torch.Tensor:
    import torch

    own = original.float()
    total = own.clone()
    for _, strength, change in changes:
        total += change.added(own, strength)
    most = float(total.abs().max())
    limit = torch.finfo(original.dtype).max
    if not most <= limit:  # NaN too
        titles = ", ".join(dict.fromkeys(lora.title for lora, _, _ in changes))
        dtype = str(original.dtype).removeprefix("torch.")
        raise RelayError(
            f"lora: with {titles}, {name} has values up to {most:.3g}, but {dtype} only reaches {limit:.5g}. Lower strength and "
            "text_strength, or load the model with dtype bfloat16 or float32."
        )
    return torch.empty_like(original).copy_(total)


def _in_format_of(current: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """``original`` on the device and in the memory format of ``current``: the options of a run may have changed its format."""
    import torch

    if original.stride() != current.stride():
        original = torch.empty_like(current, device=original.device).copy_(original)
    return original.to(current.device)
