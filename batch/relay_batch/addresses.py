"""What can be set in a workflow, and by which address: an app's input, Title.input, or id.input."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import BadAddress
from .node_table import InputSpec, NodeTable
from .workflow_file import Workflow, is_link

MOST_CANDIDATES = 12


@dataclass(frozen=True)
class Setting:
    """One thing that can be set. `targets` are the inputs that it sets: a subgraph's node can set several."""

    id: str
    input: str
    title: str
    spec: InputSpec
    value: Any
    targets: tuple[tuple[str, str], ...]
    in_app: bool = False

    @property
    def by_id(self) -> str:
        return f"{self.id}.{self.input}"

    @property
    def by_title(self) -> str:
        return f"{self.title}.{self.input}"

    def addresses(self) -> tuple[str, ...]:
        """All of its addresses; the first that names nothing else is the best."""
        return (*((self.input,) if self.in_app else ()), self.by_title, self.by_id)


class Settings:
    """Everything that can be set in a workflow."""

    def __init__(self, workflow: Workflow, table: NodeTable):
        self.all = list(_settings(workflow, table))
        self._linked = set(_linked(workflow, table))

    def best_address(self, setting: Setting) -> str:
        """Its shortest address that names nothing else."""
        return next(one for one in setting.addresses() if self._named(one) == [setting])

    def find(self, address: str) -> Setting:
        """Raises BadAddress if the address names nothing, or several things."""
        found = self._named(address)
        if len(found) == 1:
            return found[0]
        if found:
            raise BadAddress(
                f"{address!r} names {len(found)} inputs: {_listed([one.by_id for one in found])}. Use one of these."
            )
        if address in self._linked:
            raise BadAddress(
                f"{address!r} can't be set: the input is linked. Set what it is linked to, or remove the link."
            )
        known = [self.best_address(one) for one in self.all]
        near = difflib.get_close_matches(address, known, MOST_CANDIDATES, 0.6)
        same_input = [one for one in known if one.split(".")[-1] == address.split(".")[-1]]
        candidates = (near if "." in address else same_input) or same_input or known
        raise BadAddress(f"{address!r} names no input. There are: {_listed(candidates)}.")

    def pictures(self) -> list[Setting]:
        """The inputs that are picture files."""
        return [one for one in self.all if one.spec.is_picture]

    def _named(self, address: str) -> list[Setting]:
        """The settings of an address, by the first rule that fits: the app's inputs, titles, ids."""
        rules = (
            [one for one in self.all if one.in_app and one.input == address],
            [one for one in self.all if one.by_title == address],
            [one for one in self.all if one.by_id == address],
        )
        return next((found for found in rules if found), [])


def _listed(addresses: Sequence[str]) -> str:
    more = len(addresses) - MOST_CANDIDATES
    return ", ".join(addresses[:MOST_CANDIDATES]) + (f" and {more} more" if more > 0 else "")


def _title(workflow: Workflow, id: str) -> str:
    node = workflow.prompt[id]
    return str((node.get("_meta") or {}).get("title") or node["class_type"])


def _settings(workflow: Workflow, table: NodeTable) -> Iterator[Setting]:
    app = set(workflow.app_inputs)
    for (id, widget), targets in workflow.promoted.items():
        first, name = targets[0]
        spec = _spec(workflow, table, first, name)
        value = workflow.prompt[first]["inputs"][name]
        if spec is not None and not is_link(value):
            yield Setting(id, widget, workflow.titles[id], spec, value, tuple(targets), (id, widget) in app)
    for id, node in workflow.prompt.items():
        for name, value in node["inputs"].items():
            spec = _spec(workflow, table, id, name)
            if spec is not None and not is_link(value):
                yield Setting(id, name, _title(workflow, id), spec, value, ((id, name),), (id, name) in app)


def _linked(workflow: Workflow, table: NodeTable) -> Iterator[str]:
    for id, node in workflow.prompt.items():
        for name, value in node["inputs"].items():
            if is_link(value):
                yield from (f"{id}.{name}", f"{_title(workflow, id)}.{name}")


def _spec(workflow: Workflow, table: NodeTable, id: str, name: str) -> InputSpec | None:
    type = table.get(workflow.prompt[id]["class_type"])
    spec = None if type is None else type.input(name)
    return spec if spec is not None and spec.is_widget else None
