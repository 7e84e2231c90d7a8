"""Decides where modules run: one call per stage, with every module that the stage uses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """What modules are used for. A host may have a different device for each."""

    TEXT = "text"
    VAE = "vae"
    DENOISE = "denoise"


class OffloadPolicy(Protocol):
    """Brings modules to a device for the duration of a ``with`` block."""

    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> AbstractContextManager[torch.device]:
        """Inside the block, all ``modules`` compute on the yielded device. Each is loaded there as a whole, or streamed.

        Args:
            stage: what the modules are used for.
            modules: every module that the stage calls; a second call could evict those of the first.
            working_bytes: memory that the stage needs in addition to the weights, see :mod:`.working_memory`.
        """
        ...

    def output_device(self) -> torch.device:
        """The device that keeps results between stages."""
        ...

    def free(self) -> None:
        """Unloads all models from the devices and releases their cached memory."""
        ...

    def say(self, message: str) -> None:
        """Tells the user in one line how a module ran, if not as usual: streamed, or in another dtype."""
        ...


class PlainOffload:
    """The policy without a host: moves modules to ``device`` for a stage, then back, and frees the device's memory."""

    def __init__(self, device: str | torch.device = "cpu", capacity: int | None = None) -> None:
        """
        Args:
            device: where the stages compute.
            capacity: bytes that may be used there. None: all memory of a CUDA device; unlimited on other devices.
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
        streams = streamed_in(stage, modules, working_bytes, self._capacity, self.say)
        whole = [(module, next(module.parameters()).device) for module in modules if module not in streams]
        try:
            for module, _ in whole:
                move(module, self._device)
            with ExitStack() as stack:
                for module in streams:
                    stack.enter_context(streamed(module, self._device))
                yield self._device
        finally:
            for module, home in whole:
                move(module, home)
            if self._device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    def output_device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def free(self) -> None:
        """Modules are only on the device during their stage, so there is nothing to unload."""
        import gc

        import torch

        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def say(self, message: str) -> None:
        logger.info("%s", message)


def move(module: torch.nn.Module, device: torch.device) -> None:
    """Moves the module to ``device``, outside inference mode: otherwise its weights could only be used in inference mode."""
    import torch

    with torch.inference_mode(False):
        module.to(device)


def cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Casts the module to ``dtype``, outside inference mode, as in :func:`move`."""
    import torch

    with torch.inference_mode(False):
        torch.nn.Module.to(module, dtype=dtype)  # diffusers' override only adds a warning


def streamed_in(
    stage: Stage,
    modules: Sequence[torch.nn.Module],
    working_bytes: int,
    capacity: int | None,
    say: Callable[[str], None],
) -> list[torch.nn.Module]:
    """The modules that must be streamed in this stage. ``say`` is told of each.

    Autoencoders are never streamed: their weights are small compared to their working memory, and tiling helps there.
    """
    if stage is Stage.VAE:
        return []
    sizes = [module_bytes([module]) for module in modules]
    chosen = choose_streamed(sizes, working_bytes, capacity)
    for index in chosen:
        say(
            f"{type(modules[index]).__name__} is streamed block by block, which is slower: it has {_megabytes(sizes[index])}, the "
            f"run needs {_megabytes(working_bytes)} more, and {_room(capacity)}."
        )
    return [modules[index] for index in chosen]


def _room(capacity: int | None) -> str:
    return f"the device has {_megabytes(capacity)} for both" if capacity else "models are to stay off the device"


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.0f} MB"
