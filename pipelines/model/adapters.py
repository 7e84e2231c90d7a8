"""The LoRAs and textual inversions of a model, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """The change of one layer by a LoRA: ``weight + up @ down`` at strength 1."""

    down: torch.Tensor
    """[rank, in] for a linear layer, [rank, in, k, k] for a convolution."""
    up: torch.Tensor
    """[out, rank] or [out, rank, 1, 1]; already multiplied by alpha / rank."""
    magnitude: torch.Tensor | None = None
    """For DoRA: [out] for a linear layer, [1, out, 1, 1] for a convolution. The rows of the sum are scaled to these norms."""

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in (self.down, self.up, self.magnitude) if tensor is not None]


class WeightChange(Protocol):
    """The change of one weight or bias that is not a low-rank product, such as a LoHa's. It is merged while a stage runs."""

    def added(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        """What to add to the model's own ``weight``, which is in float32: a tensor of its shape, dtype and device."""
        ...

    @property
    def tensors(self) -> list[torch.Tensor]: ...


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """The contents of a LoRA file, read once and shared by all models that use it; freed with the last."""

    layers: Mapping[str, Mapping[str, LoraLayer]]
    """Component, e.g. ``"unet"`` -> name of a layer in it -> the low-rank change of this layer."""
    changes: Mapping[str, Mapping[str, WeightChange]] = field(default_factory=dict)
    """Component -> name of a parameter in it, e.g. ``"conv_in.weight"`` -> any other change of it."""
    notes: tuple[str, ...] = ()
    """What the user should know about the file."""
    largest: Mapping[str, float] = field(default_factory=dict)
    """Component -> the largest absolute value in the tensors of low-rank changes and differences."""

    def has_part(self, component: str) -> bool:
        return component in self.layers or component in self.changes

    @property
    def tensors(self) -> list[torch.Tensor]:
        parts: list[LoraLayer | WeightChange] = [one for by_name in self.layers.values() for one in by_name.values()]
        parts += [one for by_name in self.changes.values() for one in by_name.values()]
        return [tensor for part in parts for tensor in part.tensors]


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA with the strengths that one model uses it with."""

    title: str
    """The file's name, for messages and marks."""
    weights: LoraWeights
    strength: float
    """Strength for the denoiser; 0 leaves it unchanged."""
    text_strength: float
    """Strength for the text encoders; 0 leaves them unchanged."""

    def strength_in(self, component: str) -> float:
        """The strength for ``component``; 0 if the LoRA does not change it."""
        strength = self.text_strength if component.startswith("text_encoder") else self.strength
        return strength if self.weights.has_part(component) else 0.0

    @property
    def mark(self) -> str | None:
        """Describes how the LoRA changes the text encoders; None if it does not."""
        parts = (*self.weights.layers, *self.weights.changes)
        if not self.text_strength or not any(name.startswith("text_encoder") for name in parts):
            return None
        return f"LoRA {self.title} at text_strength {self.text_strength:g}"


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """The contents of an embedding file, read once and shared by all models that use it."""

    vectors: Mapping[str, torch.Tensor]
    """``clip_l`` and ``clip_g``, or "" for a single encoder -> [vectors, width]."""
    words: tuple[tuple[str, int], ...]
    """The tokens in the file, each with the number of its vectors, in their order; a token is empty if the file has none."""


@dataclass(frozen=True, eq=False)
class TextualInversion:
    """A token of a textual inversion file that one model knows."""

    title: str
    """The file's name, for messages and marks."""
    token: str
    file: EmbeddingFile
    """Referenced so that it stays in memory for other models."""
    vectors: Mapping[str, torch.Tensor]
    """Text encoder component -> [vectors, width]. All have the same number of vectors."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """One token for each vector, named as in diffusers."""
        count = next(iter(self.vectors.values())).shape[0]
        return (self.token, *(f"{self.token}_{index}" for index in range(1, count)))

    @property
    def mark(self) -> str:
        return f"embedding {self.title} as {self.token}"
