"""The pack's error class, whose text the user reads in the node."""

from typing import Any

LONGEST_NAME = 80


class RelayError(ValueError):
    """An error for the user: what was attempted, the value, and what is allowed or what to do."""

    # The host shows the class with its module, which for a custom node is the path of its folder.
    __module__ = "diffusers_relay"

    def __init__(self, text: object = "") -> None:
        """Escapes control characters and others that can't be shown or written, because names in files may contain them."""
        super().__init__(
            "".join(char if char.isprintable() or char in ALSO_SHOWN else ascii(char)[1:-1] for char in str(text))
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__module__ = RelayError.__module__


def shown(name: object) -> str:
    """A name or value from a file for a message: on one line, without control characters, and short."""
    text = str(name)
    if len(text) > 4 * LONGEST_NAME:  # shorten before escaping
        text = text[: 2 * LONGEST_NAME] + text[-2 * LONGEST_NAME :]
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= LONGEST_NAME else f"{text[:45]}...{text[-32:]}"


def in_a_line(error: object) -> str:
    """A library's error text on one line, cut to :data:`LONGEST_REASON`, without its last full stop."""
    reason = " ".join(str(error).split()) or "a library gives no reason"
    return reason.rstrip(".") if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."


LONGEST_REASON = 200
ALSO_SHOWN = "\n\xa0\u3000\u200d"
"""Line breaks, and characters in prompts of many languages and in emojis."""
