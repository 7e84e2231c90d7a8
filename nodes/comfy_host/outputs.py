"""Special output values of the host."""

from __future__ import annotations

from typing import Any

from comfy_execution.graph import ExecutionBlocker


def refused_output(message: str) -> Any:
    """A value for an output that can't be used: any node connected to it fails with ``message``."""
    return ExecutionBlocker(message)
