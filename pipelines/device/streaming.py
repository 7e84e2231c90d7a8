"""Streams modules that do not fit on the device, block by block, with diffusers' group offloading, for one stage.

Source: https://huggingface.co/docs/diffusers/optimization/memory#group-offloading
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..base.memory_size import module_bytes

if TYPE_CHECKING:
    import torch

CLIP_PARENTS = ("text_model", "vision_model", "encoder")
"""Attributes that contain the list of layers in transformers' encoders, which group offloading does not know."""
REGISTRY = "_diffusers_hook"
HOOK_ATTRIBUTES = ("forward", REGISTRY)
"""Attributes that diffusers' hooks set on a module."""


def choose_streamed(sizes: Sequence[int], working_bytes: int, capacity: int | None) -> tuple[int, ...]:
    """Which modules of a stage must be streamed: the largest first, until the rest and the working memory fit.

    Args:
        sizes: bytes of each module.
        working_bytes: memory that the stage needs in addition.
        capacity: bytes that the device has for both. None: unlimited, so nothing is streamed.

    Returns:
        Indices into ``sizes``, ascending.
    """
    if capacity is None:
        return ()
    chosen: list[int] = []
    total = sum(sizes) + working_bytes
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if total <= capacity:
            break
        chosen.append(index)
        total -= sizes[index]
    return tuple(sorted(chosen))


def resident_bytes(module: torch.nn.Module) -> int:
    """The most bytes that a streamed module has on the device at once: all outside its blocks, and the two largest blocks.

    Two, because the next block is fetched while one computes.
    """
    blocks, rest = _blocks(module)
    return rest + sum(sorted(blocks)[-2:])


def _blocks(module: torch.nn.Module) -> tuple[list[int], int]:
    """Bytes of each block, and of everything outside the blocks, by the rules of diffusers' ``block_level``."""
    import torch

    blocks: list[int] = []
    for name, child in module.named_children():
        if isinstance(child, (torch.nn.ModuleList, torch.nn.Sequential)):
            blocks += [module_bytes([block]) for block in child]
        elif name in _parents(module):
            blocks += _blocks(child)[0]
    return blocks, module_bytes([module]) - sum(blocks)


def _parents(module: Any) -> tuple[str, ...]:
    from diffusers import ModelMixin

    return () if isinstance(module, ModelMixin) else CLIP_PARENTS


@contextmanager
def without_empty_registries(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Removes the registries of hooks that some pipelines (``cache_context``) leave on ``modules``, if they hold no hook.

    A registry that stayed would keep the hooks of the next stream after its end.
    """
    try:
        yield
    finally:
        for module in modules:
            registry: Any = vars(module).get(REGISTRY)
            if registry is not None and not registry.hooks:
                delattr(module, REGISTRY)


@contextmanager
def streamed(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Inside the ``with`` block, ``module`` computes on ``device``, where only the blocks in use are loaded.

    The hooks are installed at the first call, so that additions of a stage (a LoRA) are streamed too. On exit, every
    weight gets its original tensor back, because one that was moved in inference mode only works in inference mode.
    """
    weights = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())]
    originals = [(part, {n: vars(part)[n] for n in HOOK_ATTRIBUTES if n in vars(part)}) for part in module.modules()]

    def first_call(*args: Any, **kwargs: Any) -> Any:
        _restore(originals[:1])
        _apply(module, device)
        return module.forward(*args, **kwargs)

    try:
        module.forward = first_call
        yield
    finally:
        _restore(originals)
        for tensor, data in weights:
            tensor.data = data


def _apply(module: torch.nn.Module, device: torch.device) -> None:
    from diffusers.hooks import apply_group_offloading

    home = next(module.parameters()).device
    on_cuda = device.type == "cuda"
    apply_group_offloading(
        module,
        onload_device=device,
        offload_device=home,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=on_cuda,
        low_cpu_mem_usage=on_cuda,  # otherwise every weight gets a second, pinned copy
        block_modules=list(_parents(module)) or None,
    )


def _restore(originals: Sequence[tuple[torch.nn.Module, dict[str, Any]]]) -> None:
    for part, attributes in originals:
        for name in HOOK_ATTRIBUTES:
            vars(part).pop(name, None)
        vars(part).update(attributes)
