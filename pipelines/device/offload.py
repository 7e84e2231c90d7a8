"""Where modules run: one call for each stage, with every module that the stage touches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from ..base.memory_size import module_bytes
from .streaming import choose_streamed, streamed

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024


class Stage(str, Enum):
    """What the modules are wanted for: a host may give each its own device."""

    TEXT = "text"
    VAE = "vae"
    DENOISE = "denoise"


class OffloadPolicy(Protocol):
    """Puts whole modules on a device for the length of a ``with`` block."""

    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> AbstractContextManager[torch.device]:
        """All ``modules`` compute on the yielded device inside the block: they are there whole, or stream to it.

        Args:
            stage: what for.
            modules: every module that the stage calls; a second call could evict the first's.
            working_bytes: what the stage needs beside the weights, see :mod:`.working_memory`.
        """
        ...

    def output_device(self) -> torch.device:
        """Where results of a stage wait for the next."""
        ...

    def free(self) -> None:
        """All models off the devices, and what they leave given back."""
        ...


class PlainOffload:
    """The policy with no host: modules go to ``device`` for a stage and back to where they were, and it is freed."""

    def __init__(self, device: str | torch.device = "cpu", capacity: int | None = None) -> None:
        """
        Args:
            device: where the stages compute.
            capacity: bytes that may be used there. None: all that a CUDA device has; no bound elsewhere.
        """
        import torch

        self._device = torch.device(device)
        if capacity is None and self._device.type == "cuda":
            capacity = torch.cuda.mem_get_info(self._device)[1]
        self._capacity = capacity

    @contextmanager
    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> Iterator[torch.device]:
        modules = list(modules)
        streams = streamed_in(stage, modules, working_bytes, self._capacity)
        homes = [(module, next(module.parameters()).device) for module in modules if module not in streams]
        try:
            for module, _ in homes:
                move(module, self._device)
            with ExitStack() as stack:
                for module in streams:
                    stack.enter_context(streamed(module, self._device))
                yield self._device
        finally:
            for module, home in homes:
                move(module, home)
            if self._device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    def output_device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def free(self) -> None:
        """Modules are on the device within their stage only: there is nothing to unload."""
        import gc

        import torch

        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def move(module: torch.nn.Module, device: torch.device) -> None:
    """The whole module to ``device``. Moved in inference mode, its weights could never be used outside of it again."""
    import torch

    with torch.inference_mode(False):
        module.to(device)


def cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """The whole module to ``dtype``; of inference mode, see :func:`move`."""
    import torch

    with torch.inference_mode(False):
        torch.nn.Module.to(module, dtype=dtype)  # not the override, which only adds a warning


def streamed_in(
    stage: Stage, modules: Sequence[torch.nn.Module], working_bytes: int, capacity: int | None
) -> list[torch.nn.Module]:
    """Those of ``modules`` that have to stream in this stage, said in the log.

    An autoencoder never does: beside what it needs to work its weights are small, and tiles are what helps there.
    """
    if stage is Stage.VAE:
        return []
    sizes = [module_bytes([module]) for module in modules]
    chosen = choose_streamed(sizes, working_bytes, capacity)
    for index in chosen:
        logger.info(
            "%s (%d MB, and %d MB to work with) is streamed block by block: the device has %d MB for this stage",
            type(modules[index]).__name__,
            sizes[index] // MEGABYTE,
            working_bytes // MEGABYTE,
            (capacity or 0) // MEGABYTE,
        )
    return [modules[index] for index in chosen]
