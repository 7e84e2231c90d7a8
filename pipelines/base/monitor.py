"""How a run reports progress to the user, and how the user cancels it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Monitor(Protocol):
    """The host's side of a run. Every method may raise the host's interrupt, which must reach the host unchanged."""

    def check(self) -> None:
        """Raises if the user has cancelled."""
        ...

    def expect_latents(self) -> bool:
        """Called before denoising begins, when nothing is on the device yet, so that the host can prepare previews.

        Returns:
            Whether there will be previews. If not, nothing is computed for them.
        """
        ...

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        """``done`` of ``total`` units are finished. ``latents``: [B, 4, h, w] in model scale, clean, for a preview."""
        ...

    def say(self, message: str) -> None:
        """Shows the user one line, in the node and in the log."""
        ...


class SilentMonitor:
    """For runs without a host: no progress, no cancel; messages go to the log."""

    def check(self) -> None:
        pass

    def expect_latents(self) -> bool:
        return False

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        pass

    def say(self, message: str) -> None:
        import logging

        logging.getLogger(__name__).info(message)
