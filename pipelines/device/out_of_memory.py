"""Handles a device that runs out of memory: everything is unloaded from it, and the run is tried once more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..base.errors import RelayError
from .runtime import Runtime

if TYPE_CHECKING:
    from typing import ParamSpec

    from ..base.monitor import Monitor
    from .offload import OffloadPolicy

    Parameters = ParamSpec("Parameters")

Result = TypeVar("Result")

ALLOCATOR_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of the RuntimeErrors that torch's allocators for the CPU and other non-CUDA devices raise."""


def ran_out(error: BaseException) -> bool:
    """Whether ``error`` says that a device, or the machine, ran out of memory."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in ALLOCATOR_MESSAGES)


def once_more(
    attempt: Callable[[], Result], policy: OffloadPolicy, monitor: Monitor, instead: Callable[[], Result] | None = None
) -> Result:
    """Calls ``attempt``; if the device runs out of memory, unloads everything and calls ``instead`` (or ``attempt`` again).

    Each call must start from scratch: it creates its own generators from the seed.

    Raises:
        RelayError: the second call runs out of memory too.
    """
    try:
        return attempt()
    except Exception as error:
        if not ran_out(error):
            raise
    # Only after the handler: until then, the error keeps everything alive that was on the device when it was raised.
    policy.free()
    again = "again in tiles" if instead else "once more"
    monitor.say(f"The device ran out of memory. All models were unloaded from it, and the run is tried {again}.")
    try:
        return (instead or attempt)()
    except Exception as error:
        if not ran_out(error):
            raise
        reason = str(error).strip().split("\n")[0]
    policy.free()
    raise RelayError(
        f"The device ran out of memory twice, the second time {'in tiles and ' if instead else ''}with nothing else loaded. Use a smaller picture, "
        "batch_size or tile_size, a model in float16 or bfloat16, or Optimize (Diffusers) with vae_tiling; or start ComfyUI with --novram. "
        f"The device reported: {reason}"
    )


def tried_once_more(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates ``function``, which has one :class:`Runtime` among its arguments, with :func:`once_more`."""

    @functools.wraps(function)
    def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        (runtime,) = (value for value in (*arguments, *named.values()) if isinstance(value, Runtime))
        return once_more(lambda: function(*arguments, **named), runtime.policy, runtime.monitor)

    return run
