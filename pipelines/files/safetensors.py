"""A safetensors file: what its header says, and its tensors, some at a time. A file that is none is refused by what it is."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import RelayError
from .casting import casting
from .first_bytes import START, is_pickle, what_it_is
from .read_ahead import Span

if TYPE_CHECKING:
    import torch

SAFE_SUFFIXES = (".safetensors", ".sft")
"""What safetensors files are called, in every folder; the case does not matter."""
MOST_TENSORS = 50_000
"""SDXL has 2,500; large LoRAs have 10,000. A header of 100 MB would be looked through for half a minute."""
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
"""safetensors' names of what weights are, if they are not quantised."""
TAIL = 2**20
MOST_SAID = 120
PORTION = 64 * 2**20
"""Bytes of a file that are cast before their pages are given back."""
CONVERTER = f"custom_nodes/{Path(__file__).parents[2].name}/convert_pickle.py"
"""A command of the pack's that a user may run, as seen from ComfyUI's folder; no node does."""
HOW_TO_CONVERT_FILE = (
    "A pickle can run any code when it is read, so Diffusers Relay loads safetensors only. Take the .safetensors file that "
    f'its author publishes, or convert it once: python "{CONVERTER}" FILE (in ComfyUI\'s folder), or in Python: '
    '`StableDiffusionPipeline.from_single_file("model.ckpt").save_pretrained("models/diffusers/model", safe_serialization=True)`'
)

HOW_TO_CONVERT_WEIGHTS = (
    "A pickle can run any code when it is read, so Diffusers Relay loads safetensors only. Convert it once: "
    f'python "{CONVERTER}" FILE (in ComfyUI\'s folder), or in Python: '
    "`safetensors.torch.save_file({k: v.detach().clone().contiguous() for p in [torch.load(open(file, 'rb'), weights_only=True)] "
    "for d in [p, *p.values()] if isinstance(d, dict) for k, v in d.items() if torch.is_tensor(v)}, name)`"
)


@dataclass(frozen=True)
class Header:
    """What a file says of itself; no tensor has been read."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor, by its key."""
    metadata: Mapping[str, str]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """By the same keys, as safetensors names them."""

    def has(self, *starts: str) -> bool:
        """A key begins with one of ``starts``."""
        return any(key.startswith(starts) for key in self.shapes)


def read_header(path: Path, where: str) -> Header:
    """The header of a safetensors file; the size of the file and the place of every tensor in it are checked.

    Raises:
        RelayError: it is no safetensors file, or is cut short, or its header does not fit what follows.
    """
    from safetensors import safe_open

    check_file(path, where, HOW_TO_CONVERT_FILE)
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: tuple(one.get_shape()) for key, one in slices.items()}
        return Header(shapes, file.metadata() or {}, {key: one.get_dtype() for key, one in slices.items()})


def read_tensors(path: Path, wanted: Callable[[str], str | None], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors whose key ``wanted`` gives a name, under that name, each cast to ``dtype`` as it is read.

    A tensor that has ``dtype`` already is not copied: it is the file's own page, read when it is used. Integers stay integers.
    The others are read :data:`PORTION` bytes at a time; the pages of those bytes leave the process before the next are read.
    """
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    with safe_open(path, framework="pt") as file:
        left = [(key, name) for key in reversed(file.keys()) if (name := wanted(key)) is not None]
    with casting(dtype) as cast:
        while left:
            others: dict[str, torch.Tensor] = {}
            size = 0
            with safe_open(path, framework="pt") as file:
                while left and size < PORTION:
                    key, name = left.pop()
                    tensor = file.get_tensor(key)
                    as_it_is = tensor.dtype == dtype or not tensor.is_floating_point()
                    (tensors if as_it_is else others)[name] = tensor
                    size += 0 if as_it_is else tensor.nbytes
            tensors |= zip(others, cast(list(others.values())), strict=True)
            del others, tensor
    return tensors


def tensor_spans(path: Path, wanted: Callable[[str], str | None]) -> list[Span]:
    """Where the tensors whose key ``wanted`` gives a name lie in a file that :func:`read_header` found good, in the file's order."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    first = 8 + length
    places = sorted(entry["data_offsets"] for key, entry in header.items() if key != "__metadata__" and wanted(key))
    spans: list[Span] = []
    for start, stop in places:
        if spans and spans[-1].stop == first + start:
            start = spans.pop().start - first
        spans.append(Span(path, first + start, first + stop))
    return spans


def check_file(path: Path, where: str, how_to_convert: str) -> None:
    """Refuses what is not a whole safetensors file, before a tensor is read.

    Args:
        path: the file.
        where: what messages call it.
        how_to_convert: what to do with a pickle, for the message.

    Raises:
        RelayError: a pickle, a git-lfs pointer, a damaged or cut file, or none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            count = len(file.keys())
    except (SafetensorError, OSError) as error:
        raise RelayError(f"{where} {damage(path, error, how_to_convert)}.") from error
    if count > MOST_TENSORS:
        raise RelayError(
            f"{where} holds {count:,} tensors, and no model has more than {MOST_TENSORS:,}. Take another file."
        )
    if _ends_in_zeros(path):
        raise RelayError(
            f"{where} ends in zeros, its last {TAIL // 2**20} MB and maybe more, as a download does that was not finished: download it anew."
        )


def _ends_in_zeros(path: Path) -> bool:
    """Programs that load a file in pieces make it in its full size first. Its header is then good, and its weights are not."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < 8 * TAIL:  # a small file may be all zeros, such as a LoRA that was not trained
            return False
        file.seek(size - TAIL)
        return not file.read(TAIL).strip(b"\0")


def damage(path: Path, error: Exception, how_to_convert: str) -> str:
    """What a file is that safetensors could not read, and what to do: the end of a sentence that begins with its name."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # the disk says so, not the file
        return f"cannot be read: {error.strerror}. Look whether its disk or network drive is still there, and run again"
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as unreadable:
        return f"cannot be read ({unreadable.strerror or unreadable}): look whether it is still there"
    if is_pickle(start):
        return f"is a pickle under another name, and is not read. {how_to_convert.rstrip('.')}"
    said = str(error).removeprefix("Error while deserializing header: ")
    said = said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]}..."
    return what_it_is(start) or f"is damaged or cut short ({said}): download it anew"
