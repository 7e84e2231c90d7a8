"""Describes a blueprint: the nodes inside, and the inputs and outputs of the one node that the user sees."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..examples.sheet import Output, Sheet

CATEGORY = "Diffusers Relay"


@dataclass
class Blueprint:
    """`name` is the file's name and the node's title; `aliases` are other words that people search for."""

    name: str
    description: str
    aliases: tuple[str, ...]
    sheet: Sheet = field(init=False)
    inputs: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    """(name outside, [(node, its input)])"""
    outputs: list[tuple[str, Output]] = field(default_factory=list)
    """(name outside, the output of a node inside)"""

    def __post_init__(self) -> None:
        self.sheet = Sheet(self.name, note="")

    def takes(self, name: str, *places: tuple[Output, str]) -> None:
        """An input of the blueprint, which goes to these inputs of the nodes inside."""
        self.inputs.append((name, [(node.node, key) for node, key in places]))

    def takes_all(self, node: Output, *names: str) -> None:
        """Inputs of a node inside that are inputs of the blueprint with the same names."""
        for name in names:
            self.takes(name, (node, name))

    def gives(self, name: str, output: Output) -> None:
        self.outputs.append((name, output))
