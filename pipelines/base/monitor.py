"""What a run tells its user while it goes on, and how the user stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Monitor(Protocol):
    """A host's side of a run. Every method may raise the host's own interrupt, which must reach the host unchanged."""

    def check(self) -> None:
        """Raises if the user has cancelled."""
        ...

    def expect_latents(self) -> bool:
        """Denoising is about to begin, and nothing is on the device yet: the moment to make ready for previews.

        Returns:
            Whether there will be any. Where not, nothing is computed for them.
        """
        ...

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        """``done`` of ``total`` units are finished. ``latents``: [B, 4, h, w] in model scale, clean, for a preview."""
        ...

    def say(self, message: str) -> None:
        """One line for the user: in the node and in the log."""
        ...


class SilentMonitor:
    """No host: nothing is shown, nobody cancels; the log hears what is said."""

    def check(self) -> None:
        pass

    def expect_latents(self) -> bool:
        return False

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        pass

    def say(self, message: str) -> None:
        import logging

        logging.getLogger(__name__).info(message)
