"""Finds syntax of other programs that the chosen syntax would read as letters, and says what to use instead.

Syntax that can't be prose, such as ``<lora:x:1>``, is refused. Syntax that may be prose only leads to a note. In the plain
syntax, every character is text. All patterns take time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ..pipelines.base.errors import RelayError
from .prompt_text import excerpt, place

NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
EXTRA_NETWORK = re.compile(r"<(\w+):[^<>]*>")
EMBEDDING = re.compile(r"\bembedding:([^\s,:()\[\]{}|]+)")
"""How ComfyUI's own nodes name an embedding."""
AND = re.compile(r"\bAND\b")
BREAK = re.compile(r"\bBREAK\b")
AT_A_STEP = re.compile(rf"\[[^\[\]:]*:(?:[^\[\]:]*:\s*{NUMBER}|\s*\d*\.\d+)\s*\]")
"""``[cat:dog:0.5]``, ``[cat:0.5]``; ``[16:9]`` is text."""
ALTERNATING = re.compile(r"\[[^\[\]|]*\|[^\[\]]*\]")
WEIGHT_INSIDE = re.compile(rf"[^\s\d():\\]\s*:\s*{NUMBER}\s*\)(?![+\-\d]|\.\w)")
BRACKETS = re.compile(r"(?<!\\)[()]")
WEIGHED = re.compile(r"[+\-\d]|\.\w")
"""What follows a closing bracket that has a weight, in Compel's syntax."""
BROKEN_WEIGHT = re.compile(
    r"""(?:(?<!\\)\)|(?<!\S)"[^"]+")(?P<weight>
        [+-]+\.?\d[\w.]*                                       # (x)-0.5: a sign, and the number as text
      | (?:\d*\.\d*\.\d|(?:\d+(?:\.\d*)?|\.\d+)e[+-]?\d)[\w.+-]*   # (x)1.5.5, (x)1e309
      | (?:nan|inf|infinity)\b
    )""",
    re.VERBOSE | re.IGNORECASE,
)
WEBUI_OPERATOR = re.compile(r"\)\s*\.(?:and|add|blend|swap|attend)\s*\(")
WILDCARD = re.compile(r"(?<!\w)__\w[\w/*-]{0,80}__(?!\w)")
CHOICE = re.compile(r"\{[^{}|]*\|[^{}]*\}")
SQUARE = re.compile(r"(?<![\w\\])\[[^\[\]]+\]")
WEIGHT_BEHIND = re.compile(r"(?<!\\)\)\d*\.\d+(?![\w.])")


def refuse_in_compel(text: str, words: Collection[str] = ()) -> None:
    """
    Args:
        words: the words of the model's embeddings.

    Raises:
        RelayError: with the place, and what to write or choose instead.
    """
    _refuse_networks_and_embeddings(text, words)
    if swap := re.search(r"\.swap\s*\(", text):
        raise RelayError(
            f"prompt: .swap() at {place(text, swap.start())} is not supported, because Compel ignores it. Encode the two texts separately, or use .blend()."
        )
    if lora := re.search(r"(with|use)Lora\s*\(", text):
        raise RelayError(
            f"prompt: {lora.group()}...) at {place(text, lora.start())} has no effect. Load LoRAs with Load LoRA (Diffusers)."
        )
    if found := BREAK.search(text):
        raise RelayError(
            f"prompt: BREAK at {place(text, found.start())} belongs to the a1111 syntax. Choose a1111 in syntax, write "
            '("one text", "another").and(), or write a lowercase "break" for the word.'
        )
    if found := AT_A_STEP.search(text) or ALTERNATING.search(text):
        raise RelayError(
            f"prompt: {excerpt(found.group())} at {place(text, found.start())} changes the text during the run, which diffusers' "
            "pipelines can't do. Choose one of the texts; to change the prompt during a run, chain several Image to Image (Diffusers) nodes."
        )
    if weight := WEIGHT_INSIDE.search(text):
        raise RelayError(
            f"prompt: the weight at {place(text, weight.start())} is not in Compel's syntax. Write (words)1.3 instead of "
            "(words:1.3), choose a1111 in syntax, or write \\( and \\) for literal brackets."
        )
    if weight := BROKEN_WEIGHT.search(text):
        raise RelayError(
            f"prompt: {excerpt(weight['weight'])} at {place(text, weight.start('weight'))} is not a weight: only part of it would be read as one, and the rest as "
            "text. Write a number of 0 or more and then a space, as in (words)1.3, or write \\( and \\) for literal brackets."
        )
    _refuse_doubled(text)


