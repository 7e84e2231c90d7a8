"""The fields of a row in :mod:`.checkpoint_table`: how one kind of model is stored in a single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..files.safetensors import Header
from .checkpoint_keys import Rename
from .file_part import Part
from .file_signs import Sign

CONFIGS = Path(__file__).parent / "configs"
"""One folder for each kind: a diffusers model without weights and vocabularies."""


@dataclass(frozen=True, eq=False)
class DenoiserLayout:
    """A kind of denoiser, by which a checkpoint is told from other files."""

    title: str
    """Its name in messages, e.g. ``"UNet"``."""
    component: str
    """Its name in a diffusers model."""
    place: str
    """The prefix of its keys."""
    begins_with: tuple[str, ...]
    """Starts of its keys after :attr:`place`, in the original layout and in diffusers'; no other kind of denoiser has such keys there."""
    first_layers: tuple[str, ...]
    """The key of its first layer after :attr:`place`, in either layout. Its second size is the number of input channels."""
    always_has: tuple[str, ...]
    """A key after :attr:`place`, in either layout, that every file with only this denoiser has."""
    kind_numbers: Callable[[Mapping[str, tuple[int, ...]]], Mapping[str, Any]]
    """Shapes by key, without :attr:`place` -> the config entries that tell its kinds apart. False counts as not given."""
    channels: tuple[int, ...]
    """Input channels that its families can run."""
    other_channels: Mapping[int, str] = field(default_factory=dict)
    """Input channels of other models -> what the model is."""
    alone: tuple[Sign, ...] = ()
    """What a file with only this denoiser may look like, with any prefix before its keys."""
    variants: tuple[Sign, ...] = ()
    """Other models with the same kind of denoiser, which are refused. The signs are compared with all keys of the file."""

    def is_in(self, header: Header) -> bool:
        return header.has(*(self.place + start for start in self.begins_with))

    def channels_in(self, header: Header) -> int:
        """The input channels; 0 if the file has no first layer."""
        shapes = (header.shapes.get(self.place + layer, ()) for layer in self.first_layers)
        return next((shape[1] for shape in shapes if len(shape) > 1), 0)


class CompletePart(Protocol):
    """Fills in a component's part: its keys, its sizes, and how diffusers converts it."""

    def __call__(self, part: Part, place: str, header: Header, where: str) -> Part:
        """
        Args:
            part: renames the keys below ``place`` to those below the first of :attr:`StoredComponent.places`.
            place: the prefix of the component's keys in the file.
            header: the header of the whole file.
            where: the file, for messages.
        """
        ...


@dataclass(frozen=True, eq=False)
class StoredComponent:
    """Where a checkpoint stores a component with weights, and how it is read."""

    places: tuple[str, ...]
    """The prefixes that its keys may have. diffusers knows the first."""
    complete: CompletePart
    always_has: str = ""
    """The start of a key after the prefix that tells the component from others below the same prefix."""

    def place_in(self, header: Header) -> str | None:
        """The prefix of its keys; None if the file doesn't contain it."""
        return next((place for place in self.places if header.has(place + self.always_has)), None)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The files of a kind of tokenizer. Checkpoints don't contain them, but ComfyUI does."""

    name: str
    """The key of its folder in the argument ``vocabularies`` of :func:`.single_file.load_checkpoint`."""
    title: str
    """For messages."""
    host_folder: str
    """Where ComfyUI has it, for messages."""
    files: tuple[str, ...]
    settings: Mapping[str, type]
    """The entries of the kind's tokenizer_config.json to use, with their types."""
    build: Callable[[Path, Mapping[str, Any]], Any]
    """Makes the tokenizer from its folder and the settings."""


@dataclass(frozen=True, eq=False)
class CheckpointLayout:
    """One kind of checkpoint: how it is recognised, and where its components are."""

    title: str
    """Its name in messages."""
    configs: str
    """Its folder in ``configs/``: a diffusers model without weights and vocabularies."""
    denoiser: DenoiserLayout
    signs: tuple[tuple[str, ...], ...]
    """Starts of keys that tell it from the kinds in later rows. One sign is enough, and a file has a sign if it has a key for each start."""
    components: Mapping[str, StoredComponent]
    """Every component with weights."""
    vocabularies: Mapping[str, Vocabulary]
    """Every tokenizer."""
    scheduler_changes: Callable[[Path, Header, Rename], dict[str, Any]]
    """Reads from the file what the scheduler's config can't tell; ``_class_name`` is another class. The last argument maps the keys of
    the file to those of the header."""
    marks: tuple[str, ...] = ()
    """Keys that every file of this kind has besides its components."""
    has_own_vae: bool = False
    """Whether its VAE has another scale than its family's, so that a file without one is of no use."""
    incomplete: tuple[Sign, ...] = ()
    """What a file without any of :attr:`signs` is that lacks a part of this kind."""

    def is_in(self, header: Header) -> bool:
        return self.is_marked(header) and any(all(header.has(start) for start in sign) for sign in self.signs)

    def is_marked(self, header: Header) -> bool:
        """Whether the file has all of :attr:`marks`."""
        return all(mark in header.shapes for mark in self.marks)
