"""Shortens a line in Compel's syntax for Compel's slow parser, without changing the result.

Each run of plain words is replaced by one character, and inserted again after parsing. Compel reads plain words as text
everywhere, and joins neighbours of the same weight with a space, so the result is that of the whole line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .prompt_text import Blend, Passage, Prompt

STAND_IN = "\ue000"
"""A character of Unicode's private use area. It is not a letter, so it can't be an operator's argument."""
OPERATOR = re.compile(r"\.(?:and|add|blend|attend|swap)\b")
ANY = r"""(?:[^\s()"+\-=\\]|-(?=[^\W_])|\\[()"])"""
INSIDE = r"""(?:[^\s()"+\-=\\,.]|-(?=[^\W_]))"""
PLAIN_WORD = re.compile(f"{ANY}+")
"""A word that Compel reads as text outside brackets and quotes."""
PLAIN_RUN = re.compile(
    rf"""\.(?:and|add|blend|attend)\s*\([^()"]*\)   # an operator with its numbers is not replaced
       | (?P<run>
           (?:(?<![^\s(])|(?<=")(?![\d.-]))         # a number or minus directly after a quoted text is its weight
           (?=\d*[^\W\d_]){INSIDE}+(?:[ ]{INSIDE}+)*
           (?=[\s)",]|$)(?!\s*\.)
         )""",
    re.VERBOSE,
)
"""Words that Compel reads as text everywhere. Commas and full stops are excluded: in brackets, they are separate texts."""
QUOTE = re.compile(r'(?<!\\)"')
WEIGHS = re.compile(r"[+\-]|\d|\.\d|\s*\.(?:attend|swap)\b")
"""The weight that follows a quoted text."""


def with_quotation_marks(line: str) -> str:
    """Escapes the quotation marks that are not part of an operator, because Compel would drop them.

    These are pairs whose first mark is at the start of a word, and a single mark there; ``"a cat"1.3`` and ``("a", "b").and()`` are unchanged.
    """
    if OPERATOR.search(line):
        return line
    marks = [match.start() for match in QUOTE.finditer(line)]
    pieces: list[str] = []
    done = index = 0
    while index < len(marks):
        start = marks[index]
        index += 1
        if start and line[start - 1] not in " (":  # as in 5", which Compel reads as text
            continue
        if index == len(marks):
            return "".join(pieces) + line[done:start] + "\\" + line[start:]
        end = marks[index]
        index += 1
        if WEIGHS.match(line, end + 1):
            continue
        words = line[start + 1 : end]
        # A bracket or a sign next to the mark would be read as one word with it.
        first = words.split(" ", 1)[0].rstrip(",.")
        before = " " if words[:1] == "(" or first[-1:] in ("+", "-") else ""
        after = " " if words[-1:] in (")", "+", "-") or words[-1:].isdigit() else ""
        pieces += [line[done:start], '\\"', before, words, after, '\\"']
        done = end + 1
    return "".join(pieces) + line[done:]


def shortened(line: str) -> tuple[str, list[str]]:
    """The shortened line, and the runs of words that each :data:`STAND_IN` replaces, in order."""
    if STAND_IN in line:
        return line, []
    runs: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if match["run"] is None:
            return match.group()
        runs.append(match.group())
        return STAND_IN

    if OPERATOR.search(line):
        return PLAIN_RUN.sub(replaced, line), runs
    kept: list[str] = []
    for is_plain, words in _stretches(line):
        if is_plain:
            runs.append(re.sub(r"""\\([()"])""", r"\1", words))
            kept.append(STAND_IN)
        else:
            kept.append(PLAIN_RUN.sub(replaced, words))
    return " ".join(kept), runs


def restored(prompt: Prompt, runs: list[str]) -> Prompt | None:
    """Puts the words back into the ``prompt`` of a shortened line. None if a run is left over."""
    remaining = iter(runs)

    def with_words(passage: Passage) -> Passage:
        return Passage(
            tuple(
                replace(fragment, text=re.sub(STAND_IN, lambda _: next(remaining), fragment.text))
                for fragment in passage.fragments
            )
        )

    parts = tuple(
        replace(part, passages=tuple(map(with_words, part.passages))) if isinstance(part, Blend) else with_words(part)
        for part in prompt.parts
    )
    return None if next(remaining, None) is not None else Prompt(parts, prompt.weights)


def _stretches(line: str) -> Iterator[tuple[bool, str]]:
    """Splits a line without operators into stretches of plain and of other words: (is plain, words).

    Brackets must match. A quoted text may hide one, so nothing from the first to the last quotation mark is plain.
    """
    mark = QUOTE.search(line)
    first_mark, last_mark = (mark.start(), line.rfind('"')) if mark else (len(line), -1)
    was_plain, first, at, depth = False, 0, 0, 0
    words = line.split(" ")
    for index, word in enumerate(words):
        outside = depth == 0 and (at + len(word) < first_mark or at > last_mark)
        is_plain = outside and PLAIN_WORD.fullmatch(word) is not None
        if index and is_plain != was_plain:
            yield was_plain, " ".join(words[first:index])
            first = index
        was_plain = is_plain
        depth += len(re.findall(r"(?<!\\)\(", word)) - len(re.findall(r"(?<!\\)\)", word))
        at += len(word) + 1
    yield was_plain, " ".join(words[first:])
