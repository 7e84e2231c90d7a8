"""A line in Compel's syntax, with less for Compel's slow parser to do and the same meaning.

A run of words with nothing of the syntax in them is one character to the parser, and is put back where that comes out.
Compel takes a word without signs as it stands wherever it may stand, and joins neighbours of one weight with a space, so
the result is the one that it gives for the whole line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .prompt_text import Blend, Passage, Prompt

STAND_IN = "\ue000"
"""A private character, of which Unicode says that it stands for nothing. It is no letter: an operator's argument can't be one."""
OPERATOR = re.compile(r"\.(?:and|add|blend|attend|swap)\b")
ANY = r"""(?:[^\s()"+\-=\\]|-(?=[^\W_])|\\[()"])"""
INSIDE = r"""(?:[^\s()"+\-=\\,.]|-(?=[^\W_]))"""
PLAIN_WORD = re.compile(f"{ANY}+")
"""A word that Compel reads as text where it stands in no bracket and no quotes."""
PLAIN_RUN = re.compile(
    rf"""\.(?:and|add|blend|attend)\s*\([^()"]*\)   # an operator with its numbers, which stay
       | (?P<run>
           (?:(?<![^\s(])|(?<=")(?![\d.-]))         # a number or a minus at once behind a quoted text is its weight
           (?=\d*[^\W\d_]){INSIDE}+(?:[ ]{INSIDE}+)*
           (?=[\s)",]|$)(?!\s*\.)
         )""",
    re.VERBOSE,
)
"""Words that Compel reads as text everywhere: no comma or point in them, which are texts of their own in brackets."""
QUOTE = re.compile(r'(?<!\\)"')
WEIGHS = re.compile(r"[+\-]|\d|\.\d|\s*\.(?:attend|swap)\b")
"""What follows a quoted text of which it is the weight."""


def with_quotation_marks(line: str) -> str:
    """``line`` with quotation marks escaped where they are no part of an operator: Compel would drop them.

    They are a pair, the first at the beginning of a word, or one there with no partner; ``"a cat"1.3`` and ``("a", "b").and()`` keep theirs.
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
        # A bracket or a sign that touches the mark would be read as a part of one word with it.
        first = words.split(" ", 1)[0].rstrip(",.")
        before = " " if words[:1] == "(" or first[-1:] in ("+", "-") else ""
        after = " " if words[-1:] in (")", "+", "-") or words[-1:].isdigit() else ""
        pieces += [line[done:start], '\\"', before, words, after, '\\"']
        done = end + 1
    return "".join(pieces) + line[done:]


def shortened(line: str) -> tuple[str, list[str]]:
    """The shorter line, and the runs of words that stand for its :data:`STAND_IN`, in their order."""
    if STAND_IN in line:
        return line, []
    runs: list[str] = []

    def stood_in(match: re.Match[str]) -> str:
        if match["run"] is None:
            return match.group()
        runs.append(match.group())
        return STAND_IN

    if OPERATOR.search(line):
        return PLAIN_RUN.sub(stood_in, line), runs
    kept: list[str] = []
    for is_plain, words in _stretches(line):
        if is_plain:
            runs.append(re.sub(r"""\\([()"])""", r"\1", words))
            kept.append(STAND_IN)
        else:
            kept.append(PLAIN_RUN.sub(stood_in, words))
    return " ".join(kept), runs


def written_out(prompt: Prompt, runs: list[str]) -> Prompt | None:
    """``prompt``, of a shortened line, with the words in it. None where not each is there once."""
    left = iter(runs)

    def passage(one: Passage) -> Passage:
        return Passage(
            tuple(
                replace(fragment, text=re.sub(STAND_IN, lambda _: next(left), fragment.text))
                for fragment in one.fragments
            )
        )

    parts = tuple(
        replace(part, passages=tuple(map(passage, part.passages))) if isinstance(part, Blend) else passage(part)
        for part in prompt.parts
    )
    return None if next(left, None) is not None else Prompt(parts, prompt.weights)


def _stretches(line: str) -> Iterator[tuple[bool, str]]:
    """The words of a line with no operator in it, plain ones and others apart.

    Brackets have their partners. A quoted text may hide one, so nothing is plain from the first quotation mark to the last.
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
