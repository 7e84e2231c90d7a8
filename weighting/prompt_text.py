"""What every prompt syntax is read into: pieces of literal text with weights. Strings and numbers only, no tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """A piece of literal text; ``weight`` 1 leaves it as the model reads it."""

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
    """Parts whose embeddings follow one another; ``weights`` has one number a part."""

    parts: tuple[Passage | Blend, ...]
    weights: tuple[float, ...]

    @property
    def text(self) -> str:
        """The literal text: every weight, bracket and operator of the syntax taken off."""
        return " ".join(part.text for part in self.parts)

    @property
    def is_empty(self) -> bool:
        """Nothing but white space and syntax."""
        return not self.text.strip()


def plain_prompt(text: str) -> Prompt:
    """Every character is text."""
    return Prompt(parts=(Passage((Fragment(text),)),), weights=(1.0,))


def as_typed(prompt: Prompt, text: str) -> Prompt:
    """``prompt``, read from ``text``, with the spaces of ``text`` where that holds no weights or other syntax.

    The syntaxes take spaces together, and Compel's puts one behind a comma, which no CLIP sees. No text but spaces is "".
    """
    if prompt.is_empty:
        return plain_prompt("")
    match prompt:
        case Prompt(parts=(Passage(fragments=(Fragment(text=read, weight=1.0),)),), weights=(1.0,)):
            if "".join(read.split()) == "".join(text.split()):
                return plain_prompt(text)
    return prompt


def place(text: str, index: int) -> str:
    """For errors: ``character 7 ("a (cat")``, counted from 1, with what stands round it."""
    return f"character {index + 1} ({excerpt(text[max(0, index - 12) : index + 12])})"


def excerpt(text: str) -> str:
    shown = re.sub(r"\s+", " ", text).strip()
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'
