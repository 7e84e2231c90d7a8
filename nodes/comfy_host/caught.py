"""Exceptions that the host handles itself."""

from __future__ import annotations

import comfy.model_management as memory


def handles(error: BaseException) -> bool:
    """A cancel, or memory that has run out: they have to reach the host as they are."""
    out_of_memory = getattr(memory, "OOM_EXCEPTION", MemoryError)
    return isinstance(error, (memory.InterruptProcessingException, out_of_memory, MemoryError))
