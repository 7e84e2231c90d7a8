"""Counts the bytes that modules and tensors take in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensor_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """The bytes of all ``tensors``. Tensors that share memory (tied weights) count once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def module_bytes(modules: Iterable[Any]) -> int:
    """The bytes of the parameters and buffers of ``modules``. Tokenizers, processors and None count as 0."""
    import torch

    found = {id(module): module for module in modules if isinstance(module, torch.nn.Module)}
    return tensor_bytes(tensor for module in found.values() for tensor in _tensors(module))


def _tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
