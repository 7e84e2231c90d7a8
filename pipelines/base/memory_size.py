"""The memory that modules, tensors and the values on wires take, and how the host's caches ask a value for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class SizedValue:
    """A value on a wire that knows its size. When memory runs short, the host drops the cached values that keep most.

    Shared modules count fully in each value, as in the host's own models; they are freed with the last value.
    """

    def tensors(self) -> list[torch.Tensor | None]:
        """Every tensor that this value keeps in memory, on any device."""
        raise NotImplementedError

    def get_ram_usage(self) -> int:
        """Bytes that this value keeps in memory. ComfyUI before 0.19 asks this."""
        return tensor_bytes(self.tensors())

    def _comfy_cache_tensors(self) -> list[torch.Tensor]:
        """What this value keeps, for ComfyUI 0.34 and newer, which adds up the sizes of those on the CPU.

        One tensor of bytes for each storage, so that shared memory counts once and mapped files count whole.
        """
        import torch

        return [
            torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            for storage in storages(self.tensors())
        ]


def storages(tensors: Iterable[torch.Tensor | None]) -> list[torch.UntypedStorage]:
    """The memory behind ``tensors``. Tensors that share memory (tied weights) have one."""
    found = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors if t is not None}
    return list(found.values())


def tensor_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """The bytes of all ``tensors``. Tensors that share memory count once."""
    return sum(storage.nbytes() for storage in storages(tensors))


def module_bytes(modules: Iterable[Any]) -> int:
    """The bytes of the parameters and buffers of ``modules``. Tokenizers, processors and None count as 0."""
    return tensor_bytes(module_tensors(modules))


def module_tensors(modules: Iterable[Any]) -> list[torch.Tensor]:
    """The parameters and buffers of ``modules``. Tokenizers, processors and None have none."""
    import torch

    found = {id(module): module for module in modules if isinstance(module, torch.nn.Module)}
    return [tensor for module in found.values() for tensor in (*module.parameters(), *module.buffers())]
