"""What is done where a device runs out of memory: everything else leaves it, and the run is tried once more."""

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

    Given = ParamSpec("Given")

Made = TypeVar("Made")

SAID_BY_ALLOCATORS = ("out of memory", "can't allocate memory", "not enough memory")
"""Parts of the texts of RuntimeErrors with which torch's allocators of other devices, the CPU's among them, refuse."""


def ran_out(error: BaseException) -> bool:
    """Whether a device had too little memory."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in SAID_BY_ALLOCATORS)


def once_more(
    attempt: Callable[[], Made], policy: OffloadPolicy, monitor: Monitor, instead: Callable[[], Made] | None = None
) -> Made:
    """``attempt()``, and where the device has too little memory for it, again (or ``instead``) with nothing else there.

    An attempt has to begin anew each time it is called: with generators of its own, from the seed.

    Raises:
        RelayError: too little memory for it alone, too.
    """
    try:
        return attempt()
    except Exception as error:
        if not ran_out(error):
            raise
    # Not before the handler has ended: the error holds on to all that was on the device when it was raised.
    policy.free()
    way = "in tiles" if instead else "once more"
    monitor.say(f"The device ran out of memory. All models were unloaded from it, and this is tried {way}.")
    try:
        return (instead or attempt)()
    except Exception as error:
        if not ran_out(error):
            raise
        reason = str(error).strip().split("\n")[0]
    policy.free()
    raise RelayError(
        f"The device ran out of memory, and did again, {way}, with nothing else on it. Use a smaller picture, batch_size or tile_size, a model "
        f"in float16 or bfloat16, or Optimize (Diffusers) with VAE tiling; or start ComfyUI with --lowvram. It said: {reason}"
    )


def tried_once_more(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """The function by way of :func:`once_more`, with the :class:`Runtime` that is among its arguments."""

    @functools.wraps(function)
    def run(*arguments: Given.args, **named: Given.kwargs) -> Made:
        (runtime,) = (one for one in (*arguments, *named.values()) if isinstance(one, Runtime))
        return once_more(lambda: function(*arguments, **named), runtime.policy, runtime.monitor)

    return run
