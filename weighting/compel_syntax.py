"""Compel's prompt syntax: ``word++``, ``(some words)1.3``, ``("a", "b").and(1, 0.5)``, ``("a", "b").blend(1, 0.5)``.

Compel's own parser reads it. The parser does not report what it can't understand, so anything that it would drop or
mistake for text is refused here, with the place. It is also slow, about 0.3 ms per character, so :mod:`.shortened` replaces
each run of plain words by one character.
Source: https://github.com/damian0815/compel/blob/main/doc/syntax.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from ..pipelines.base.errors import RelayError
from .foreign import refuse_in_compel
from .prompt_text import Blend, Fragment, Passage, Prompt, excerpt, place, plain_prompt
from .shortened import restored, shortened, with_quotation_marks

MAX_NESTING = 10
"""Levels of brackets. Compel's parser uses about thirty Python frames per level."""
MAX_SYNTAX = 8_000
"""Characters per prompt for Compel's parser, with each run of plain words as one: about 2.5 s, 800 weights."""


def parse_compel(text: str, words: Collection[str] = ()) -> Prompt:
    """
    Args:
        words: the words of the model's embeddings.

    Raises:
        RelayError: naming the place: broken syntax, or syntax of another program (see :func:`.refuse_in_compel`).
    """
    if not text.strip():
        return plain_prompt("")
    refuse_unbalanced(text)
    refuse_in_compel(text, words)
    # In Compel, a quoted text ends with its line, and a comma hides a bracket that follows it. CLIP's tokenizer reads any
    # white space as one space and separates commas from words, so neither change affects the tokens.
    line = with_quotation_marks(re.sub(r",(?=[^\W_]|[(\"])", ", ", re.sub(r"\s+", " ", text).strip()))
    return _checked(_read(line, text), text)


def _read(line: str, text: str) -> Prompt:
    """``line`` as Compel reads it; a shortened line is parsed instead if that is possible."""
    short, runs = shortened(line)
    if len(short) > MAX_SYNTAX:
        raise RelayError(
            f"prompt: it has {len(short):,} characters of weights, brackets and quotes, and at most {MAX_SYNTAX:,} are allowed in Compel's "
            "syntax. Use fewer weights, or choose a1111 in syntax and write them that way."
        )
    if short != line:
        with suppress(Exception):
            prompt = restored(_by_compel(short), runs)
            if prompt is not None:
                return prompt
    try:
        if len(line) > MAX_SYNTAX:
            line = short
        return _by_compel(line)
    except Exception as error:  # from pyparsing, from Compel, or from Python in Compel's conversions
        raise RelayError(
            f"prompt: Compel can't read {excerpt(text)}: {excerpt(str(error))[1:-1]}. Texts to combine must be in quotes, the operator comes "
            'last, and there is one number for each text or none: ("a cat", "a dog").and(1, 0.5)'
        ) from error


def _by_compel(line: str) -> Prompt:
    # pyparsing's exceptions refer to each other and to all frames of the call stack, which refer to models, until they are
    # garbage-collected. In a separate thread, the call stack only has the parser's frames.
    with ThreadPoolExecutor(max_workers=1) as parser_thread:
        return _prompt_of(parser_thread.submit(_parsed, line).result())


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
    """Compel's parser with pyparsing's memoization on: without it, each level of brackets takes four times as long."""
    from pyparsing import ParserElement

    parser = _compel_parser()
    if ParserElement._packratEnabled or ParserElement._left_recursion_enabled:  # set by other code in this process
        yield parser
        return
    ParserElement.enable_packrat(None)
    try:
        yield parser
    finally:
        ParserElement.disable_memoization()


def _prompt_of(conjunction: Any) -> Prompt:
    """Converts Compel's tree. An empty conjunction is an empty text."""
    parts = tuple(_part_of(part) for part in conjunction.prompts)
    if not parts:
        return plain_prompt("")
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
    """Removes backslashes that Compel leaves in the text: it also allows ``+ - . , =`` to be escaped."""
    return re.sub(r"\\([()\"+\-.,=])", r"\1", text)


# --- errors that Compel's parser does not report


def refuse_unbalanced(text: str) -> None:
    opened: list[int] = []
    for match in re.finditer(r"(?<!\\)[()]", text):
        if match.group() == "(":
            opened.append(match.start())
            if len(opened) > MAX_NESTING:
                raise RelayError(
                    f"prompt: brackets are nested more than {MAX_NESTING} deep at {place(text, match.start())}. Use fewer brackets, or a number: (words)1.5"
                )
        elif opened:
            opened.pop()
        else:
            raise RelayError(
                f"prompt: the ')' at {place(text, match.start())} closes no bracket. Remove it, or write \\) for a literal bracket."
            )
    if opened:
        raise RelayError(
            f"prompt: the '(' at {place(text, opened[-1])} is never closed. Close it, or write \\( for a literal bracket."
        )


def _checked(prompt: Prompt, text: str) -> Prompt:
    operator = re.compile(r"\.(and|add|blend|attend)\s*\(")
    if (found := operator.search(text)) and operator.search(prompt.text):
        raise RelayError(
            f"prompt: the .{found.group(1)}(...) at {place(text, found.start())} was not understood. It must directly follow its texts, "
            'and .and() and .blend() must be the whole prompt: ("a cat", "a dog").and(1, 0.5)'
        )
    for number in [*prompt.weights, *(weight for part in prompt.parts for weight in _weights_of(part))]:
        if not math.isfinite(number):
            raise RelayError(f"prompt: a weight in {excerpt(text)} is too large or not a number. Use a smaller number.")
    for part in prompt.parts:
        if isinstance(part, Blend) and part.normalize and math.isclose(sum(part.weights), 0, abs_tol=1e-6):
            raise RelayError(
                f"prompt: the weights of .blend({', '.join(map(str, part.weights))}) add up to 0. Add no_normalize as the last argument to subtract one text from another."
            )
    return prompt


def _weights_of(part: Passage | Blend) -> list[float]:
    passages = part.passages if isinstance(part, Blend) else (part,)
    own = list(part.weights) if isinstance(part, Blend) else []
    return own + [fragment.weight for passage in passages for fragment in passage.fragments]
