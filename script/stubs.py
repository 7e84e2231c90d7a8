"""A node that can't be written, as a function that raises: its values are there, and its work is left to the reader."""

from __future__ import annotations

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
    arguments = []
    for name, value in node.inputs.items():
        if not name.isidentifier():
            continue
        if isinstance(value, Link):
            outputs = script.outputs[value.node]
            given = outputs[value.output] if value.output < len(outputs) else None
            arguments.append(f"{name}={getattr(given, 'name', None)}")
        elif not isinstance(value, dict):
            arguments.append(f"{name}={literal(value)}")
    names = [script.page.name(f"{node.title}_{index}" if count > 1 else node.title) for index in range(count)]
    script.assign(", ".join(names), function, arguments)
    return tuple(Unknown(name) for name in names)
