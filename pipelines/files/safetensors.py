"""Reads the header and tensors of safetensors files, and tells what a file is if it is not one."""

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
"""The suffixes of safetensors files in every folder, in lower or upper case."""
MOST_TENSORS = 50_000
"""SDXL has 2,500, large LoRAs have 10,000. Reading a header of 100 MB would take half a minute."""
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
"""safetensors' names of the dtypes of weights that are not quantised."""
TAIL = 2**20
LONGEST_REASON = 120
PORTION = 64 * 2**20
"""Bytes of a file that are cast before their pages are released."""
CONVERTER = f"custom_nodes/{Path(__file__).parents[2].name}/convert_pickle.py"
"""A script of the pack that users may run, relative to ComfyUI's folder. No node runs it."""
HOW_TO_CONVERT_FILE = (
    "A pickle can run any code when it is read, so Diffusers Relay only loads safetensors. Use the .safetensors file that "
    f'its author publishes, or convert it once: python "{CONVERTER}" FILE (in ComfyUI\'s folder), or in Python: '
    '`StableDiffusionPipeline.from_single_file("model.ckpt").save_pretrained("models/diffusers/model", safe_serialization=True)`'
)

HOW_TO_CONVERT_WEIGHTS = (
    "A pickle can run any code when it is read, so Diffusers Relay only loads safetensors. Convert it once: "
    f'python "{CONVERTER}" FILE (in ComfyUI\'s folder), or in Python: '
    "`safetensors.torch.save_file({k: v.detach().clone().contiguous() for p in [torch.load(open(file, 'rb'), weights_only=True)] "
    "for d in [p, *p.values()] if isinstance(d, dict) for k, v in d.items() if torch.is_tensor(v)}, name)`"
)


@dataclass(frozen=True)
class Header:
    """The header of a file. No tensor has been read."""

    shapes: Mapping[str, tuple[int, ...]]
    """Key -> shape of each tensor."""
    metadata: Mapping[str, str]
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Key -> dtype of each tensor, with safetensors' names."""

    def has(self, *starts: str) -> bool:
        """Whether a key begins with one of ``starts``."""
        return any(key.startswith(starts) for key in self.shapes)


def read_header(path: Path, where: str) -> Header:
    """The header of a safetensors file. The size of the file and the position of every tensor in it are checked.

    Raises:
        RelayError: it is not a safetensors file, is cut short, or its header does not match the data.
    """
    from safetensors import safe_open

    check_file(path, where, HOW_TO_CONVERT_FILE)
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: tuple(tensor.get_shape()) for key, tensor in slices.items()}
        return Header(shapes, file.metadata() or {}, {key: tensor.get_dtype() for key, tensor in slices.items()})


def read_tensors(path: Path, rename: Callable[[str], str | None], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors for whose key ``rename`` returns a name, by that name, each cast to ``dtype`` as it is read.

    A tensor that already has ``dtype`` is not copied but memory-mapped, and read on use. Integers are not cast. Other
    tensors are read :data:`PORTION` bytes at a time, and the pages of each portion are released before the next is read.
    """
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    with safe_open(path, framework="pt") as file:
        left = [(key, name) for key in reversed(file.keys()) if (name := rename(key)) is not None]
    with casting(dtype) as cast:
        while left:
            to_cast: dict[str, torch.Tensor] = {}
            size = 0
            with safe_open(path, framework="pt") as file:
                while left and size < PORTION:
                    key, name = left.pop()
                    tensor = file.get_tensor(key)
                    unchanged = tensor.dtype == dtype or not tensor.is_floating_point()
                    (tensors if unchanged else to_cast)[name] = tensor
                    size += 0 if unchanged else tensor.nbytes
            tensors |= zip(to_cast, cast(list(to_cast.values())), strict=True)
            del to_cast, tensor
    return tensors


def tensor_spans(path: Path, rename: Callable[[str], str | None]) -> list[Span]:
    """The bytes of the tensors for whose key ``rename`` returns a name, in the file's order. :func:`read_header` must have checked the file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    first = 8 + length
    places = sorted(entry["data_offsets"] for key, entry in header.items() if key != "__metadata__" and rename(key))
    spans: list[Span] = []
    for start, stop in places:
        if spans and spans[-1].stop == first + start:
            start = spans.pop().start - first
        spans.append(Span(path, first + start, first + stop))
    return spans


def check_file(path: Path, where: str, how_to_convert: str) -> None:
    """Checks that a file is a complete safetensors file, before a tensor is read.

    Args:
        path: the file.
        where: its name for messages.
        how_to_convert: what to do with a pickle, for the message.

    Raises:
        RelayError: it is missing, a pickle, a git-lfs pointer, or another kind of file, or it is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            count = len(file.keys())
    except (SafetensorError, OSError) as error:
        raise RelayError(f"{where} {damage(path, error, how_to_convert)}.") from error
    if count > MOST_TENSORS:
        raise RelayError(
            f"{where} has {count:,} tensors, but no model has more than {MOST_TENSORS:,}. Use another file."
        )
    if _ends_in_zeros(path):
        raise RelayError(
            f"{where} has only zeros in its last {TAIL // 2**20} MB or more, like an unfinished download: download it again."
        )


def _ends_in_zeros(path: Path) -> bool:
    """Whether the file ends in zeros. Programs that download in pieces may create the file in full size, with a valid header, first."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < 8 * TAIL:  # a small file may really be all zeros, such as an untrained LoRA
            return False
        file.seek(size - TAIL)
        return not file.read(TAIL).strip(b"\0")


def damage(path: Path, error: Exception, how_to_convert: str) -> str:
    """What is wrong with a file that safetensors can't read, and what to do, as the end of a sentence that begins with its name."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # a disk error
        return f"can't be read: {error.strerror}. Check that its disk or network drive is connected, and run again"
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as unreadable:
        return f"can't be read ({unreadable.strerror or unreadable}): check that it still exists"
    if is_pickle(start):
        return f"is a pickle with another suffix, so it is not loaded. {how_to_convert.rstrip('.')}"
    reason = str(error).removeprefix("Error while deserializing header: ")
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
    return what_it_is(start) or f"is damaged or cut short ({reason}): download it again"
