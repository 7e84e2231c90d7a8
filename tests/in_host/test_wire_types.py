"""Each socket type is declared once, with the classes of its values, and nodes accept nothing else from it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from comfy_api.latest import io

from diffusers_relay import comfy_entrypoint
from diffusers_relay.nodes import wire_types
from diffusers_relay.nodes.checked import WIDGETS, checked
from diffusers_relay.pipelines.base.errors import RelayError


def nodes() -> list[type[io.ComfyNode]]:
    async def listed() -> list[type[io.ComfyNode]]:
        return await (await comfy_entrypoint()).get_node_list()

    return asyncio.run(listed())


def test_every_input_of_every_node_is_a_widget_or_a_link_of_which_the_classes_are_known() -> None:
    inputs = [(node.__name__, one) for node in nodes() for one in node.GET_SCHEMA().inputs]
    assert inputs
    for title, one in inputs:
        kind = one.get_io_type()
        assert isinstance(one, io.WidgetInput) == (kind in WIDGETS), (title, one.id)
        assert kind in WIDGETS or wire_types.carried(kind), (title, one.id, kind)


class Anything:
    """A class that no node outputs."""


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "IMAGE",
            "MASK",
            "LATENT",
            "DIFFUSERS_MODEL",
            "DIFFUSERS_PROMPT",
            "DIFFUSERS_CONTROLNET",
            "DIFFUSERS_CONTROL",
        ),
        *("DIFFUSERS_IP_ADAPTER", "DIFFUSERS_IP_ADAPTER_IMAGE"),
    ],
)
def test_a_value_of_another_class_is_refused(kind: str) -> None:
    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            inputs = [io.Custom(kind).Input("value")]
            return io.Schema(node_id="Example", display_name="Example", category="x", inputs=inputs, outputs=[])

        @classmethod
        def execute(cls, value: Any) -> io.NodeOutput:
            return io.NodeOutput()

    node: Any = checked(Example)
    with pytest.raises(RelayError, match=rf"^value: .*Anything.* {kind}\. Connect an output of that type"):
        node.execute(value=Anything())


def test_what_only_the_host_knows_is_not_looked_at() -> None:
    assert wire_types.carried(io.Conditioning.io_type) is None
