"""The text of a script: imports, constants, functions, and one block for each node."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .literals import comment, variable
from .part_texts import Import, all_parts, with_needs

STANDARD = ("collections.abc", "copy", "math", "pathlib", "typing")
WIDTH = 88


@dataclass
class Block:
    """What a script has for one node."""

    heading: str
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join([f"# {self.heading}", *self.lines])


class Page:
    """Collects a script. The order of its blocks is that of :meth:`block`'s calls."""

    def __init__(self, summary: str) -> None:
        self._summary = comment(summary)
        self._imports: set[Import] = set()
        self._constants: dict[str, str] = {}
        self._parts: set[str] = set()
        self._blocks: list[Block] = []
        self._taken = {
            "torch",
            "np",
            "DEVICE",
            "DTYPE",
            *all_parts(),
            *keyword.kwlist,
            *keyword.softkwlist,
            *dir(builtins),
        }
        self._taken |= {
            entry.alias or entry.name or entry.module for part in all_parts().values() for entry in part.imports
        }

    # What the writers call

    def block(self, heading: str) -> Block:
        made = Block(comment(heading))
        self._blocks.append(made)
        return made

    def name(self, title: str, otherwise: str = "value") -> str:
        """A variable that no other value has."""
        base = variable(title, otherwise)
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def use(self, module: str, name: str = "") -> str:
        """Imports a name from a module, or the module, and returns what to write for it."""
        self._imports.add(Import(module, name))
        return name or module

    def part(self, name: str) -> str:
        """Adds a function of :mod:`.parts`, and returns its name."""
        if name not in all_parts():
            raise LookupError(f"there is no part {name}")
        self._parts.add(name)
        return name

    def constant(self, name: str, value: str) -> str:
        self._constants.setdefault(name, value)
        return name

    def constant_of(self, name: str) -> str | None:
        return self._constants.get(name)

    # The result

    def text(self, ending: str = "") -> str:
        parts = with_needs(self._parts)
        functions = [part for part in parts if not part.is_constant]
        constants = [f"{name} = {value}" for name, value in self._constants.items()]
        constants += [part.text for part in parts if part.is_constant]
        imports = self._imports | {entry for part in parts for entry in part.imports}
        head = "\n".join([f'"""{self._summary}"""', "", *_import_lines(imports)])
        pieces = [head, "\n".join(constants)]
        body = "\n\n".join(block.text for block in self._blocks)
        texts = ["\n\n".join(piece for piece in pieces if piece)]
        texts += [part.text for part in functions]
        gap = "\n\n\n" if functions else "\n\n"
        return gap.join(texts) + gap + body + "\n" + (f"\n{ending}\n" if ending else "")


def _import_lines(imports: Iterable[Import]) -> list[str]:
    groups: dict[bool, list[Import]] = {True: [], False: []}
    for entry in imports:
        groups[entry.module in STANDARD].append(entry)
    texts = ["\n".join(_group_lines(groups[kind])) for kind in (True, False) if groups[kind]]
    return "\n\n".join(texts).splitlines()


def _group_lines(entries: Sequence[Import]) -> list[str]:
    lines = []
    for entry in sorted((one for one in entries if not one.name), key=lambda one: one.module):
        lines.append(f"import {entry.module} as {entry.alias}" if entry.alias else f"import {entry.module}")
    named: dict[str, list[str]] = {}
    for entry in entries:
        if entry.name:
            named.setdefault(entry.module, []).append(entry.name)
    for module in sorted(named, key=lambda one: (one.lower(), one)):
        names = sorted(set(named[module]), key=_place)
        line = f"from {module} import {', '.join(names)}"
        if len(line) > WIDTH:
            line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
        lines.append(line)
    return lines


def _place(name: str) -> tuple[int, str]:
    """As isort orders names: constants, classes, functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name.lower() if kind == 2 else name
