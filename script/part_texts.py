"""The functions in :mod:`.parts` as text, with what each of them needs. They are read and not imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("parts")
FILES = ("prompts", "pictures", "masks", "latents", "kandinsky", "upscaling")
"""In the order in which a script has their functions."""


@dataclass(frozen=True)
class Import:
    """``import module`` or, with a name, ``from module import name``; ``alias`` is its name after ``as``."""

    module: str
    name: str = ""
    alias: str = ""


@dataclass(frozen=True)
class Part:
    name: str
    text: str
    is_constant: bool
    imports: tuple[Import, ...]
    needs: tuple[str, ...]
    """The names of other parts."""


@cache
def all_parts() -> dict[str, Part]:
    """Name -> part, in the order of :data:`FILES` and of the lines in them."""
    texts = {name: (FOLDER / f"{name}.py").read_text("utf-8") for name in FILES}
    modules = {name: ast.parse(text) for name, text in texts.items()}
    known = {name for module in modules.values() for name in map(_defines, module.body) if name}
    parts = {}
    for file, module in modules.items():
        imports = {name: entry for node in module.body for name, entry in _imports(node)}
        for node in module.body:
            name = _defines(node)
            if not name:
                continue
            used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            parts[name] = Part(
                name,
                _text(texts[file], node),
                isinstance(node, ast.Assign),
                tuple(imports[one] for one in sorted(used & set(imports))),
                tuple(sorted((used & known) - {name})),
            )
    return parts


def with_needs(names: Iterable[str]) -> list[Part]:
    """The named parts and all that they need, in the order of a script."""
    parts, wanted, open_names = all_parts(), set[str](), list(names)
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += parts[name].needs
    return [part for name, part in parts.items() if name in wanted]


def _defines(node: ast.stmt) -> str:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _imports(node: ast.stmt) -> list[tuple[str, Import]]:
    if isinstance(node, ast.Import):
        return [(one.asname or one.name, Import(one.name, alias=one.asname or "")) for one in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:  # the others are parts themselves
        return [(one.asname or one.name, Import(node.module or "", one.name, one.asname or "")) for one in node.names]
    return []


def _text(source: str, node: ast.stmt) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
