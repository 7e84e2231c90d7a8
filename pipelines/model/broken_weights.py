"""Looks for NaN or infinite weights after a run gave such a result; this takes about a second for a large model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def broken_weights(modules: Mapping[str, Any]) -> str:
    """A sentence about the first module with a NaN or infinite weight; empty if there is none. ``modules``: name -> module."""
    for name, module in modules.items():
        for key, weight in module.state_dict().items():
            if weight.is_floating_point() and not weight.is_meta and not bool(weight.isfinite().all()):
                half = str(weight.dtype) == "torch.float16"
                advice = (
                    "load it in float32, and if that does not help, download it again" if half else "download it again"
                )
                return f"Its {name} has NaN or infinite weights ({key}), so its file is damaged{' or its values are too large for float16' if half else ''}: {advice}."
    return ""
