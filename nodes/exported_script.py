"""What the page's menu "Export diffusers script" asks the server for: a graph as a diffusers script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import comfy_host

ROUTE = "/diffusers_relay/script"


def add_route() -> None:
    comfy_host.answer_posts(ROUTE, script_of)


def script_of(asked: Any) -> str:
    """
    Args:
        asked: {"prompt": the graph in API format, "workflow": as the page saves it, "chosen": ids of nodes}.

    Raises:
        RelayError: it is nothing of the kind, or the graph can't be written.
    """
    from ..script.errors import NoScript
    from ..script.known_models import Shelf
    from ..script.write import write_script

    if not (isinstance(asked, dict) and isinstance(asked.get("prompt"), dict)):
        raise NoScript("The page sent no graph.")
    workflow, chosen = asked.get("workflow"), asked.get("chosen") or []
    folders = {name: Path(path) for name, path in comfy_host.diffusers_folders().items()}
    return write_script(
        asked["prompt"],
        Shelf(folders=folders),
        chosen=[str(id) for id in chosen],
        workflow=workflow if isinstance(workflow, dict) else None,
    )
