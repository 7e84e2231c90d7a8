"""What the outputs of nodes are in a script: the name of a variable, and what the writer knows about its value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..pipelines.model.family import ModelFamily

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Loaded:
    """The weights that a loader names. Loaders that name the same weights share one."""

    key: tuple[Any, ...]
    name: str
    """The variable of its first pipeline."""
    title: str
    family: ModelFamily
    is_inpainting: bool
    dtype: str
    """An expression."""


@dataclass(frozen=True)
class UsedLora:
    file: str
    adapter: str
    strength: float
    text_strength: float


@dataclass(frozen=True)
class Model:
    """Loaded weights, and how the model's nodes changed their use."""

    loaded: Loaded
    scheduler: tuple[str, tuple[tuple[str, Any], ...]] | None = None
    """The class ("" for the model's own) and its options; None: as loaded."""
    loras: tuple[UsedLora, ...] = ()
    has_embeddings: bool = False
    vae: Model | None = None
    """The model whose autoencoder is used instead of its own."""
    guidance: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)
    """More arguments of the call."""
    pag_layers: tuple[str, ...] = ()
    tiled: bool = False

    @property
    def family(self) -> ModelFamily:
        return self.loaded.family

    @property
    def space(self) -> str:
        """Models with the same one share a latent space, as far as their families say."""
        family = (self.vae or self).family
        return family.preview_format or f"{family.autoencoder} of {family.name}"


@dataclass(frozen=True)
class Picture:
    """[B, 3, H, W] in 0..1."""

    name: str
    batch: int = 1
    size: Size | None = None
    """None: it is only known when the script runs."""


@dataclass(frozen=True)
class Mask:
    """[B, 1, H, W] in 0..1."""

    name: str
    batch: int = 1
    size: Size | None = None


@dataclass(frozen=True)
class Latent:
    """[B, C, h, w] in the scale of the model."""

    name: str
    model: Model | None
    """Whose latents they are; None: of the model that reads them."""
    batch: int = 1
    size: Size | None = None
    """In pixels."""
    noise_left: float | None = None
    mask: Mask | None = None
    indices: tuple[int, ...] | None = None
    """What is added to the seed for each picture; None: its place in the batch."""

    def with_name(self, name: str, **changes: Any) -> Latent:
        return replace(self, name=name, **changes)


@dataclass(frozen=True)
class Prompt:
    """A dict of arguments of a pipeline's call, by name."""

    name: str
    has_texts: bool
    """Whether the dict holds texts and not embeddings."""
    sizes: tuple[tuple[str, Any], ...] = ()
    """SDXL's sizes, as arguments; a size of (0, 0) is that of the picture."""


@dataclass(frozen=True)
class Net:
    """A ControlNet."""

    name: str


@dataclass(frozen=True)
class Unit:
    net: Net
    picture: Picture
    scale: float
    start: float
    end: float
    guess_mode: bool


@dataclass(frozen=True)
class Hint:
    """A depth map for Kandinsky."""

    picture: Picture


@dataclass(frozen=True)
class Native:
    """A value that only ComfyUI's own nodes read: it has no form in a script yet."""

    kind: str


@dataclass(frozen=True)
class Unknown:
    """What a node gives that could not be written."""

    name: str
