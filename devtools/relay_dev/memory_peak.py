"""Measures the peak memory of a call: of its tensors only, or of everything that PyTorch's CPU allocator hands out."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Adds up the memory of tensors that operations create, from creation until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.top = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        existing = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in existing and key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self._now += storage.nbytes()
                    self.top = max(self.top, self._now)
                    weakref.finalize(storage, self._gone, key)
        return result

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def peak_of_tensors(call: Callable[[], Any]) -> int:
    """Peak bytes of the tensors that `call` creates, its inputs included."""
    fused = patch(
        "torch.nn.functional.scaled_dot_product_attention", lambda query, *args, **kwargs: torch.empty_like(query)
    )
    with torch.no_grad(), fused, LiveTensors() as live:
        call()
    return live.top


def peak_of_run(call: Callable[[], Any]) -> int:
    """Peak bytes that PyTorch's CPU allocator handed out during the call, including what kernels allocate."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    now = top = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            top = max(top, now)
    return top
