"""Loads one component of a single file: diffusers converts its tensors, with a config of the pack."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, in_a_line, shown
from ..base.library_log import without_empty_warning, without_unused_weights
from ..files.read_ahead import read_ahead
from ..files.registry import REGISTRY, content_digest, file_identity
from ..files.safetensors import (
    FLOATS,
    HOW_TO_CONVERT_FILE,
    SAFE_SUFFIXES,
    Header,
    read_header,
    read_tensors,
    tensor_spans,
)
from .checkpoint_keys import Rename
from .file_signs import FULL_WEIGHTS

if TYPE_CHECKING:
    import torch


logger = logging.getLogger(__name__)


OTHER_SHAPE = re.compile(r"because (\S+) expected shape torch\.Size\((.*?)\), but got torch\.Size\((.*?)\)")


NO_TENSORS = re.compile(r"not seem to contain a valid|appear to be missing")
"""diffusers' messages for tensors that don't fit or are missing."""


@dataclass(frozen=True)
class Part:
    """One component of a file: its class, its config and its tensors in the file."""

    name: str
    library: str
    class_name: str
    config: Path
    """The folder with its config.json."""
    rename: Rename
    numbers: Mapping[str, Any]
    """Config entries from the file, which override those of the config."""
    reshape: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]] = dict
    """Applied to its tensors before diffusers gets them."""
    convert: Callable[[Part, dict[str, torch.Tensor], torch.dtype], Any] | None = None
    """Makes the module from its tensors; None: the class's own ``from_single_file``."""
    is_split: bool = False
    """Whether diffusers splits tensors of the file, so that their number can't be checked."""
    has_pruned_variants: bool = False
    """Whether there are pruned or distilled models of this kind, for messages."""


def check_file(path: Path, where: str) -> Header:
    """The header of a safetensors file.

    Raises:
        RelayError: the file is gone, is a pickle by its name or content, or is damaged.
    """
    check_name(path, where)
    if not path.is_file():
        raise RelayError(f"{where} no longer exists. Refresh the node list (key R) and choose another file.")
    return read_header(path, where)


def check_name(path: Path, where: str) -> None:
    """Raises RelayError if the file's name is not that of a safetensors file."""
    if not path.name.lower().endswith(SAFE_SUFFIXES):
        raise RelayError(f"{where} is not a .safetensors file. {HOW_TO_CONVERT_FILE}.")


def check_floats(header: Header, part: Part, where: str) -> None:
    """Checks that the part has no quantised weights, whose integers would be used as if they were the weights.

    Raises:
        RelayError: a tensor of the part has integers, booleans or complex numbers.
    """
    for key, dtype in header.dtypes.items():
        if dtype not in FLOATS and part.rename(key) is not None:
            raise RelayError(
                f"{where}: the weights of its {part.name} are quantised or not weights at all ({shown(key)} has dtype {dtype}), which Diffusers Relay "
                f"does not load. {FULL_WEIGHTS}"
            )


def read_parts_ahead(path: Path, parts: Sequence[Part], dtype: torch.dtype) -> None:
    """Starts reading the parts that are not in memory from disk, in order; the rest of the file is not read."""
    new = [part for part in parts if _key(path, part, dtype) not in REGISTRY]
    read_ahead([span for part in new for span in tensor_spans(path, part.rename)])


def load_part(path: Path, part: Part, dtype: torch.dtype, where: str) -> Any:
    """One component of a file; shared if it is already in memory."""
    return REGISTRY.get(_key(path, part, dtype), partial(_load, path, part, dtype, where))


def _key(path: Path, part: Part, dtype: torch.dtype) -> Hashable:
    return (
        "file",
        *(part.name, part.library, part.class_name),
        *(content_digest(part.config, ["config.json"]), json.dumps(part.numbers, sort_keys=True)),
        *(file_identity(path), dtype),
    )


def _load(path: Path, part: Part, dtype: torch.dtype, where: str) -> Any:
    import torch

    started = time.perf_counter()
    # As for a folder: weights created in the host's inference mode would remain inference tensors.
    with torch.inference_mode(False):
        try:
            tensors = part.reshape(read_tensors(path, part.rename, dtype))
            module = (part.convert or _single_file_model)(part, tensors, dtype)
        except (RelayError, MemoryError):
            raise
        except NotImplementedError as error:  # diffusers moves the module although some tensors have no data
            raise RelayError(_misfit(part, where)) from error
        except Exception as error:
            reason = in_a_line(str(error).split(" If you want")[0])  # the rest is advice for callers of the library
            if shapes := OTHER_SHAPE.search(reason):
                raise RelayError(
                    f"{where}: {_misfit(part, '').removeprefix(': ')} {shapes[1]} has shape {shapes[3]}, but this kind has {shapes[2]}."
                ) from error
            if NO_TENSORS.search(reason):
                raise RelayError(_misfit(part, where)) from error
            raise RelayError(f"{where}: could not load its {part.name} ({part.class_name}): {reason}.") from error
    _check_complete(module, part, len(tensors), where)
    logger.info("loaded %s of %s in %.2f s", part.name, where, time.perf_counter() - started)
    return module.eval().requires_grad_(False)


def _single_file_model(part: Part, tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    folder, subfolder = str(part.config.parent), part.config.name
    with without_empty_warning(), without_unused_weights():
        return _class_of(part).from_single_file(
            tensors, config=folder, subfolder=subfolder, torch_dtype=dtype, local_files_only=True, **part.numbers
        )


def clip_model(part: Part, tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    """A CLIP text encoder.

    ``StableDiffusionPipeline.from_single_file`` calls the same function of diffusers. The pipeline's method needs a whole file and
    would distinguish SDXL's two text encoders only by their widths.
    """
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    return create_diffusers_clip_model_from_ldm(
        _class_of(part),
        checkpoint=tensors,
        config=str(part.config.parent),
        subfolder=part.config.name,
        torch_dtype=dtype,
        local_files_only=True,
    )


def _class_of(part: Part) -> Any:
    import importlib

    return getattr(importlib.import_module(part.library), part.class_name)


def _check_complete(module: Any, part: Part, count: int, where: str) -> None:
    """diffusers leaves missing tensors without data, and drops unexpected ones with only a warning.

    ``count``: how many tensors diffusers got.
    """
    state = module.state_dict()
    if any(value.is_meta for value in state.values()) or (not part.is_split and len(state) != count):
        raise RelayError(_misfit(part, where))


def _misfit(part: Part, where: str) -> str:
    pruned = "a pruned or distilled model, " if part.has_pruned_variants else ""
    return (
        f"{where}: the tensors of its {part.name} don't match the {part.class_name} of this kind of model. It is {pruned}another variant or incomplete: "
        "use another file of the model, or its diffusers folder."
    )
