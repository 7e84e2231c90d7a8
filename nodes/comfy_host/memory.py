"""Puts diffusers' modules under the host's memory manager, which loads and unloads them whole."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import comfy
import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher

from ...pipelines.device.offload import Stage, move, streamed_in
from ...pipelines.device.streaming import resident_bytes, streamed
from .cancel import stoppable

log = logging.getLogger("diffusers_relay")


class HostOffload:
    """Modules stay on the stage's device until the host needs the memory, like its own models."""

    def __init__(self, say: Callable[[str], None] = log.info) -> None:
        """
        Args:
            say: shows the user a line. Without it, the line is only logged.
        """
        self._say = say

    @contextmanager
    def on_device(
        self, stage: Stage, modules: Iterable[torch.nn.Module], working_bytes: int = 0
    ) -> Iterator[torch.device]:
        memory.throw_exception_if_processing_interrupted()
        device, home = _devices(stage)
        modules = list(modules)
        log.debug("stage %s: %s", stage.value, ", ".join(type(module).__name__ for module in modules))
        patchers = {module: _patcher_for(module, device, home) for module in modules}
        streams = streamed_in(stage, modules, working_bytes, _capacity(device), self._say)
        for module in streams:
            _unload(patchers.pop(module))
        _load(list(patchers.values()), device, working_bytes + sum(resident_bytes(module) for module in streams))
        with ExitStack() as stack:
            for module in streams:
                stack.enter_context(streamed(module, device))
            if stage is not Stage.DENOISE:  # a denoising run checks for a cancel after each step
                stack.enter_context(stoppable(modules))
            yield device

    def output_device(self) -> torch.device:
        return memory.intermediate_device()

    def free(self) -> None:
        memory.unload_all_models()
        gc.collect()
        memory.soft_empty_cache()

    def say(self, message: str) -> None:
        self._say(message)


def _devices(stage: Stage) -> tuple[torch.device, torch.device]:
    """The device on which the host runs its own models of this stage, and the device to which it unloads them."""
    if stage is Stage.TEXT:
        return memory.text_encoder_device(), memory.text_encoder_offload_device()
    if stage is Stage.VAE:
        return memory.vae_device(), memory.vae_offload_device()
    return memory.get_torch_device(), memory.unet_offload_device()


def _capacity(device: torch.device) -> int | None:
    """The usable bytes of the device: 0 if the user asked for split models (--lowvram, --novram), None if there is no limit.

    On a newer host with dynamic VRAM, --lowvram does nothing, so it does nothing here.
    """
    if memory.is_device_cpu(device):
        return None
    if memory.vram_state is memory.VRAMState.NO_VRAM:
        return 0
    if memory.vram_state is memory.VRAMState.LOW_VRAM and not _has_dynamic_vram():
        return 0
    return int(memory.get_total_memory(device) - memory.extra_reserved_memory())


def _has_dynamic_vram() -> bool:
    return bool(getattr(getattr(comfy, "memory_management", None), "aimdo_enabled", False))


class WeakWrapper(torch.nn.Module):
    """Wraps a module for the host's patcher, which sets attributes (such as ``device``) that diffusers' modules refuse.

    The reference to the module is weak, so the host does not keep the module alive.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._modules: Any = WeakValueDictionary({"module": module})

    def to(self, device: torch.device) -> WeakWrapper:  # type: ignore[override]
        """Moves the module. The host calls this."""
        for module in self.children():
            move(module, device)
        return self


class WholePatcher(ModelPatcher):
    """Loads a module whole or not at all. The host's own patcher would split a module that does not fit over two devices."""

    def partially_load(self, device_to: torch.device, *args: Any, **kwargs: Any) -> int:
        """Loads the whole module, whatever budget the host passes. Returns the bytes that were loaded."""
        before = self.loaded_size()
        if before == 0:
            try:
                with torch.inference_mode(False):
                    self.patch_model(device_to)
            except BaseException:
                self.detach()
                raise
        return self.loaded_size() - before

    def partially_unload(self, *args: Any, **kwargs: Any) -> int:
        """Unloads nothing, so that the host unloads the whole module. Returns 0."""
        return 0


_patchers: WeakKeyDictionary[torch.nn.Module, WholePatcher] = WeakKeyDictionary()
"""Weak, as in the host: a patcher is dropped together with its module."""


def _patcher_for(module: torch.nn.Module, device: torch.device, home: torch.device) -> WholePatcher:
    """The module's patcher, created on first use."""
    patcher = _patchers.get(module)
    if patcher is None:
        patcher = _patchers[module] = WholePatcher(_wrapper_class(type(module).__name__)(module), device, home)
    if (patcher.load_device, patcher.offload_device) != (device, home):
        _unload(patcher)
        patcher.load_device, patcher.offload_device = device, home
    return patcher


@cache
def _wrapper_class(name: str) -> type[WeakWrapper]:
    """A subclass with this name, because the host's log shows a model's class name."""
    return type(name, (WeakWrapper,), {})


def _load(patchers: list[WholePatcher], device: torch.device, working_bytes: int) -> None:
    """Frees memory by the host's rules and loads all patchers to the device."""
    if not patchers:
        if not memory.is_device_cpu(device):
            memory.free_memory(working_bytes + memory.extra_reserved_memory(), device)
        return
    try:
        memory.load_models_gpu(patchers, memory_required=working_bytes)
    except BaseException:
        # The host has already removed them from its list, so it would not unload those that are on the device.
        for patcher in patchers:
            patcher.detach()
        raise


def _unload(patcher: WholePatcher) -> None:
    for entry in [entry for entry in memory.current_loaded_models if entry.model is patcher]:
        entry.model_unload()
        memory.current_loaded_models.remove(entry)
