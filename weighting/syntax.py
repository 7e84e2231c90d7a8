"""The prompt syntaxes: the user's text -> pieces of text with weights. No tensors.

Each syntax is a function and a row of :data:`SYNTAXES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from ..pipelines.base.errors import RelayError
from .a1111 import parse_a1111
from .compel_syntax import parse_compel
from .limits import check_readable
from .prompt_text import Prompt, excerpt, place, plain_prompt

SYNTAXES: Mapping[str, Callable[[str, Collection[str]], Prompt]] = MappingProxyType(
    {"compel": parse_compel, "a1111": parse_a1111, "plain": lambda text, words: plain_prompt(text)}
)
"""Name of a syntax in the node -> its parser, called with the text and the words of the model's embeddings."""


def parse(text: str, syntax: str, *, words: Collection[str] = ()) -> Prompt:
    """Reads ``text`` by the rules of ``syntax``, a key of :data:`SYNTAXES`; in ``plain`` every character is text.

    Args:
        words: the words of the model's embeddings.

    Raises:
        RelayError: the syntax is unknown, ``text`` breaks its rules or uses the syntax of another program, or it is
            unreadable (see :func:`~.limits.check_readable`).
    """
    if syntax not in SYNTAXES:
        raise RelayError(f"syntax: {syntax!r} is not a prompt syntax. Choose one of: {', '.join(SYNTAXES)}.")
    check_readable(text)
    prompt = SYNTAXES[syntax](text, words)
    for word in words:
        if word in text and word not in prompt.text:
            raise RelayError(
                f"prompt: {excerpt(word)} at {place(text, text.index(word))} is the word of an embedding, but signs in it are {syntax} syntax, which splits "
                "it. Enter another word in token of Load Textual Inversion, or choose plain in syntax."
            )
    return prompt
