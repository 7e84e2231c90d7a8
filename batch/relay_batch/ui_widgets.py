"""The values of a node's widgets, by name: UI files save them by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UnreadableWorkflow
from .node_table import InputSpec, NodeType
from .ui_graph import UiNode

SEEDS = ("seed", "noise_seed")
"""INT inputs of these names have a control_after_generate, even where the node does not ask for one."""
SHOWN_ONLY = ("AUDIO_UI", "IMAGECOMPARE", "CHART")
"""Inputs of these types are shown by the page and give no value."""
MADE_BY_THE_PAGE = ("WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION", "PREVIEW_3D", "AUDIO_RECORD", "COMFY_DYNAMICCOMBO_V3")
"""What the page puts into inputs of these types can't be read from a file."""
UPLOADS = ("image_upload", "video_upload", "audio_upload")
VIEWERS = ("LoadAudio", "SaveAudio", "SaveAudioMP3", "SaveAudioOpus", "PreviewAudio", "SaveGLB")
"""The page gives these a player or a viewer, which has a place among the saved values."""


@dataclass(frozen=True)
class Widget:
    """A place among a node's saved values. `spec` is None for what is saved and gives no value: seed controls, buttons."""

    spec: InputSpec | None = None
    takes_link_only: bool = False


def widgets_of(type: NodeType) -> list[Widget]:
    """The places of a node type's saved values, in order."""
    places = [place for spec in type.required for place in _places(spec)]
    if type.name in VIEWERS:
        places.append(Widget())
    if any(spec.settings.get(upload) for spec in type.required for upload in UPLOADS):
        places.append(Widget())  # the upload button
    return places + [place for spec in type.optional for place in _places(spec)]


def _places(spec: InputSpec) -> list[Widget]:
    if spec.type not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
        return []
    controlled = spec.settings.get("control_after_generate") or (spec.type == "INT" and spec.name in SEEDS)
    controls = 0 if not controlled else 2 if spec.type == "COMBO" else 1  # a COMBO has a filter too
    return [Widget(spec, not spec.is_widget)] + [Widget(None, not spec.is_widget)] * controls


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
        specs = [place.spec for place in places if place.spec is not None and not place.takes_link_only]
        return {spec.name: node.values.get(spec.name, spec.default) for spec in specs}
    values = _without_old_places(node.values, places)
    places = [place for place in places if not place.takes_link_only]
    found = {}
    for at, place in enumerate(places):
        if place.spec is not None:
            found[place.spec.name] = values[at] if at < len(values) else place.spec.default
    return found


def _without_old_places(values: Sequence[Any], places: Sequence[Widget]) -> list[Any]:
    """Old pages saved a value for inputs that take only a link: those are left out if the count shows that they are there."""
    link_only = [place.takes_link_only for place in places]
    if any(link_only) and len(values) == len(places):
        return [value for value, left_out in zip(values, link_only) if not left_out]
    return list(values)
