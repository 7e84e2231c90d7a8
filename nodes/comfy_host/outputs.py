"""Outputs that only the host knows."""

from __future__ import annotations

from typing import Any

from comfy_execution.graph import ExecutionBlocker


def refused_output(message: str) -> Any:
    """In the place of an output that means nothing: a node that it is connected to fails with ``message``, and no other."""
    return ExecutionBlocker(message)
