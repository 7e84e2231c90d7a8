"""Weights that are no numbers: looked for where a result is none, because it takes a second of a large model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def broken_weights(modules: Mapping[str, Any]) -> str:
    """A sentence that names the first module (by its name in the model) with a weight that is NaN or infinite; empty where none is."""
    for name, module in modules.items():
        for key, weight in module.state_dict().items():
            if weight.is_floating_point() and not weight.is_meta and not bool(weight.isfinite().all()):
                half = str(weight.dtype) == "torch.float16"
                advice = "load it in float32, and if it is no better, download it anew" if half else "download it anew"
                return f"Its {name} holds weights that are no numbers ({key}), so its file is damaged{' or too large for float16' if half else ''}: {advice}."
    return ""
