"""Shows a run's progress, previews and messages in the node, and checks the host's cancel button."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import comfy.model_management as memory
import comfy.utils

if TYPE_CHECKING:
    import torch

log = logging.getLogger("diffusers_relay")

_notes: ContextVar[list[str] | None] = ContextVar("relay_notes", default=None)
"""The messages of the node that is running."""


@contextmanager
def notes_kept() -> Iterator[list[str]]:
    """Collects what the monitors made inside say: each message once, in order."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


class HostMonitor:
    """Progress and previews in the node, and the host's cancel button."""

    def __init__(self, node_id: str | None, make_previewer: Callable[[], Any]) -> None:
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._make_previewer = make_previewer
        self._previewer: Any = None
        self._notes = _notes.get()

    def check(self) -> None:
        memory.throw_exception_if_processing_interrupted()

    def expect_latents(self) -> bool:
        self._previewer = self._make_previewer()
        return self._previewer is not None

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        self.check()
        preview = None
        if latents is not None and self._previewer is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents.float())
        if total != self._bar.total or done < self._bar.current:
            # Something else is counted now. Newer hosts don't send a report below the last one of the same bar.
            self._bar = comfy.utils.ProgressBar(total, node_id=self._node_id)
        self._bar.update_absolute(done, total, preview)

    def say(self, message: str) -> None:
        from server import PromptServer

        log.info("%s", message)
        if self._notes is not None and message not in self._notes:
            self._notes.append(message)
        server = getattr(PromptServer, "instance", None)
        if server is not None and self._node_id is not None:
            server.send_progress_text(message, self._node_id)
