"""A node that can't be written, as a function that raises: its values are there, and its work is left to the reader."""

from __future__ import annotations

import keyword
from typing import Any

from .graph import Link, Node
from .literals import literal
from .script import Script
from .values import Unknown


def write_stub(script: Script, node: Node) -> tuple[Any, ...]:
    script.begin(node, node.type)
    count = 1 + max(
        (link.output for other in script.nodes.values() for link in other.links if link.node == node.id), default=0
    )
    function = script.page.name(f"do_{node.type}", "node")
    script.line(f"def {function}(**inputs: object) -> object:")
    script.line(f"    raise NotImplementedError({literal(f'{node.called} is for you to fill in')})\n\n")
    arguments, others = [], []
    for name, value in node.inputs.items():
        if isinstance(value, dict):
            continue
        if isinstance(value, Link):
            outputs = script.outputs[value.node]
            written = str(getattr(outputs[value.output] if value.output < len(outputs) else None, "name", None))
        else:
            written = literal(value)
        if name.isidentifier() and not keyword.iskeyword(name):
            arguments.append(f"{name}={written}")
        else:
            others.append(f"{literal(name)}: {written}")
    if others:
        arguments.append(f"**{{{', '.join(others)}}}")
    names = [script.page.name(f"{node.title}_{index}" if count > 1 else node.title) for index in range(count)]
    script.assign(", ".join(names), function, arguments)
    return tuple(Unknown(name) for name in names)
