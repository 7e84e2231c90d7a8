"""Builds a component from a checked config and checked weight files. The libraries never read the model's folder themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.component_files import SIDE_FILES, ComponentFiles, MissingFiles
from ..files.config_files import read_json_object
from ..files.safetensors import read_header, read_tensors
from .config_check import checked_config, from_config
from .encoder_building import build_encoder
from .processor_check import check_processor
from .scheduler_check import check_scheduler
from .t5_tokenizer import checked_t5_files
from .tokenizer_files import checked_files, read_tokenizer
from .weight_checks import (
    check_no_duplicates,
    refuse_missing,
    refuse_other_shapes,
    refuse_quantised,
    refuse_unexpected,
)

if TYPE_CHECKING:
    import torch

TOKENIZER_CHECKS = {"CLIPTokenizer": checked_files, "T5TokenizerFast": checked_t5_files}
"""Class of a tokenizer -> the function that reads and checks its files."""
OLD_ATTENTION = (".query.", ".key.", ".value.", ".proj_attn.")
"""Pieces of keys of VAEs that were saved before diffusers renamed these layers; diffusers renames them on loading."""


def component_class(files: ComponentFiles, where: str) -> Any:
    """
    Raises:
        RelayError: the installed library has no such class, or can't import it.
    """
    import importlib

    try:
        found = getattr(importlib.import_module(files.library), files.class_name, None)
    except (ImportError, RuntimeError) as error:  # the libraries import each class on first use
        raise RelayError(
            f"{where}: the installed {files.library} can't import {files.class_name}, the class of its {files.name}. Repair or update {files.library}."
        ) from error
    if not hasattr(found, "from_pretrained"):
        raise RelayError(
            f"{where}: its {files.name} is a {files.class_name}, which the installed {files.library} does not have. Update {files.library}."
        )
    return found


def read_config(folder: Path, files: ComponentFiles, where: str) -> dict[str, Any]:
    """The entries of the component's config that are data. For a tokenizer, the checked files by name.

    Raises:
        RelayError: a file is damaged, or contains values that no model has.
    """
    if files.classes.kind == "tokenizer":
        return dict(_tokenizer_files(folder, files, where))
    name = SIDE_FILES[files.classes.kind][0]
    title = f"{where}: {files.folder}/{name}" if files.folder else f"{where}: {name}"
    try:
        config = read_json_object(folder / files.folder / name, title)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFiles(f"{where} lacks {files.folder}/{name}.") from None
    return checked_config({**config, **dict(files.numbers)}, files.classes, component_class(files, where), title)


def _tokenizer_files(folder: Path, files: ComponentFiles, where: str) -> dict[str, str]:
    return TOKENIZER_CHECKS[files.class_name](folder / files.folder, f"{where}: {files.folder}")


def build(folder: Path, files: ComponentFiles, dtype: torch.dtype, where: str) -> Any:
    """The component. A module has weights in ``dtype``, is in evaluation mode, and needs no gradients.

    Raises:
        RelayError: the files do not make up such a component.
    """
    kind = component_class(files, where)
    if files.classes.kind == "tokenizer":
        return read_tokenizer(_tokenizer_files(folder, files, where), kind)
    config = read_config(folder, files, where)
    if files.classes.kind == "processor":
        processor = from_config(lambda: kind.from_dict(config), files, where)
        check_processor(processor, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return processor
    if files.classes.kind == "scheduler":
        scheduler = from_config(lambda: kind.from_config(config), files, where)
        check_scheduler(scheduler, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return scheduler
    headers = {name: read_header(folder / name, f"{where}: {name}") for name in files.weights}
    check_no_duplicates(headers, where)
    if files.library == "transformers":
        module = build_encoder(kind, config, folder, headers, dtype, files, where)
    else:
        module = _diffusers_module(kind, config, folder, files, dtype, where)
    return module.eval().requires_grad_(False)


def _diffusers_module(
    kind: Any, config: dict[str, Any], folder: Path, files: ComponentFiles, dtype: torch.dtype, where: str
) -> Any:
    from accelerate import init_empty_weights

    with _default_dtype(dtype), init_empty_weights(include_buffers=False):
        module = from_config(lambda: kind.from_config(config), files, where)
    state = module.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    unexpected: list[str] = []

    def key_if_known(key: str) -> str | None:
        if key in state or any(old in key for old in OLD_ATTENTION):
            return key
        unexpected.append(key)
        return None

    for name in files.weights:
        tensors |= read_tensors(folder / name, key_if_known, dtype)
    refuse_unexpected(unexpected, where, files)
    module._fix_state_dict_keys_on_load(tensors)  # test_loading.py tells if it moves
    refuse_quantised(tensors, where, files)
    refuse_missing(state.keys() - tensors.keys(), where, files)
    refuse_other_shapes(tensors, {key: value.shape for key, value in state.items()}, where, files)
    module.load_state_dict({key: tensors[key] for key in state}, assign=True)
    return module


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Modules create their tensors in ``dtype`` inside this context."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
