"""The pack's own error: its text is what the user reads in the node."""

from typing import Any

LONGEST_NAME = 80


class RelayError(ValueError):
    """Says what was attempted, the value, and what is allowed or what to do."""

    # The host shows a type with its module, which for a custom node is the path of its folder.
    __module__ = "diffusers_relay"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__module__ = RelayError.__module__


def shown(name: object) -> str:
    """A name or value that a file gives, as messages show it: on one line, with no control characters, and short."""
    text = str(name)
    if len(text) > 4 * LONGEST_NAME:  # what is left out in the middle is not escaped first
        text = text[: 2 * LONGEST_NAME] + text[-2 * LONGEST_NAME :]
    text = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return text if len(text) <= LONGEST_NAME else f"{text[:45]}...{text[-32:]}"
