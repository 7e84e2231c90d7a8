"""The fields of a row in :mod:`.checkpoint_table`: how one kind of model is stored in a single file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..files.safetensors import Header
from .file_part import Part
from .file_signs import Sign


@dataclass(frozen=True, eq=False)
class DenoiserLayout:
    """A kind of denoiser, by which a checkpoint is told from other files."""

    title: str
    """Its name in messages, e.g. ``"UNet"``."""
    place: str
    """The prefix of its keys."""
    begins_with: str
    """The start of some of its keys after :attr:`place`; no other kind of denoiser has such keys there."""
    first_layer: str
    """The key of its first layer, whose second size is the number of input channels."""
    channels: tuple[int, ...]
    """Input channels that its families can run."""
    other_channels: Mapping[int, str] = field(default_factory=dict)
    """Input channels of other models -> what the model is."""
    variants: tuple[Sign, ...] = ()
    """Other models with the same kind of denoiser, which are refused. The signs are compared with all keys of the file."""
    alone: str = ""
    """Advice for a file that has nothing else."""

    def is_in(self, header: Header) -> bool:
        return header.has(self.place + self.begins_with)


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
    scheduler_changes: Callable[[Path, Header, str], dict[str, Any]]
    """Reads from the file what the scheduler's config can't tell. The last argument is the prefix of the keys in the file, which the
    header lacks."""
    incomplete: tuple[Sign, ...] = ()
    """What a file without any of :attr:`signs` is that lacks a part of this kind."""

    def is_in(self, header: Header) -> bool:
        return any(all(header.has(start) for start in sign) for sign in self.signs)
