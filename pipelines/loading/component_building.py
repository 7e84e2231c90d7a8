"""A checked config and checked weight files -> a component. No library reads a folder of the model: it is given what was checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, in_a_line, shown
from ..files.config_files import read_json_object
from ..files.model_files import SIDE_FILES, ComponentFiles, MissingFiles
from ..files.safetensors import Header, read_header, read_tensors
from .config_check import checked_config, numbers_of_encoder
from .processor_check import check_processor
from .scheduler_check import check_scheduler
from .t5_tokenizer import checked_t5_files
from .tokenizer_files import checked_files, read_tokenizer

if TYPE_CHECKING:
    import torch

BESIDE_AN_ENCODER = ("position_ids", "visual_projection", "text_projection", "logit_scale")
"""Pieces of keys of a whole CLIP model, which an encoder may have been saved with and does not read."""
OLD_ATTENTION = (".query.", ".key.", ".value.", ".proj_attn.")
"""In keys of VAEs that were saved before diffusers renamed these layers; it renames them when it loads."""

TEXT_MODEL, PICTURE_MODEL = "text_model.", "vision_model."


def component_class(files: ComponentFiles, where: str) -> Any:
    """
    Raises:
        RelayError: the installed library has no such class, or can't bring it in.
    """
    import importlib

    try:
        found = getattr(importlib.import_module(files.library), files.class_name, None)
    except (ImportError, RuntimeError) as error:  # the libraries import each class when it is first asked for
        raise RelayError(
            f"{where}: the installed {files.library} can't bring in {files.class_name}, its {files.name}. Repair or update {files.library}."
        ) from error
    if not hasattr(found, "from_pretrained"):
        raise RelayError(
            f"{where}: its {files.name} is a {files.class_name}, which the installed {files.library} does not have. Update {files.library}."
        )
    return found


def read_config(folder: Path, files: ComponentFiles, where: str) -> dict[str, Any]:
    """What the component's config says, as far as it is data; of a tokenizer, its files are looked at too.

    Raises:
        RelayError: a file is damaged, or asks for what no model has.
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
    """The component; a module comes in ``dtype``, in evaluation mode, without gradients.

    Raises:
        RelayError: the files do not make one.
    """
    kind = component_class(files, where)
    if files.classes.kind == "tokenizer":
        return read_tokenizer(_tokenizer_files(folder, files, where), kind)
    config = read_config(folder, files, where)
    if files.classes.kind == "processor":
        processor = _made(lambda: kind.from_dict(config), files, where)
        check_processor(processor, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return processor
    if files.classes.kind == "scheduler":
        scheduler = _made(lambda: kind.from_config(config), files, where)
        check_scheduler(scheduler, f"{where}: {files.folder}/{SIDE_FILES[files.classes.kind][0]}")
        return scheduler
    headers = {name: read_header(folder / name, f"{where}: {name}") for name in files.weights}
    _check_apart(headers, where)
    if files.library == "transformers":
        module = _encoder(kind, config, folder, headers, dtype, files, where)
    else:
        module = _diffusers_module(kind, config, folder, files, dtype, where)
    return module.eval().requires_grad_(False)


def _made(make: Callable[[], Any], files: ComponentFiles, where: str) -> Any:
    """What the config makes; what the library says of a config that makes nothing is given as it is."""
    try:
        return make()
    except MemoryError:
        raise
    except Exception as error:
        name = "/".join(filter(None, (files.folder, SIDE_FILES[files.classes.kind][0])))
        reason = f"{error} is nothing that it knows" if isinstance(error, KeyError) else in_a_line(error)
        raise RelayError(
            f"{where}: {name} makes no {files.class_name} ({reason}). Take the file from a complete copy of the model."
        ) from error


def _check_apart(headers: Mapping[str, Header], where: str) -> None:
    seen: set[str] = set()
    for name, header in headers.items():
        twice = seen.intersection(header.shapes)
        if twice:
            raise RelayError(
                f"{where}: {name} holds {shown(min(twice))}, which another shard holds too. Download the model anew."
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
    """A text or picture encoder of transformers: with no folder, it looks for no adapter, no code and no other weights."""
    import math

    import torch

    settings = _made(lambda: kind.config_class(**config, architectures=[kind.__name__]), files, where)
    asked = numbers_of_encoder(settings)
    held = sum(math.prod(shape) for header in headers.values() for shape in header.shapes.values())
    if asked > held:  # the library would fill what is missing with random values of its own
        raise RelayError(
            f"{where}: the weights of its {files.name} are not those of its config: it asks for {asked:,} numbers, "
            f"and they are {held:,}. Download the model anew."
        )
    wide = _wide_layers(kind, dtype)
    tensors: dict[str, torch.Tensor] = {}
    for name in files.weights:
        tensors |= read_tensors(folder / name, lambda key: None if wide(key) else key, dtype)
        tensors |= read_tensors(folder / name, lambda key: key if wide(key) else None, torch.float32)
    _refuse_quantised(tensors, where, files)
    with torch.device("meta"):
        expected = {key: value.shape for key, value in _made(lambda: kind(settings), files, where).state_dict().items()}
    tensors = _as_this_version_names_them(_of_the_encoder(tensors, expected, settings), expected)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("position_ids")}
    _refuse_strangers([key for key in tensors if key not in expected], where, files)
    again = set(kind._tied_weights_keys or ())  # the same weights under another name
    _refuse_missing(
        {key for key in expected if not key.endswith("position_ids")} - tensors.keys() - again, where, files
    )
    _refuse_other_shapes(tensors, expected, where, files)
    module, report = kind.from_pretrained(
        None, local_files_only=True, config=settings, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    _refuse_missing(report["missing_keys"], where, files)
    return module


def _wide_layers(kind: Any, dtype: torch.dtype) -> Callable[[str], bool]:
    """Which keys transformers keeps in float32 in a model of float16: T5's ``wo``, which overflow. They are not narrowed first."""
    import torch

    names = set(kind._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
    return lambda key: not names.isdisjoint(key.split("."))


def _of_the_encoder(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, Any], settings: Any
) -> dict[str, torch.Tensor]:
    """Less what a whole CLIP model has beside this encoder."""
    own, other = ("vision_model.", TEXT_MODEL) if hasattr(settings, "image_size") else (TEXT_MODEL, "vision_model.")
    beside = {key for key in tensors if any(part in key for part in (*BESIDE_AN_ENCODER, other))}
    kept = {key.removeprefix(own) for key in expected}
    return {key: tensor for key, tensor in tensors.items() if key not in beside or key.removeprefix(own) in kept}


def _as_this_version_names_them(
    tensors: dict[str, torch.Tensor], expected: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """transformers 5 saves encoders without the first part of their keys, and reads both; 4 reads only its own."""
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
        module = _made(lambda: kind.from_config(config), files, where)
    state = module.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    strangers: list[str] = []

    def wanted(key: str) -> str | None:
        if key in state or any(old in key for old in OLD_ATTENTION):
            return key
        strangers.append(key)
        return None

    for name in files.weights:
        tensors |= read_tensors(folder / name, wanted, dtype)
    _refuse_strangers(strangers, where, files)
    module._fix_state_dict_keys_on_load(tensors)  # test_loading.py tells if it moves
    _refuse_quantised(tensors, where, files)
    _refuse_missing(state.keys() - tensors.keys(), where, files)
    _refuse_other_shapes(tensors, {key: value.shape for key, value in state.items()}, where, files)
    module.load_state_dict({key: tensors[key] for key in state}, assign=True)
    return module


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What modules make of themselves is of ``dtype`` meanwhile."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _refuse_missing(missing: Any, where: str, files: ComponentFiles) -> None:
    """The libraries warn, and leave random values there."""
    if missing:
        raise RelayError(
            f"{where}: the weights of its {files.name} are not those of its config: {len(missing)} tensors are missing, {min(missing)} first. "
            f"Download the model anew."
        )


def _refuse_other_shapes(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Any], where: str, files: ComponentFiles
) -> None:
    for key, shape in expected.items():
        if key in tensors and tensors[key].shape != shape:
            raise RelayError(
                f"{where}: the weights of its {files.name} are not those of its config: {key} is {list(tensors[key].shape)}, "
                f"and the config makes it {list(shape)}. Download the model anew."
            )


def _refuse_strangers(strangers: list[str], where: str, files: ComponentFiles) -> None:
    """The libraries warn, and leave out what has no place: a LoRA or an IP-Adapter that was saved with a model would do nothing."""
    if strangers:
        raise RelayError(
            f"{where}: the weights of its {files.name} hold {len(strangers)} tensors that a {files.class_name} has no place for, such as "
            f"{shown(min(strangers))}. It is of another kind, or something was saved with it: use a copy that holds the model alone."
        )


def _refuse_quantised(tensors: Mapping[str, torch.Tensor], where: str, files: ComponentFiles) -> None:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and not key.endswith("position_ids"):
            raise RelayError(
                f"{where}: the weights of its {files.name} are quantised ({shown(key)} is {tensor.dtype}), which Diffusers Relay does not "
                f"load. Use a copy in float16 or float32."
            )
