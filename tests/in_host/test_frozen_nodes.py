"""Node ids, inputs and outputs are part of users' workflows: frozen_nodes.txt lists them, and only optional inputs at the end may be added."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from comfy_api.latest import io

from diffusers_relay import comfy_entrypoint

FROZEN = Path(__file__).with_name("frozen_nodes.txt")


def nodes() -> dict[str, list[str]]:
    """{node id: one line per input and one for the outputs}."""

    async def listed() -> list[type[io.ComfyNode]]:
        return await (await comfy_entrypoint()).get_node_list()

    found = {}
    for node in asyncio.run(listed()):
        schema = node.GET_SCHEMA()
        outputs = ", ".join(f"{one.display_name} {one.get_io_type()}" for one in schema.outputs)
        found[schema.node_id] = [*map(line, schema.inputs), f"-> {outputs}"]
    return found


def line(one: io.Input) -> str:
    default = getattr(one, "default", None)
    said = f"{one.id} {one.get_io_type()}" + ("" if default is None else f" {default!r}")
    return f"[{said}]" if one.optional else said


def frozen() -> dict[str, list[str]]:
    blocks = FROZEN.read_text("utf-8").strip().split("\n\n")
    return {block.splitlines()[0]: block.splitlines()[1:] for block in blocks}


def test_no_node_has_gone() -> None:
    assert set(frozen()) <= set(nodes())


@pytest.mark.parametrize("node_id", frozen())
def test_a_saved_node_means_what_it_meant(node_id: str) -> None:
    *inputs, outputs = frozen()[node_id]
    *now, outputs_now = nodes()[node_id]
    assert now[: len(inputs)] == inputs
    assert all(said.startswith("[") for said in now[len(inputs) :]), "a new input must be optional"
    assert outputs_now.startswith(outputs)
