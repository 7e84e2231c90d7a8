"""Where modules run: one call for each stage, with every module that the stage touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


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
        """All ``modules`` are on the yielded device inside the block.

        Args:
            stage: what for.
            modules: every module that the stage calls; a second call could evict the first's.
            working_bytes: what the stage needs beside the weights.
        """
        ...

    def output_device(self) -> torch.device:
        """Where results of a stage wait for the next."""
        ...


class PlainOffload:
    """The policy with no host: modules go to ``device`` for a stage and back to where they were."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        import torch

        self._device = torch.device(device)

    @contextmanager
    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> Iterator[torch.device]:
        homes = [(module, next(module.parameters()).device) for module in modules]
        try:
            for module, _ in homes:
                module.to(self._device)
            yield self._device
        finally:
            for module, home in homes:
                module.to(home)

    def output_device(self) -> torch.device:
        import torch

        return torch.device("cpu")
