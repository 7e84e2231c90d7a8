"""The files of one component of a diffusers model, and the names that they may have."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.errors import RelayError
from ..model.component_classes import Classes

MODEL_INDEX = "model_index.json"


CONFIG_OF_MODEL, CONFIG_OF_SCHEDULER, CONFIG_OF_PROCESSOR = (
    "config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
)


SIDE_FILES = {
    "model": (CONFIG_OF_MODEL,),
    "scheduler": (CONFIG_OF_SCHEDULER,),
    "processor": (CONFIG_OF_PROCESSOR,),
    "tokenizer": (
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
}
"""Kind of a component -> the small files that are read. Other files of its folder, such as adapter_config.json, are never
downloaded or read."""


class MissingFiles(RelayError):
    """A file that the model needs is missing. The files that are present may be all right."""


@dataclass(frozen=True)
class ComponentFiles:
    """The class and the files of one component. Paths are relative to the model, with ``/``."""

    name: str
    classes: Classes
    """The classes that it may have."""
    class_name: str
    """The class that it has, one of :attr:`classes`."""
    side_files: tuple[str, ...]
    """Configs and vocabularies."""
    weights: tuple[str, ...] = ()
    """Safetensors files: one, or all shards in order. Empty for a scheduler, tokenizer or processor."""
    shard_index: str | None = None
    variant: str | None = None
    """Such as ``"fp16"``; None for the plain files."""
    folder: str = ""
    """The component's folder in the model; empty if the component is the whole model, like a ControlNet."""
    numbers: tuple[tuple[str, int], ...] = ()
    """Config entries that its tensors tell. They override those of its config."""

    @property
    def library(self) -> str:
        return self.classes.library

    @property
    def all_files(self) -> tuple[str, ...]:
        return self.side_files + self.weights + ((self.shard_index,) if self.shard_index else ())
