"""Modules that do not fit on the device whole: block by block, by diffusers' group offloading, for the length of a stage.

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
"""What lies above the list of layers in the encoders of transformers, which know nothing of group offloading."""
HOOK_ATTRIBUTES = ("forward", "_diffusers_hook")
"""What diffusers' hooks leave on a module."""


def choose_streamed(sizes: Sequence[int], working_bytes: int, capacity: int | None) -> tuple[int, ...]:
    """Which modules of a stage have to stream: the largest first, until the others and the work fit.

    Args:
        sizes: bytes of each module.
        working_bytes: what the stage needs beside them.
        capacity: bytes that the device has for both. None: the modules are at home there, and nothing streams.

    Returns:
        Indices into ``sizes``, in order.
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
    """The most that a streamed module has on the device at once: what is in no block, and two blocks, as one is fetched ahead."""
    blocks, rest = _blocks(module)
    return rest + sum(sorted(blocks)[-2:])


def _blocks(module: torch.nn.Module) -> tuple[list[int], int]:
    """Bytes of each block, and of all that is in none, by the rules of diffusers' block level."""
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
def streamed(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Inside the block, ``module`` computes on ``device`` and its weights stay where they are but for the block at work.

    The hooks are put on at the first call, so that what a stage adds to the module (a LoRA) streams with it. On the way
    out every weight is the very tensor that it was: what has been moved in inference mode could be used nowhere else.
    """
    weights = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())]
    found = [(part, {n: vars(part)[n] for n in HOOK_ATTRIBUTES if n in vars(part)}) for part in module.modules()]

    def first_call(*args: Any, **kwargs: Any) -> Any:
        _restore(found[:1])
        _apply(module, device)
        return module.forward(*args, **kwargs)

    try:
        module.forward = first_call
        yield
    finally:
        _restore(found)
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
        low_cpu_mem_usage=on_cuda,  # or every weight would have a second, pinned copy
        block_modules=list(_parents(module)) or None,
    )


def _restore(found: Sequence[tuple[torch.nn.Module, dict[str, Any]]]) -> None:
    for part, before in found:
        for name in HOOK_ATTRIBUTES:
            vars(part).pop(name, None)
        vars(part).update(before)
