"""Refuses texts that no prompt needs and some code can't handle: huge texts, huge words, lone surrogates."""

from __future__ import annotations

import re

from ..pipelines.base.errors import RelayError
from .prompt_text import place

MAX_CHARACTERS = 20_000
"""About 5,000 tokens, 65 times the encoder's 77. Prompts from wildcards have a few thousand characters."""
MAX_WORD = 1_000
"""Characters of a word, or of a row of signs. The time of CLIP's Python tokenizer (transformers 4) grows with the square of a
word's length. The longest texts without spaces are sentences in Chinese or Thai."""
WORDS = re.compile(r"[^\W\d_]+|[^\w\s]+")
"""Words as CLIP's tokenizer splits them; it treats each digit separately."""
SURROGATE = re.compile("[\ud800-\udfff]")


def check_readable(text: str) -> None:
    """
    Raises:
        RelayError: ``text`` or one of its words is too long, or it has a lone surrogate.
    """
    if len(text) > MAX_CHARACTERS:
        raise RelayError(
            f"prompt: it has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are allowed, about {MAX_CHARACTERS // 300} times "
            "what the text encoder reads at once. Shorten it, or encode several texts and mix them with Mix Prompts."
        )
    if half := SURROGATE.search(text):
        raise RelayError(
            f"prompt: character {half.start() + 1} is half of a character (a lone surrogate, U+{ord(half.group()):X}). Delete it."
        )
    for word in WORDS.finditer(text):
        if word.end() - word.start() > MAX_WORD:
            raise RelayError(
                f"prompt: the word at {place(text, word.start())} has {word.end() - word.start():,} characters, and at most {MAX_WORD:,} "
                "are allowed. Split it with spaces, or remove it."
            )
