"""Makes the host's cancel button work within one call of a text encoder or autoencoder, which can take minutes on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management as memory
import torch


@contextmanager
def stoppable(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within the block, the modules raise the host's interrupt between two layers once the user has cancelled.

    Not for compiled modules: the hooks would make torch compile them again.
    """
    layers = {
        layer
        for module in modules
        for child in module.modules()
        if isinstance(child, torch.nn.ModuleList)
        for layer in child
    }
    hooks = [layer.register_forward_pre_hook(_check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check(*_: Any) -> None:
    memory.throw_exception_if_processing_interrupted()
