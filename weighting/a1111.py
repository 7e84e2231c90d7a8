r"""The prompt syntax of Stable Diffusion web UI (AUTOMATIC1111): ``(x)``, ``[x]``, ``(x:1.3)``, ``BREAK``.

Round brackets work as in ComfyUI's own text boxes: a number is the weight, regardless of outer brackets (``((x:1.3))`` is
1.3, but 1.43 in the web UI), and a colon directly after a bracket is text (``(:3)``). ``[x]`` and ``BREAK``, which ComfyUI
does not know, work as in the web UI.
The web UI guesses what an unmatched bracket or a broken weight means; here it is refused, and the error names the place.
Source: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features#attentionemphasis
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from ..pipelines.base.errors import RelayError
from .foreign import BREAK, NUMBER, refuse_in_a1111
from .prompt_text import Fragment, Passage, Prompt, excerpt, place

STEP = 1.1
"""The factor of a pair of brackets without a number; square brackets divide by it."""
TOKEN = re.compile(
    r"""
      \\(?P<escaped>[()\[\]\\:|])
    | :(?P<tail>[^:\\()\[\]|]*)(?=[)\]])   # possibly a weight
    | [()\[\]|:\\]
    | [^()\[\]|:\\]+
    """,
    re.VERBOSE,
)
SIGNED = re.compile(rf"\s*[+-]?{NUMBER}\s*", re.ASCII)
PARTNERS = {")": "(", "]": "["}


@dataclass
class _Bracket:
    """A pair of brackets, or the whole text if ``sign`` is empty."""

    sign: str
    at: int
    """The index of the opening bracket."""
    outer: _Bracket | None = None
    factor: float = 1.0
    """This pair's factor, relative to the outer brackets."""
    number: float | None = None
    """The weight that is written in the brackets; it replaces the outer factors."""
    weight: float = 1.0
    """The final weight of the text in the brackets."""


@dataclass
class _Run:
    """Text without brackets."""

    bracket: _Bracket
    texts: list[str] = field(default_factory=list)


def parse_a1111(text: str, words: Collection[str] = ()) -> Prompt:
    """Parses Stable Diffusion web UI's syntax. Each ``BREAK`` starts a new part, which is encoded in its own 77 tokens.

    Args:
        words: the words of the model's embeddings.

    Raises:
        RelayError: naming the place: an unmatched bracket, a weight that is not a number of 0 or more, or syntax of the
            web UI that is not supported or has its own node: ``[a:b:0.5]``, ``[a|b]``, ``AND``, ``<lora:...>``.
    """
    refuse_in_a1111(text, words)
    passages: list[list[Fragment]] = [[]]
    for run in _runs(text):
        for index, piece in enumerate(BREAK.split("".join(run.texts))):
            if index:
                passages.append([])
            if words := " ".join(piece.split()):
                passages[-1].append(Fragment(words, run.bracket.weight))
    if len(passages) > 1 and not passages[-1]:  # nothing follows the last BREAK
        passages.pop()
    parts = tuple(Passage(tuple(fragments) or (Fragment(""),)) for fragments in passages)
    return Prompt(parts=parts, weights=(1.0,) * len(parts))


def _runs(text: str) -> list[_Run]:
    """The runs of ``text`` in order, with their weights, in one pass."""
    whole = _Bracket("", -1)
    brackets, opened = [whole], [whole]
    runs = [_Run(whole)]
    for match in TOKEN.finditer(text):
        token, at = match.group(), match.start()
        if token in ("(", "["):
            bracket = _Bracket(token, at, opened[-1], STEP if token == "(" else 1 / STEP)
            brackets.append(bracket)
            opened.append(bracket)
            runs.append(_Run(bracket))
        elif token in PARTNERS:
            if opened[-1].sign != PARTNERS[token]:
                raise _no_partner(text, token, at, opened[-1])
            opened.pop()
            runs.append(_Run(opened[-1]))
        elif match["tail"] is not None and (weight := _weight(text, match, opened[-1])) is not None:
            opened[-1].number = weight
        elif token == "|" and opened[-1].sign == "[":
            raise RelayError(
                f"prompt: [...|...] at {place(text, opened[-1].at)} alternates between texts from step to step, which diffusers' "
                r"pipelines can't do. Choose one of the texts, or write \| for a literal bar."
            )
        else:
            runs[-1].texts.append(match["escaped"] or token)
    if len(opened) > 1:
        sign, at = opened[-1].sign, opened[-1].at
        raise RelayError(
            f"prompt: the '{sign}' at {place(text, at)} is never closed. Close it, or write \\{sign} for a literal bracket."
        )
    for bracket in brackets[1:]:  # outer ones come first
        assert bracket.outer is not None
        bracket.weight = bracket.outer.weight * bracket.factor if bracket.number is None else bracket.number
        if not math.isfinite(bracket.weight):
            raise RelayError(
                f"prompt: the weight of the brackets at {place(text, bracket.at)} is too large. Use a smaller one."
            )
    return runs


def _weight(text: str, match: re.Match[str], bracket: _Bracket) -> float | None:
    """The weight between a colon and a closing bracket, or None if this is text."""
    tail, at = match["tail"], match.start()
    if not bracket.sign or at == bracket.at + 1:
        return None
    number = SIGNED.fullmatch(tail)
    if bracket.sign == "[":
        if number is None:
            return None
        raise RelayError(
            f"prompt: [...:{excerpt(tail)[1:-1]}] at {place(text, bracket.at)} changes the text at a step, which diffusers' "
            "pipelines can't do. For less weight, write (words:0.8); to change the prompt during a run, chain several Image to Image (Diffusers) nodes."
        )
    if number is not None and float(tail) >= 0:
        return float(tail)
    if number is not None or not (re.search(r"\s", tail) or re.match(r"[\s,]", text[at - 1])):
        raise RelayError(
            f"prompt: the weight '{_short(':' + tail)}' at {place(text, at)} is not a number of 0 or more. "
            "Correct it, for example (words:1.3), or write \\: for a literal colon."
        )
    return None


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}..."


def _no_partner(text: str, token: str, at: int, innermost: _Bracket) -> RelayError:
    still_open = (
        f", because the '{innermost.sign}' at character {innermost.at + 1} is still open" if innermost.sign else ""
    )
    return RelayError(
        f"prompt: the '{token}' at {place(text, at)} closes no bracket{still_open}. Remove it, or write \\{token} for a literal bracket."
    )
