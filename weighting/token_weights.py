"""The weights of a text's tokens, for encoders that read a text as a whole (T5, LLMs). No torch."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from .prompt_text import Passage

SPACES = re.compile(r"\s+")
FOLLOWS_AT_ONCE = re.compile(r"[,.;:!?)\]}%…]|['’](?:s|t|re|ve|m|ll|d)\b", re.IGNORECASE)
"""The start of a fragment that has no space before it. The syntaxes drop spaces, but these tokens depend on them."""


def weighed_tokens(
    tokenizer: Any, passage: Passage, before: str = "", after: str = ""
) -> tuple[list[int], list[int | None]]:
    """The tokens of ``before`` + ``passage`` + ``after`` read as one text, and the fragment of ``passage`` that each belongs to.

    A token that spans several fragments (``etc.``) belongs to the one whose weight is farthest from 1. None: the token has no text of
    the passage.
    """
    text, starts = joined(passage)
    first, end_of_text = len(before), len(before) + len(text)
    whole = before + text + after
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    owners: list[int | None] = []
    for start, end in encoded["offset_mapping"]:
        if not starts or max(start + 1, end) <= first or start >= end_of_text:
            owners.append(None)
            continue
        if spaces := SPACES.match(whole, start):
            start = spaces.end()  # spaces belong to the next fragment, but some tokenizers add them to a token
        from_, to = (min(max(index, first), end_of_text - 1) - first for index in (start, max(start, end - 1)))
        touched = range(_at(starts, from_), _at(starts, to) + 1)
        owners.append(max(touched, key=lambda index: abs(passage.fragments[index].weight - 1)))
    return encoded["input_ids"], owners


def joined(passage: Passage) -> tuple[str, list[int]]:
    """The text of ``passage``, and the index at which each fragment starts."""
    text = ""
    starts = []
    for fragment in passage.fragments:
        if text and fragment.text and not FOLLOWS_AT_ONCE.match(fragment.text):
            text += " "
        starts.append(len(text))
        text += fragment.text
    return text, starts


def _at(starts: Sequence[int], index: int) -> int:
    return max(0, bisect_right(starts, index) - 1)
