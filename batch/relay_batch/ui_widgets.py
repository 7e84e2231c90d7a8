"""The values of a node's widgets, by name: UI files save them by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import UnreadableWorkflow
from .node_table import InputSpec, NodeType
from .ui_graph import UiNode

SEEDS = ("seed", "noise_seed")
"""INT inputs of these names have a control_after_generate, even where the node does not ask for one."""
MADE_BY_THE_PAGE = ("WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION", "PREVIEW_3D", "AUDIO_RECORD", "COMFY_DYNAMICCOMBO_V3")
"""What the page puts into inputs of these types can't be read from a file."""
UPLOADS = ("image_upload", "video_upload", "audio_upload")
VIEWERS = ("LoadAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio", "SaveGLB")
"""The page gives these a player or a viewer, which has a place among the saved values."""


@dataclass(frozen=True)
class Widget:
    """A place among a node's saved values. `spec` is None for what is saved and gives no value: seed controls, buttons."""

    spec: InputSpec | None = None


def widgets_of(type: NodeType) -> list[Widget]:
    """The places of a node type's saved values, in order."""
    places = [place for spec in type.required for place in _places(spec)]
    if type.name in VIEWERS:
        places.append(Widget())
    if any(spec.settings.get(upload) for spec in type.required for upload in UPLOADS):
        places.append(Widget())  # the upload button
    return places + [place for spec in type.optional for place in _places(spec)]


def _places(spec: InputSpec) -> list[Widget]:
    if not spec.is_widget:
        return []
    controlled = spec.settings.get("control_after_generate") or (spec.type == "INT" and spec.name in SEEDS)
    controls = 0 if not controlled else 2 if spec.type == "COMBO" else 1  # a COMBO has a filter too
    return [Widget(spec)] + [Widget()] * controls


def widget_values(node: UiNode, type: NodeType, called: str) -> dict[str, Any]:
    """{name: value} of all widgets of a node. `called` names the node in errors.

    Values after the last widget are left out, as the page does: texts and viewers that it showed in the node.
    """
    for spec in type.inputs:
        if spec.type in MADE_BY_THE_PAGE:
            raise UnreadableWorkflow(
                f"{called}: its input {spec.name} ({spec.type}) is made by the page and can't be read from a file. "
                'Export the workflow with "Export (API)" and use that file.'
            )
    places = widgets_of(type)
    if isinstance(node.values, dict):
        specs = [place.spec for place in places if place.spec is not None]
        return {spec.name: node.values.get(spec.name, spec.default) for spec in specs}
    found = {}
    for at, place in enumerate(places):
        if place.spec is not None:
            found[place.spec.name] = node.values[at] if at < len(node.values) else place.spec.default
    return found
