"""Prompt syntaxes: what the user typed -> pieces of text with weights. Strings only, no tensors.

A syntax is one function and one row of :data:`SYNTAXES`. Compel's is read by Compel's own parser, which says nothing
when it cannot make sense of a prompt; what it would drop or read as text by mistake is refused here, with the place.
Source: https://github.com/damian0815/compel/blob/main/doc/syntax.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

from ..pipelines.base.errors import RelayError
from .a1111 import parse_a1111
from .prompt_text import Blend, Fragment, Passage, Prompt, excerpt, place

MAX_NESTING = 10
"""Brackets inside brackets. Compel's parser uses some thirty Python frames for each level."""


def parse(text: str, syntax: str) -> Prompt:
    """Reads ``text`` by the rules of ``syntax``, a key of :data:`SYNTAXES`.

    Raises:
        RelayError: there is no such syntax, or ``text`` breaks its rules.
    """
    if syntax not in SYNTAXES:
        raise RelayError(f"syntax: {syntax!r} is not a prompt syntax. There are: {', '.join(SYNTAXES)}.")
    return SYNTAXES[syntax](text)


def parse_plain(text: str) -> Prompt:
    """Every character is text."""
    return Prompt(parts=(Passage((Fragment(text),)),), weights=(1.0,))


def parse_compel(text: str) -> Prompt:
    """Compel's syntax: ``word++``, ``(some words)1.3``, ``("a", "b").and(1, 0.5)``, ``("a", "b").blend(1, 0.5)``."""
    if not text.strip():
        return parse_plain("")
    _refuse_unbalanced(text)
    _refuse_foreign(text)
    # A quoted text of Compel's ends with its line, and a comma hides a bracket behind it. CLIP's tokenizer reads any
    # white space as one space, and splits a comma from a word by itself, so neither change shows in the tokens.
    line = re.sub(r",(?=[^\W_]|[(\"])", ", ", re.sub(r"\s+", " ", text).strip())
    try:
        # pyparsing's exceptions keep each other, the frames that they went through and all that called those, with the models
        # in their variables, until the garbage is collected. In a thread of its own nothing else called them.
        with ThreadPoolExecutor(max_workers=1) as apart:
            conjunction = apart.submit(_parsed, line).result()
    except Exception as error:  # pyparsing's, Compel's and Python's own, from Compel's conversions
        raise RelayError(
            f"Compel cannot read the prompt {excerpt(text)}: {error}. Texts to combine stand in quotes, the operator comes "
            'last, and there is one number for each text or none: ("a cat", "a dog").and(1, 0.5)'
        ) from error
    return _checked(_prompt_of(conjunction), text)


SYNTAXES: Mapping[str, Callable[[str], Prompt]] = MappingProxyType(
    {"compel": parse_compel, "a1111": parse_a1111, "plain": parse_plain}
)
"""Name of a syntax, as the node offers it -> its parser."""


# --- Compel's parser


@cache
def _compel_parser() -> Any:
    from compel.prompt_parser import PromptParser

    return PromptParser()


def _parsed(line: str) -> Any:
    with _remembering_parser() as parser:
        return parser.flatten(parser.conjunction.parse_string(line, parse_all=True)[0])


@contextmanager
def _remembering_parser() -> Iterator[Any]:
    """Compel's parser, with pyparsing's memory on: without it, each level of brackets costs four times the one before."""
    from pyparsing import ParserElement

    parser = _compel_parser()
    if ParserElement._packratEnabled or ParserElement._left_recursion_enabled:  # the process has its own wish
        yield parser
        return
    ParserElement.enable_packrat(None)
    try:
        yield parser
    finally:
        ParserElement.disable_memoization()


def _prompt_of(conjunction: Any) -> Prompt:
    """Compel's tree as ours. An empty conjunction is an empty text."""
    parts = tuple(_part_of(part) for part in conjunction.prompts)
    if not parts:
        return parse_plain("")
    return Prompt(parts=parts, weights=tuple(float(weight) for weight in conjunction.weights))


def _part_of(part: Any) -> Passage | Blend:
    if hasattr(part, "normalize_weights"):
        return Blend(
            passages=tuple(_passage_of(prompt) for prompt in part.prompts),
            weights=tuple(float(weight) for weight in part.weights),
            normalize=part.normalize_weights,
        )
    return _passage_of(part)


def _passage_of(flattened: Any) -> Passage:
    return Passage(tuple(Fragment(_unescaped(child.text), float(child.weight)) for child in flattened.children))


def _unescaped(text: str) -> str:
    """Compel lets ``+ - . , =`` be escaped too, and then leaves the backslash in the text."""
    return re.sub(r"\\([()\"+\-.,=])", r"\1", text)


# --- what Compel's parser would let pass


def _refuse_unbalanced(text: str) -> None:
    opened: list[int] = []
    for match in re.finditer(r"(?<!\\)[()]", text):
        if match.group() == "(":
            opened.append(match.start())
            if len(opened) > MAX_NESTING:
                raise RelayError(
                    f"prompt: brackets are nested more than {MAX_NESTING} deep at {place(text, match.start())}. Use fewer, or a weight: (words)1.5"
                )
        elif opened:
            opened.pop()
        else:
            raise RelayError(
                f"prompt: the ')' at {place(text, match.start())} closes no bracket. Take it out, or write \\) for a bracket that is text."
            )
    if opened:
        raise RelayError(
            f"prompt: the '(' at {place(text, opened[-1])} is never closed. Close it, or write \\( for a bracket that is text."
        )


def _refuse_foreign(text: str) -> None:
    if swap := re.search(r"\.swap\s*\(", text):
        raise RelayError(
            f"prompt: .swap() at {place(text, swap.start())} is not supported: Compel reads it and does nothing. Encode the two texts apart, or use .blend()."
        )
    if lora := re.search(r"(with|use)Lora\s*\(", text):
        raise RelayError(
            f"prompt: {lora.group()}...) at {place(text, lora.start())} would do nothing. LoRAs are loaded with the Load LoRA node."
        )
    if weight := re.search(r"[^\s\d():\\]\s*:\s*\d*\.?\d+\s*\)(?![+\-\d]|\.\w)", text):
        raise RelayError(
            f"prompt: the weight at {place(text, weight.start())} is not in Compel's syntax, which writes (words)1.3 and not "
            "(words:1.3). Write it so, or write \\( and \\) for brackets that are text."
        )


def _checked(prompt: Prompt, text: str) -> Prompt:
    operator = re.compile(r"\.(and|add|blend|attend)\s*\(")
    if (found := operator.search(text)) and operator.search(prompt.text):
        raise RelayError(
            f"prompt: the .{found.group(1)}(...) at {place(text, found.start())} was not understood. It follows its texts at once, "
            'and .and() and .blend() take the whole prompt: ("a cat", "a dog").and(1, 0.5)'
        )
    for part in prompt.parts:
        if isinstance(part, Blend) and part.normalize and math.isclose(sum(part.weights), 0, abs_tol=1e-6):
            raise RelayError(
                f"prompt: the weights of .blend({', '.join(map(str, part.weights))}) add up to 0. Add no_normalize as the last argument to subtract one text from another."
            )
    return prompt
