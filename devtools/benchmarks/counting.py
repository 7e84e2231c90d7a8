"""Counts the models' calls by wrapping methods of diffusers' and transformers' classes in this process."""

from __future__ import annotations

import functools
from typing import Any

METHODS = {
    "encode": ("diffusers", ("AutoencoderKL", "VQModel"), "encode"),
    "decode": ("diffusers", ("AutoencoderKL", "VQModel"), "decode"),
    "text": ("transformers", ("CLIPTextModel", "CLIPTextModelWithProjection"), "forward"),
    "unet": ("diffusers", ("UNet2DConditionModel",), "forward"),
}

calls: list[tuple[str, list[int]]] = []
"""(what, shape of the first tensor), in order."""
_inside: set[str] = set()
_installed: set[str] = set()


def install() -> None:
    """Call once per process; imports diffusers and transformers."""
    import importlib

    for what, (library, class_names, method) in METHODS.items():
        if what not in _installed:
            _installed.add(what)
            for class_name in class_names:
                wrap(getattr(importlib.import_module(library), class_name), method, what)


def wrap(cls: Any, method: str, what: str) -> None:
    original = getattr(cls, method)

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if what in _inside:  # one encoder calls another, or a batch is processed in slices
            return original(*args, **kwargs)
        _inside.add(what)
        shapes = (list(value.shape) for value in (*args[1:], *kwargs.values()) if hasattr(value, "shape"))
        calls.append((what, next(shapes, [])))
        try:
            return original(*args, **kwargs)
        finally:
            _inside.discard(what)

    setattr(cls, method, counted)


def take() -> list[tuple[str, list[int]]]:
    """Returns the calls since the last `take`."""
    taken = list(calls)
    calls.clear()
    return taken
