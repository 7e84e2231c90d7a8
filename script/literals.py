"""Values of a graph as Python source. This is the only way from a graph into the text of a script."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence

from .errors import NoScript

LONGEST_COMMENT = 80


def literal(value: object) -> str:
    """A number, text, truth value, None, or a list or tuple of them as a Python literal that reads back as the same value.

    Raises:
        NoScript: the value is of another type, or no finite number.
    """
    if value is None or type(value) in (bool, int):
        return repr(value)
    if type(value) is float:
        if not math.isfinite(value):
            raise NoScript(f"{value} is not a finite number.")
        return repr(value)
    if type(value) is str:
        return _text(value)
    if type(value) is tuple:
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if type(value) is list:
        return f"[{', '.join(map(literal, value))}]"
    raise NoScript(f"A {type(value).__name__} can't be written as a value.")


def number(value: float) -> str:
    """A float as a literal, without a fraction of zero where Python reads both alike: 7.5, 20, 0."""
    return literal(int(value)) if float(value).is_integer() and abs(value) < 2**53 else literal(float(value))


def _text(value: str) -> str:
    """In double quotes if that needs no more backslashes, as formatters write it."""
    single = repr(value)
    if single[0] == '"' or '"' in value:
        return single
    double = f'"{single[1:-1]}"'
    assert ast.literal_eval(double) == value
    return double


def comment(text: str) -> str:
    """One line of printable characters for a comment or a docstring, shortened. No backslash, no quotation mark of a docstring."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = line.replace("\\", "/").replace('"', "'")
    return line if len(line) <= LONGEST_COMMENT else f"{line[: LONGEST_COMMENT - 3]}..."


def variable(title: str, otherwise: str) -> str:
    """A variable's name from a title: ``The picture to start from`` -> ``the_picture_to_start_from``."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    name = "_".join(words)[:36].strip("_")
    if not name:
        return variable(otherwise, "value") if otherwise else "value"
    return f"n{name}" if name[0].isdigit() else name


def call(function: str, arguments: Sequence[str], width: int = 88) -> str:
    """A call on one line if it fits, else with an argument a line."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= width or not arguments:
        return line
    inside = "".join(f"    {indented(argument)},\n" for argument in arguments)
    return f"{function}(\n{inside})"


def indented(text: str) -> str:
    """The text as it stands four spaces further to the right."""
    return text.replace("\n", "\n    ")


def listed(entries: Sequence[str], before: int = 0, width: int = 88) -> str:
    """A list on one line if it fits after ``before`` characters, else with an entry a line."""
    line = f"[{', '.join(entries)}]"
    return line if before + len(line) <= width else "[\n" + "".join(f"    {entry},\n" for entry in entries) + "]"
