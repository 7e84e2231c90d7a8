"""Raises errors where a component's weights do not match its class and config; the libraries only warn or stay silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..base.errors import RelayError, shown
from ..files.component_files import ComponentFiles
from ..files.safetensors import Header

if TYPE_CHECKING:
    import torch


def check_no_duplicates(headers: Mapping[str, Header], where: str) -> None:
    seen: set[str] = set()
    for name, header in headers.items():
        repeated = seen.intersection(header.shapes)
        if repeated:
            raise RelayError(
                f"{where}: {name} contains {shown(min(repeated))}, which another shard contains too. Download the model again."
            )
        seen.update(header.shapes)


def refuse_missing(missing: Any, where: str, files: ComponentFiles) -> None:
    """The libraries only warn, and leave random values in their place."""
    if missing:
        raise RelayError(
            f"{where}: the weights of its {files.name} don't match its config: {len(missing)} tensors are missing, {min(missing)} first. "
            f"Download the model again."
        )


def refuse_other_shapes(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Any], where: str, files: ComponentFiles
) -> None:
    for key, shape in expected.items():
        if key in tensors and tensors[key].shape != shape:
            raise RelayError(
                f"{where}: the weights of its {files.name} don't match its config: {key} has shape {list(tensors[key].shape)}, "
                f"but the config needs {list(shape)}. Download the model again."
            )


def refuse_unexpected(unexpected: list[str], where: str, files: ComponentFiles) -> None:
    """The libraries only warn, and drop such tensors: a LoRA or an IP-Adapter that was saved with a model would do nothing."""
    if unexpected:
        raise RelayError(
            f"{where}: the weights of its {files.name} contain {len(unexpected)} tensors that {files.class_name} does not use, such as "
            f"{shown(min(unexpected))}. It is another kind of model, or was saved with something else: use a copy with only the model."
        )


def refuse_quantised(tensors: Mapping[str, torch.Tensor], where: str, files: ComponentFiles) -> None:
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() and not key.endswith("position_ids"):
            raise RelayError(
                f"{where}: the weights of its {files.name} are quantised ({shown(key)} is {tensor.dtype}), which Diffusers Relay does not "
                f"load. Use a copy in float16 or float32."
            )
