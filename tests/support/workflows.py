"""The content of a workflow in UI format, without the fields that the page adds when it saves."""

from __future__ import annotations

from typing import Any

OF_A_NODE = ("id", "type", "title", "pos", "mode", "widgets_values")
"""Without the size, which also depends on the browser's fonts. An empty list of widgets' values is the same as none."""


OF_A_GROUP = ("id", "title", "bounding", "color", "flags")
"""Without the font size, which newer pages leave out."""


def essence(workflow: dict[str, Any]) -> dict[str, Any]:
    nodes = sorted(workflow["nodes"], key=lambda node: node["id"])
    return {
        "id": workflow["id"],
        "nodes": [{key: node.get(key) or None for key in OF_A_NODE} for node in nodes],
        "links": workflow["links"],
        "groups": [{key: group.get(key) for key in OF_A_GROUP} for group in workflow["groups"]],
    }
