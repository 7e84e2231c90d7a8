"""What newer pages make otherwise of a saved subgraph than the page of ComfyUI 0.3.75, which the conversion follows.

Such a file is refused where the two would queue different prompts: nothing in it says which one its author has seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import UnreadableWorkflow
from .ui_graph import Scope, UiNode
from .ui_values import Values, placed_values

FOLLOWED = (1, 32, 9)
INSTEAD = 'Use a picture that ComfyUI saved from it, or export it with "Export (API)".'


def check_subgraphs(workflow: Mapping[str, Any], root: Scope, values: Values) -> None:
    """Raises UnreadableWorkflow if the file is from a newer page, and that page may convert one of its subgraphs otherwise."""
    version = saved_by(workflow)
    if version is None or version <= FOLLOWED:
        return
    page = ".".join(map(str, version))
    for scope, node in root.all_nodes():
        inside = scope.inside(node)
        if inside is None:
            continue
        if not node.runs and any(one.runs for one in inside.graph.nodes.values()):
            raise UnreadableWorkflow(
                f"{scope.called(node)} is a muted or bypassed subgraph, of which the page that saved the file ({page}) makes "
                f"something else than older ones. {INSTEAD}"
            )
        _check_values(scope, node, inside, values, page)


def _check_values(scope: Scope, node: UiNode, inside: Scope, values: Values, page: str) -> None:
    for inner, widget, value in placed_values(inside):
        within = inside.graph.nodes.get(int(inner))
        if within is None or inside.inside(within) is not None:
            continue
        if values.of(inside, within).get(widget) != value:
            raise UnreadableWorkflow(
                f"{scope.called(node)} has another {widget} than the node inside of it, and the page that saved the file ({page}) "
                f"chooses otherwise than older ones. {INSTEAD}"
            )


def saved_by(workflow: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The version of the page that saved the workflow; None if the file doesn't say."""
    text = (workflow.get("extra") or {}).get("frontendVersion")
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text) if isinstance(text, str) else None
    return None if found is None else tuple(int(one) for one in found.groups())
