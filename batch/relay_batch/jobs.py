"""What a worker needs to run rows. Everything here can be pickled and sent to another machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadPicture
from .ui_convert import Prompt


@dataclass(frozen=True)
class HostSetup:
    """How a worker starts its ComfyUI. All paths are on the worker's machine."""

    comfyui: str
    python: str | None = None
    """None: the Python of ComfyUI's own environment, else the one that runs the worker."""
    arguments: tuple[str, ...] = ()
    """More arguments for main.py."""
    environment: Mapping[str, str] = field(default_factory=dict)
    work: str | None = None
    """The folder for the host's input, output and temp folders and its log. None: the system's temp folder."""


@dataclass(frozen=True)
class RunSpec:
    """What all rows of a run share. A worker that stays warm may get several runs, one after the other."""

    id: str
    """A UUID. It is made from the manifest: the same run has the same id, however often it goes on."""
    store: str
    """The output folder as `store.open_store` takes it; an absolute path if it is local."""
    prompt: Prompt
    """The workflow in API format, without the rows' values."""
    saving: tuple[str, ...] = ()
    """Ids of the nodes that have a filename_prefix, which the worker sets."""
    attempts: int = 4
    """How often a row is begun before its worker's end becomes its own fault."""
    row_timeout: float = 1800.0
    """Seconds."""


@dataclass(frozen=True)
class InputPicture:
    """A picture that a row needs in the host's input folder."""

    targets: tuple[tuple[str, str], ...]
    """(node id, input) of the inputs that get its name."""
    path: str
    """Where it is. A path is relative to nothing: it is absolute."""
    data: bytes | None = None
    """The file's content; None if the worker reads it from `path`."""


@dataclass(frozen=True)
class Job:
    """One row."""

    index: int
    values: Mapping[str, Any]
    """{address: value} as they stand in the row's record."""
    inputs: tuple[tuple[str, str, Any], ...] = ()
    """(node id, input, value) to set in the prompt; pictures are not among them."""
    pictures: tuple[InputPicture, ...] = ()

    def packed(self) -> Job:
        """The same job with its pictures' contents, for a worker that can't read their paths. Raises BadPicture."""
        return dataclasses.replace(self, pictures=tuple(_packed(one) for one in self.pictures))


def _packed(picture: InputPicture) -> InputPicture:
    try:
        return dataclasses.replace(picture, data=Path(picture.path).read_bytes())
    except OSError as error:
        raise BadPicture(f"The picture {picture.path} can't be read ({error.strerror or error}).") from error
