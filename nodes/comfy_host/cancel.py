"""The host's cancel button inside of one call of a text encoder or an autoencoder, which can take minutes on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as memory
import torch


@contextmanager
def stoppable(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within the block the modules raise the host's interrupt between any two of their layers, as soon as the user has cancelled.

    Not for what torch compiles: it would be compiled anew with the hooks.
    """
    layers = {
        layer
        for module in modules
        for some in module.modules()
        if isinstance(some, torch.nn.ModuleList)
        for layer in some
    }
    hooks = [layer.register_forward_pre_hook(_check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(*_: Any) -> None:
    memory.throw_exception_if_processing_interrupted()
