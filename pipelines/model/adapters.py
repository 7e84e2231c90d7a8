"""What a view of a model has been taught beside its own weights: LoRAs and textual inversions, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """What a LoRA adds to one layer: ``weight + up @ down``, at strength 1."""

    down: torch.Tensor
    """[rank, in] of a linear layer, [rank, in, k, k] of a convolution."""
    up: torch.Tensor
    """[out, rank] or [out, rank, 1, 1]; alpha / rank is in it already."""
    magnitude: torch.Tensor | None = None
    """DoRA: [out] of a linear layer, [1, out, 1, 1] of a convolution. The rows of the sum are scaled to these lengths."""

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [one for one in (self.down, self.up, self.magnitude) if one is not None]


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """One file, read once. Shared by every view that uses it, and gone with the last."""

    layers: Mapping[str, Mapping[str, LoraLayer]]
    """Component, e.g. ``"unet"`` -> the name of a layer in it -> what is added there."""
    notes: tuple[str, ...] = ()
    """What the user should know of the file."""
    largest: Mapping[str, float] = field(default_factory=dict)
    """Component -> the largest absolute value of its tensors."""

    def has_part(self, component: str) -> bool:
        return component in self.layers

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [one for layers in self.layers.values() for layer in layers.values() for one in layer.tensors]


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA as one view of a model uses it."""

    title: str
    """The file's name, for messages and marks."""
    weights: LoraWeights
    strength: float
    """Of the denoiser's part; 0 leaves it out."""
    text_strength: float
    """Of the text encoders' parts; 0 leaves them out."""

    def strength_in(self, component: str) -> float:
        """0 where the LoRA does nothing to ``component``."""
        wanted = self.text_strength if component.startswith("text_encoder") else self.strength
        return wanted if self.weights.has_part(component) else 0.0

    @property
    def mark(self) -> str | None:
        """What it makes of the text encoders; None: they are as without it."""
        if not self.text_strength or not any(name.startswith("text_encoder") for name in self.weights.layers):
            return None
        return f"LoRA {self.title} at text_strength {self.text_strength:g}"


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """One file, read once and shared by every view that uses it."""

    vectors: Mapping[str, torch.Tensor]
    """``clip_l`` and ``clip_g``, or "" for the only encoder -> [vectors, width]."""
    word: str
    """Its own, or empty."""


@dataclass(frozen=True, eq=False)
class TextualInversion:
    """A word that one view of a model knows."""

    title: str
    """The file's name, for messages and marks."""
    token: str
    file: EmbeddingFile
    """Held, so that another view finds it."""
    vectors: Mapping[str, torch.Tensor]
    """Text encoder component -> [vectors, width]. All have the same number of vectors."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """A token for each vector, named as diffusers names them."""
        count = next(iter(self.vectors.values())).shape[0]
        return (self.token, *(f"{self.token}_{index}" for index in range(1, count)))

    @property
    def mark(self) -> str:
        return f"embedding {self.title} as {self.token}"
