"""The texts of the nodes in English, in the form of locales/<language>/nodeDefs.json, in which the page takes translations.

python -m relay_dev.node_texts          prints them as JSON (with devtools on PYTHONPATH)
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from relay_host.comfyui import get_host
from relay_host.pack import enter_host, load_pack

WORDS = {"auto", "default", "none", "off", "plain"}
"""The choices of an input that are words; the others are names and values of diffusers."""
Texts = dict[str, Any]
"""display_name, description, inputs {id: {name, tooltip, options {choice: text}}}, outputs {"0": {name, tooltip}}."""


def english_texts() -> dict[str, Texts]:
    """{node id: its texts}. The host must be importable."""

    async def schemas() -> list[Any]:
        extension = await load_pack().comfy_entrypoint()
        return [node.GET_SCHEMA() for node in await extension.get_node_list()]

    return {schema.node_id: _texts(schema) for schema in asyncio.run(schemas())}


def _texts(schema: Any) -> Texts:
    inputs: Texts = {}
    for entry in schema.inputs:
        inputs[entry.id] = {"name": entry.display_name or entry.id, "tooltip": entry.tooltip}
        words = [choice for choice in getattr(entry, "options", None) or () if choice in WORDS]
        if words:
            inputs[entry.id]["options"] = {word: word for word in words}
    outputs = {
        str(number): {"name": entry.display_name, "tooltip": entry.tooltip}
        for number, entry in enumerate(schema.outputs)
    }
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": outputs,
    }


def ask_for_texts() -> dict[str, Texts]:
    """The same from outside of the host: the process becomes a host with an empty base folder."""
    with tempfile.TemporaryDirectory() as base:
        enter_host(get_host(), Path(base))
        return english_texts()


def main() -> int:
    print(json.dumps(ask_for_texts(), ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
