"""What a workflow in UI format says, without what only the page that saved it adds."""

from __future__ import annotations

from typing import Any

OF_A_NODE = ("id", "type", "title", "pos", "mode", "widgets_values")
"""Not its size: that also depends on the fonts that the browser has."""


def essence(workflow: dict[str, Any]) -> dict[str, Any]:
    nodes = sorted(workflow["nodes"], key=lambda node: node["id"])
    return {
        "id": workflow["id"],
        "nodes": [{key: node.get(key) for key in OF_A_NODE} for node in nodes],
        "links": workflow["links"],
        "groups": workflow["groups"],
    }
