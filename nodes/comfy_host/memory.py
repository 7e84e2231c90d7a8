"""Where the host lets modules run, and its memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import comfy.model_management as memory

from ...pipelines.offload import Stage

if TYPE_CHECKING:
    import torch

log = logging.getLogger("diffusers_relay")


class HostOffload:
    """Whole modules on the host's device for a stage, its offload device after it. The host frees room first."""

    @contextmanager
    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> Iterator[torch.device]:
        device, home = _devices(stage)
        modules = list(modules)
        away = [module for module in modules if next(module.parameters()).device != device]
        log.debug("stage %s: %s", stage.value, ", ".join(type(module).__name__ for module in modules))
        memory.free_memory(sum(memory.module_size(module) for module in away) + working_bytes, device)
        try:
            for module in away:
                module.to(device)
            yield device
        finally:
            if home != device:
                for module in modules:
                    module.to(home)
                memory.soft_empty_cache()

    def output_device(self) -> torch.device:
        return memory.intermediate_device()


def _devices(stage: Stage) -> tuple[torch.device, torch.device]:
    if stage is Stage.TEXT:
        return memory.text_encoder_device(), memory.text_encoder_offload_device()
    if stage is Stage.VAE:
        return memory.vae_device(), memory.vae_offload_device()
    return memory.get_torch_device(), memory.unet_offload_device()
