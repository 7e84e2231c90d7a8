"""The inputs of a node as its writer reads them: values of JSON with their types checked, and the values of other nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .errors import NoScript
from .graph import Link, Node
from .values import Latent, Mask, Picture, Unknown

Kind = TypeVar("Kind")
UNKNOWN_AS: Mapping[type, Callable[[str], Any]] = {
    Picture: Picture,
    Mask: Mask,
    Latent: lambda name: Latent(name, None),
}
"""What the output of a node that could not be written is taken for."""


class Inputs:
    """Counts what is read: an input that no writer knows must not be left out in silence."""

    def __init__(self, node: Node, outputs: Mapping[str, Sequence[Any]]) -> None:
        self.node = node
        self._outputs = outputs
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        return self.node.inputs.get(name) is not None

    def _value(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self.node.inputs.get(name, default)
        if value is ...:
            raise NoScript(f"{self.node.called}: {name} is missing.")
        return self._of_link(name, value) if isinstance(value, Link) else value

    def _of_link(self, name: str, link: Link) -> Any:
        outputs = self._outputs[link.node]
        if link.output >= len(outputs) or link.output < 0:
            raise NoScript(f"{self.node.called}: {name} is connected to an output that the node {link.node} lacks.")
        return outputs[link.output]

    def value(self, name: str, kind: type[Kind]) -> Kind:
        """What another node gives."""
        found = self._value(name, ...)
        if isinstance(found, Unknown):
            found = UNKNOWN_AS[kind](found.name) if kind in UNKNOWN_AS else found
        if not isinstance(found, kind):
            raise self.wrong(name, found, f"a {kind.__name__.lower()}")
        return found

    def optional(self, name: str, kind: type[Kind]) -> Kind | None:
        if not self.has(name):
            self._read.add(name)
            return None
        return self.value(name, kind)

    def text(self, name: str, default: Any = ...) -> str:
        found = self._value(name, default)
        if not isinstance(found, str):
            raise self.wrong(name, found, "text")
        return found

    def choice(self, name: str, choices: Sequence[str], default: Any = ...) -> str:
        found = self.text(name, default)
        if found not in choices:
            raise self.wrong(name, found, f"one of {', '.join(choices)}")
        return found

    def whole(self, name: str, default: Any = ...) -> int:
        found = self._value(name, default)
        if isinstance(found, float) and found.is_integer():
            return int(found)
        if type(found) is not int:
            raise self.wrong(name, found, "a whole number")
        return found

    def number(self, name: str, default: Any = ...) -> float:
        found = self._value(name, default)
        if type(found) not in (int, float) or not math.isfinite(found):
            raise self.wrong(name, found, "a number")
        return float(found)

    def flag(self, name: str, default: Any = ...) -> bool:
        found = self._value(name, default)
        if type(found) is not bool:
            raise self.wrong(name, found, "true or false")
        return found

    def ignore(self, *names: str) -> None:
        """Inputs that change nothing in a script."""
        self._read |= set(names)

    def wrong(self, name: str, found: object, expected: str) -> NoScript:
        shown = type(found).__name__ if isinstance(found, (list, dict)) or hasattr(found, "__dict__") else repr(found)
        return NoScript(f"{self.node.called}: {name} is {shown[:80]}, but a script needs {expected}.")

    def check_all_read(self) -> None:
        """
        Raises:
            NoScript: the node has an input that its writer doesn't know.
        """
        unknown = [name for name in self.node.inputs if name not in self._read]
        if unknown:
            raise NoScript(
                f"{self.node.called}: its input {unknown[0]} can't be written as a script yet. Leave it out. On the command line, --stubs makes the node a function for you to fill in."
            )
