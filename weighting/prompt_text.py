"""A parsed prompt, the same for all syntaxes: pieces of literal text with weights. No tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A piece of literal text. At ``weight`` 1, it has its normal effect."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Passage:
    """Fragments that are encoded together, as one text."""

    fragments: tuple[Fragment, ...]

    @property
    def text(self) -> str:
        return " ".join(fragment.text for fragment in self.fragments)


@dataclass(frozen=True)
class Blend:
    """Passages whose embeddings are averaged with ``weights``."""

    passages: tuple[Passage, ...]
    weights: tuple[float, ...]
    normalize: bool = True
    """Divide by the sum of the weights."""

    @property
    def text(self) -> str:
        return " ".join(passage.text for passage in self.passages)


@dataclass(frozen=True)
class Prompt:
    """Parts whose embeddings are concatenated; ``weights`` has one number per part."""

    parts: tuple[Passage | Blend, ...]
    weights: tuple[float, ...]

    @property
    def text(self) -> str:
        """The literal text, without the weights, brackets and operators of the syntax."""
        return " ".join(part.text for part in self.parts)

    @property
    def is_empty(self) -> bool:
        """Whether there is only white space and syntax."""
        return not self.text.strip()


def plain_prompt(text: str) -> Prompt:
    """A prompt without syntax: every character is text."""
    return Prompt(parts=(Passage((Fragment(text),)),), weights=(1.0,))


def as_typed(prompt: Prompt, text: str) -> Prompt:
    """``prompt``, parsed from ``text``, with the original spaces if ``text`` has no weights or other syntax.

    The syntaxes merge spaces, and Compel's adds one after a comma, which does not affect CLIP. A blank text becomes "".
    """
    if prompt.is_empty:
        return plain_prompt("")
    match prompt:
        case Prompt(parts=(Passage(fragments=(Fragment(text=read, weight=1.0),)),), weights=(1.0,)):
            if "".join(read.split()) == "".join(text.split()):
                return plain_prompt(text)
    return prompt


def place(text: str, index: int) -> str:
    """For errors: ``character 7 ("a (cat")``, counted from 1, with the text around it."""
    return f"character {index + 1} ({excerpt(text[max(0, index - 12) : index + 12])})"


def excerpt(text: str) -> str:
    """``text`` in quotation marks, on one line and at most 60 characters long."""
    shown = re.sub(r"\s+", " ", text).strip()
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'