def refuse_in_a1111(text: str, words: Collection[str] = ()) -> None:
    """Like :func:`refuse_in_compel`, for the a1111 syntax."""
    _refuse_networks_and_embeddings(text, words)
    if both := AND.search(text):
        raise RelayError(
            f"prompt: AND at {place(text, both.start())} combines several predictions at each step, which diffusers' pipelines can't do. "
            'Write BREAK between the texts, use Compel\'s syntax ("a", "b").blend(1, 1), or write a lowercase "and" for the word.'
        )
    if operator := WEBUI_OPERATOR.search(text):
        raise RelayError(
            f"prompt: {excerpt(operator.group()[1:] + '...)')} at {place(text, operator.start())} belongs to Compel's syntax. Choose compel in "
            "syntax, or write BREAK between the texts."
        )


def notes_on(text: str, syntax: str) -> Iterator[str]:
    """Yields a note to the user for each kind of text that may be prose but has a meaning in another program."""
    if syntax == "plain":
        return
    if found := WILDCARD.search(text):
        yield f"{excerpt(found.group())} is read as text: wildcards must be filled in first, by a node of another pack."
    if found := CHOICE.search(text):
        yield f"{excerpt(found.group())} is read as text: ComfyUI's page makes such a choice when it queues the prompt, but did not make this one."
    if syntax == "compel" and (found := AND.search(text)):
        yield f'AND at {place(text, found.start())} is read as the word "and". To combine texts, write ("one", "another").and().'
    square = next((match for match in SQUARE.finditer(text) if any(map(str.isalpha, match.group()))), None)
    if syntax == "compel" and (found := square):
        yield f"{excerpt(found.group())} has no weight in Compel's syntax: its brackets are read as text. For less weight, write (words)0.9 or choose a1111 in syntax."
    if syntax == "a1111" and (found := WEIGHT_BEHIND.search(text)):
        yield f"{excerpt(found.group()[1:])} at {place(text, found.start() + 1)} is read as text. In the a1111 syntax, a weight goes inside the brackets: (words:1.3)."


def _refuse_networks_and_embeddings(text: str, words: Collection[str]) -> None:
    if network := EXTRA_NETWORK.search(text):
        is_lora = network[1].lower() in ("lora", "lyco")
        how = (
            "Load LoRAs with Load LoRA (Diffusers), and remove this from the text."
            if is_lora
            else "Remove it from the text."
        )
        raise RelayError(f"prompt: <{network[1]}:...> at {place(text, network.start())} loads nothing here. {how}")
    if embedding := EMBEDDING.search(text):
        name = embedding[1].removesuffix(".safetensors").removesuffix(".pt")
        known = next((word for word in words if word.lower() == name.lower()), None)
        how = (
            f"The model already has it: write only {known}."
            if known
            else "Load it with Load Textual Inversion, and write only its word."
        )
        raise RelayError(
            f"prompt: {excerpt(embedding.group())} at {place(text, embedding.start())} is how ComfyUI's own nodes name an embedding. {how}"
        )


def _refuse_doubled(text: str) -> None:
    """Refuses ``((x))``, which has no weight in Compel's syntax but in others; ``((x))1.3`` has one in Compel's too."""
    opened: list[int] = []
    inner = -1, -1
    for match in BRACKETS.finditer(text):
        end = match.start()
        if match.group() == "(":
            opened.append(end)
            continue
        start = opened.pop()  # all brackets match: checked before
        pair = start, end
        if inner == (start + 1, end - 1):
            depth, words = 2, text[start + 2 : end - 1]
            while text[start - 1 : start] == "(" and text[end + 1 : end + 2] == ")":
                start, end, depth = start - 1, end + 1, depth + 1
            if words.strip() and not WEIGHED.match(text, end + 1):
                raise RelayError(
                    f"prompt: {excerpt(text[start : end + 1])} at {place(text, start)} has no weight in Compel's syntax, but {1.1**depth:.3g} in "
                    f"the a1111 syntax. Write {_weighed(words, '+' * depth)} for this weight, or choose a1111 in syntax."
                )
        inner = pair


def _weighed(words: str, signs: str) -> str:
    shown = excerpt(words)[1:-1]
    return f"{shown}{signs}" if shown.isalnum() else f"({shown}){signs}"
