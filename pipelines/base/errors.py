"""The pack's own error: its text is what the user reads in the node."""

from typing import Any


class RelayError(ValueError):
    """Says what was attempted, the value, and what is allowed or what to do."""

    # The host shows a type with its module, which for a custom node is the path of its folder.
    __module__ = "diffusers_relay"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__module__ = RelayError.__module__
