"""Builds a component from a checked config and checked weight files. The libraries never read the model's folder themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, in_a_line, shown
from ..files.config_files import read_json_object
from ..files.model_files import SIDE_FILES, ComponentFiles, MissingFiles
from ..files.safetensors import Header, read_header, read_tensors
from .config_check import checked_config, least_parameters
from .processor_check import check_processor
from .scheduler_check import check_scheduler
from .t5_tokenizer import checked_t5_files
from .tokenizer_files import checked_files, read_tokenizer

if TYPE_CHECKING:
    import torch

BESIDE_AN_ENCODER = ("position_ids", "visual_projection", "text_projection", "logit_scale")
"""Pieces of keys of a whole CLIP model, which may have been saved with an encoder that does not use them."""
OLD_ATTENTION = (".query.", ".key.", ".value.", ".proj_attn.")
"""Pieces of keys of VAEs that were saved before diffusers renamed these layers; diffusers renames them on loading."""

TEXT_MODEL, PICTURE_MODEL = "text_model.", "vision_model."


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
    return checked_config(config, files.classes, component_class(files, where), title)


def _tokenizer_files(folder: Path, files: ComponentFiles, where: str) -> dict[str, str]:
    checked = checked_t5_files if files.class_name.startswith("T5") else checked_files
    return checked(folder / files.folder, f"{where}: {files.folder}")


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
        processor = _from_config(lambda: kind.from_dict(config), files, where)
        check_processor(processor, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return processor
    if files.classes.kind == "scheduler":
        scheduler = _from_config(lambda: kind.from_config(config), files, where)
        check_scheduler(scheduler, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return scheduler
    headers = {name: read_header(folder / name, f"{where}: {name}") for name in files.weights}
    _check_no_duplicates(headers, where)
    if files.library == "transformers":
        module = _encoder(kind, config, folder, headers, dtype, files, where)
    else:
        module = _diffusers_module(kind, config, folder, files, dtype, where)
    return module.eval().requires_grad_(False)


def _from_config(construct: Callable[[], Any], files: ComponentFiles, where: str) -> Any:
    """The result of ``construct``. If the library rejects the config, the message quotes its reason."""
    try:
        return construct()
    except MemoryError:
        raise
    except Exception as error:
        name = "/".join(filter(None, (files.folder, SIDE_FILES[files.classes.kind][0])))
        reason = f"it does not know {error}" if isinstance(error, KeyError) else in_a_line(error)
        raise RelayError(
            f"{where}: {files.class_name} can't be built from {name} ({reason}). Use the file from a complete copy of the model."
        ) from error


def _check_no_duplicates(headers: Mapping[str, Header], where: str) -> None:
    seen: set[str] = set()
    for name, header in headers.items():
        repeated = seen.intersection(header.shapes)
        if repeated:
            raise RelayError(
                f"{where}: {name} contains {shown(min(repeated))}, which another shard contains too. Download the model again."
            )
        seen.update(header.shapes)


def _encoder(
    kind: Any,
    config: Mapping[str, Any],
    folder: Path,
    headers: Mapping[str, Header],
    dtype: torch.dtype,
    files: ComponentFiles,
    where: str,
) -> Any:
    """A text or image encoder of transformers. Without a folder, transformers can't look for adapters, code or other weights."""
    import math

    import torch

    settings = _from_config(lambda: kind.config_class(**config, architectures=[kind.__name__]), files, where)
    needed = least_parameters(settings)
    present = sum(math.prod(shape) for header in headers.values() for shape in header.shapes.values())
    if needed > present:  # the library would fill in random values for what is missing
        raise RelayError(
            f"{where}: the weights of its {files.name} don't match its config, which needs {needed:,} numbers; the files contain {present:,}. "
            f"Download the model again."
        )
    stays_float32 = _float32_layers(kind, dtype)
    tensors: dict[str, torch.Tensor] = {}
    for name in files.weights:
        tensors |= read_tensors(folder / name, lambda key: None if stays_float32(key) else key, dtype)
        tensors |= read_tensors(folder / name, lambda key: key if stays_float32(key) else None, torch.float32)
    _refuse_quantised(tensors, where, files)
    with torch.device("meta"):
        expected = {
            key: value.shape for key, value in _from_config(lambda: kind(settings), files, where).state_dict().items()
        }
    tensors = _renamed_for_this_version(_of_this_encoder(tensors, expected, settings), expected)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("position_ids")}
    _refuse_unexpected([key for key in tensors if key not in expected], where, files)
    tied = set(kind._tied_weights_keys or ())  # the same weights under another name
    _refuse_missing({key for key in expected if not key.endswith("position_ids")} - tensors.keys() - tied, where, files)
    _refuse_other_shapes(tensors, expected, where, files)
    module, report = kind.from_pretrained(
        None, local_files_only=True, config=settings, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    _refuse_missing(report["missing_keys"], where, files)
    return module


def _float32_layers(kind: Any, dtype: torch.dtype) -> Callable[[str], bool]:
    """Tells the keys that transformers keeps in float32 in a float16 model: T5's ``wo``, which overflow. They must be read as float32."""
    import torch

    names = set(kind._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    return lambda key: not names.isdisjoint(key.split("."))


def _of_this_encoder(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, Any], settings: Any
) -> dict[str, torch.Tensor]:
    """The tensors without those that a whole CLIP model has besides this encoder."""
    own, other = ("vision_model.", TEXT_MODEL) if hasattr(settings, "image_size") else (TEXT_MODEL, "vision_model.")
    others = {key for key in tensors if any(part in key for part in (*BESIDE_AN_ENCODER, other))}
    kept = {key.removeprefix(own) for key in expected}
    return {key: tensor for key, tensor in tensors.items() if key not in others or key.removeprefix(own) in kept}


def _renamed_for_this_version(tensors: dict[str, torch.Tensor], expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """transformers 5 saves encoders without the first part of their keys and reads both forms; transformers 4 reads only its own."""
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        bare = key.removeprefix(TEXT_MODEL).removeprefix(PICTURE_MODEL)
        choices = (key, TEXT_MODEL + bare, PICTURE_MODEL + bare, bare)
        renamed[next((choice for choice in choices if choice in expected), key)] = tensor
    return renamed


def _diffusers_module(
    kind: Any, config: dict[str, Any], folder: Path, files: ComponentFiles, dtype: torch.dtype, where: str
) -> Any:
    from accelerate import init_empty_weights

    with _default_dtype(dtype), init_empty_weights(include_buffers=False):
        module = _from_config(lambda: kind.from_config(config), files, where)
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
    _refuse_unexpected(unexpected, where, files)
    module._fix_state_dict_keys_on_load(tensors)  # test_loading.py tells if it moves
    _refuse_quantised(tensors, where, files)
    _refuse_missing(state.keys() - tensors.keys(), where, files)
    _refuse_other_shapes(tensors, {key: value.shape for key, value in state.items()}, where, files)
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


def _refuse_missing(missing: Any, where: str, files: ComponentFiles) -> None:
    """The libraries only warn, and leave random values in their place."""
    if missing:
        raise RelayError(
            f"{where}: the weights of its {files.name} don't match its config: {len(missing)} tensors are missing, {min(missing)} first. "
            f"Download the model again."
        )


def _refuse_other_shapes(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Any], where: str, files: ComponentFiles
) -> None:
    for key, shape in expected.items():
        if key in tensors and tensors[key].shape != shape:
            raise RelayError(
                f"{where}: the weights of its {files.name} don't match its config: {key} has shape {list(tensors[key].shape)}, "
                f"but the config needs {list(shape)}. Download the model again."
            )


def _refuse_unexpected(unexpected: list[str], where: str, files: ComponentFiles) -> None:
    """The libraries only warn, and drop such tensors: a LoRA or an IP-Adapter that was saved with a model would do nothing."""
    if unexpected:
        raise RelayError(
            f"{where}: the weights of its {files.name} contain {len(unexpected)} tensors that {files.class_name} does not use, such as "
            f"{shown(min(unexpected))}. It is another kind of model, or was saved with something else: use a copy with only the model."
        )


def _refuse_quantised(tensors: Mapping[str, torch.Tensor], where: str, files: ComponentFiles) -> None:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and not key.endswith("position_ids"):
            raise RelayError(
                f"{where}: the weights of its {files.name} are quantised ({shown(key)} is {tensor.dtype}), which Diffusers Relay does not "
                f"load. Use a copy in float16 or float32."
            )
