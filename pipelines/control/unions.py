"""ControlNet Union: one ControlNet for several kinds of control picture. The kind is its mode."""

from __future__ import annotations

from ..base.errors import RelayError, shown

NO_MODE = "none"
MODES = (
    "openpose",
    "depth",
    "hed/pidi/scribble/ted",
    "canny/lineart/anime_lineart/mlsd",
    "normal",
    "segment",
    "tile",
    "repaint",
)
"""The modes in the order of diffusers' ``control_mode``, with ComfyUI's names. xinsir's Union has the first six, ProMax has all eight.

Source: https://github.com/xinsir6/ControlNetPlus
"""


def mode_number(title: str, mode: str, control_types: int) -> int | None:
    """diffusers' ``control_mode`` for a mode; None for an ordinary ControlNet.

    Args:
        title: the ControlNet, for messages.
        mode: one of :data:`MODES`, or :data:`NO_MODE`.
        control_types: how many modes the ControlNet has; 0 for an ordinary one.

    Raises:
        RelayError: a ControlNet Union has no mode, or one that it does not have; or an ordinary ControlNet has one.
    """
    if not control_types:
        if mode != NO_MODE:
            raise RelayError(
                f"mode: {title} is not a ControlNet Union and reads only one kind of control picture. Set mode to {NO_MODE}, not {shown(mode)}."
            )
        return None
    own = MODES[:control_types]
    if mode == NO_MODE:
        raise RelayError(
            f"mode: {title} is a ControlNet Union, which must know the kind of the control picture. Choose one of: {', '.join(own)}."
        )
    if mode not in own:
        raise RelayError(f"mode: {title} has no mode {shown(mode)}. It has: {', '.join(own)}. Choose one of these.")
    return own.index(mode)
