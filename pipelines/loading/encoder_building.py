"""Builds a text or image encoder of transformers from a checked config and checked weight files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError
from ..files.component_files import ComponentFiles
from ..files.safetensors import Header, read_tensors
from .config_check import from_config, least_parameters
from .llm_config import is_llm
from .weight_checks import refuse_missing, refuse_other_shapes, refuse_quantised, refuse_unexpected

if TYPE_CHECKING:
    import torch


BESIDE_AN_ENCODER = ("position_ids", "visual_projection", "text_projection", "logit_scale")
"""Pieces of keys of a whole CLIP model, which may have been saved with an encoder that does not use them."""


TEXT_MODEL, PICTURE_MODEL = "text_model.", "vision_model."
LANGUAGE_MODEL = ("model.language_model.", "language_model.model.", "model.")
"""First parts of an LLM's keys; which one depends on the version of transformers that saved it."""
BESIDE_A_LANGUAGE_MODEL = ("lm_head.", "visual.", "model.visual.")
"""First parts of keys of an LLM that its hidden states don't depend on if it only reads text."""


def build_encoder(
    kind: Any,
    config: Mapping[str, Any],
    folder: Path,
    headers: Mapping[str, Header],
    dtype: torch.dtype,
    files: ComponentFiles,
    where: str,
    rename: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
) -> Any:
    """A text or image encoder of transformers. Without a folder, transformers can't look for adapters, code or other weights.

    ``rename``: gives the tensors of the files transformers' names.
    """
    import math

    import torch

    settings = from_config(lambda: kind.config_class(**config, architectures=[kind.__name__]), files, where)
    needed = least_parameters(settings)
    present = sum(math.prod(shape) for header in headers.values() for shape in header.shapes.values())
    if needed > present:  # the library would fill in random values for what is missing
        raise RelayError(
            f"{where}: the weights of its {files.name} don't match its config, which needs {needed:,} numbers; the files contain {present:,}. "
            f"Download the model again."
        )
    stays_float32 = _float32_layers(kind, dtype)
    own = _language_key if is_llm(kind.__name__) else str
    tensors: dict[str, torch.Tensor] = {}
    for name in files.weights:
        tensors |= read_tensors(folder / name, lambda key: None if stays_float32(key) else own(key), dtype)
        if dtype == torch.float16:
            tensors |= read_tensors(folder / name, lambda key: own(key) if stays_float32(key) else None, torch.float32)
    tensors = rename(tensors)
    refuse_quantised(tensors, where, files)
    with torch.device("meta"):
        expected = {
            key: value.shape for key, value in from_config(lambda: kind(settings), files, where).state_dict().items()
        }
    tensors = _renamed_for_this_version(_of_this_encoder(tensors, expected, settings), expected)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith("position_ids")}
    refuse_unexpected([key for key in tensors if key not in expected], where, files)
    tied = set(kind._tied_weights_keys or ())  # the same weights under another name
    refuse_missing({key for key in expected if not key.endswith("position_ids")} - tensors.keys() - tied, where, files)
    refuse_other_shapes(tensors, expected, where, files)
    module, report = kind.from_pretrained(
        None, local_files_only=True, config=settings, state_dict=tensors, dtype=dtype, output_loading_info=True
    )
    refuse_missing(report["missing_keys"], where, files)
    return module


def _language_key(key: str) -> str | None:
    """The key in the language model alone; None: it belongs to another part of the LLM."""
    if key.startswith(BESIDE_A_LANGUAGE_MODEL):
        return None
    first = next((part for part in LANGUAGE_MODEL if key.startswith(part)), "")
    return key.removeprefix(first)


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
