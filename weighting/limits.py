"""What no prompt needs and some code can't take: endless texts, endless words, characters that are none."""

from __future__ import annotations

import re

from ..pipelines.base.errors import RelayError
from .prompt_text import place

MAX_CHARACTERS = 20_000
"""Some 5,000 tokens, 65 times the encoder's 77. Prompts that wildcards fill up have a few thousand characters."""
MAX_WORD = 1_000
"""Characters of a word, or of signs in a row. CLIP's tokenizer in Python (transformers 4) takes the square of a word's length;
the longest texts without a space are sentences of Chinese or Thai."""
WORDS = re.compile(r"[^\W\d_]+|[^\w\s]+")
"""As CLIP's tokenizer takes a text apart; digits are single for it."""
SURROGATE = re.compile("[\ud800-\udfff]")


def check_readable(text: str) -> None:
    """
    Raises:
        RelayError: ``text`` is too long, has a word that is, or half of a character.
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
