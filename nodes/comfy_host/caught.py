"""Exceptions that the host handles itself."""

from __future__ import annotations

import comfy.model_management as memory


def handles(error: BaseException) -> bool:
    """Whether the error is a cancel or out of memory, which must reach the host unchanged."""
    out_of_memory = getattr(memory, "OOM_EXCEPTION", MemoryError)
    return isinstance(error, (memory.InterruptProcessingException, out_of_memory, MemoryError))
