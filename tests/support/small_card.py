"""A fake GPU of any size, to test the host's memory manager on a machine without one."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import pytest
import torch


class SmallCard:
    """The CPU under the name ``cpu:0``, which the host doesn't recognise as the CPU.

    All decisions and moves are the host's own code. This class only replaces the driver's answers: the card's size and free memory.
    """

    device = torch.device("cpu:0")

    def __init__(self, size: int, patch: pytest.MonkeyPatch) -> None:
        import comfy.model_management as memory

        self.size = size
        self.asked: list[int] = []
        self._models: WeakSet[Any] = WeakSet()
        free_memory, make_entry = memory.free_memory, memory.LoadedModel.__init__

        def noted(memory_required: float, device: torch.device, *args: Any, **kwargs: Any) -> Any:
            self.asked.append(int(memory_required))
            return free_memory(memory_required, device, *args, **kwargs)

        def seen(entry: Any, patcher: Any) -> None:
            self._models.add(patcher.model)
            make_entry(entry, patcher)

        patch.setattr(memory.LoadedModel, "__init__", seen)
        patch.setattr(memory, "get_torch_device", lambda: self.device)
        patch.setattr(memory, "text_encoder_device", lambda: self.device)
        patch.setattr(memory, "is_device_cpu", lambda device: device == torch.device("cpu"))
        patch.setattr(memory, "get_total_memory", lambda dev=None, torch_total_too=False: self.size)
        patch.setattr(memory, "get_free_memory", self._free)
        patch.setattr(memory, "vram_state", memory.VRAMState.NORMAL_VRAM)
        patch.setattr(memory, "EXTRA_RESERVED_VRAM", 0)
        patch.setattr(memory, "minimum_inference_memory", lambda: 0)
        patch.setattr(memory, "free_memory", noted)

    def used(self) -> int:
        """Bytes of all loaded models, including those that the host takes off its list while it loads."""
        return sum(model.model_loaded_weight_memory for model in self._models if model.device == self.device)

    def _free(self, dev: torch.device | None = None, torch_free_too: bool = False) -> Any:
        free = self.size - self.used()
        return (free, free) if torch_free_too else free
