"""Checks a row's value against what the node's input takes, and turns a table's text into it."""

from __future__ import annotations

import difflib
import math
from decimal import Decimal
from typing import Any

from .errors import BadValue
from .node_table import InputSpec

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
MOST_CHOICES = 8


def checked(value: Any, spec: InputSpec) -> Any:
    """The value as the node takes it. Raises BadValue, which says what is allowed, but not where the value is from."""
    _check_single(value)
    if spec.type == "COMBO":
        return _choice(value, spec)
    if spec.type == "BOOLEAN":
        return _boolean(value)
    if spec.type in ("INT", "FLOAT"):
        return _number(value, spec)
    return _text(value)


def _check_single(value: Any) -> None:
    """A list would be taken for a link."""
    if value is None:
        raise BadValue("there is no value (null)")
    if isinstance(value, (list, tuple, dict)):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise BadValue(f"{value!r} is {kind}: a row has one value a column")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(f"{value!r} is not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"{value!r} has half of a character at its place {error.start + 1}") from error
    return value


def _number(value: Any, spec: InputSpec) -> int | float:
    wanted = "a whole number" if spec.type == "INT" else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise BadValue(f"{value!r} is not {wanted}")
    try:
        raw = _parsed(value.strip()) if isinstance(value, str) else value
        found = int(raw) if spec.type == "INT" else float(raw)
    except (ValueError, OverflowError) as error:
        raise BadValue(f"{value!r} is not {wanted}") from error
    if (isinstance(found, float) and not math.isfinite(found)) or (spec.type == "INT" and found != raw):
        raise BadValue(f"{value!r} is not {wanted}")
    least, most = spec.settings.get("min"), spec.settings.get("max")
    if (least is not None and found < least) or (most is not None and found > most):
        raise BadValue(f"{value!r} is not between {least} and {most}")
    return found


def _parsed(text: str) -> int | float:
    """An int of any size stays exact: seeds are larger than a float can hold."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, (bool, int, str)) and text in TRUE + FALSE:
        return text in TRUE
    raise BadValue(f"{value!r} is neither true nor false")


def _choice(value: Any, spec: InputSpec) -> Any:
    if not spec.choices:  # the host does not list them
        return value if isinstance(value, (int, float)) else _text(value)
    for choice in spec.choices:
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
    same_text = [choice for choice in spec.choices if isinstance(value, str) and str(choice) == value]
    if same_text:
        return same_text[0]
    texts = [str(choice) for choice in spec.choices]
    near = difflib.get_close_matches(str(value), texts, MOST_CHOICES, 0.5) or texts
    more = f" and {len(near) - MOST_CHOICES} more" if len(near) > MOST_CHOICES else ""
    raise BadValue(f"{value!r} is none of its choices: {', '.join(near[:MOST_CHOICES])}{more}")
