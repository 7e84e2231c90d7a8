"""What a node says while it runs is in its UI output, and in nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from diffusers_relay.pipelines.base.errors import RelayError


def node_that_says(*messages: str, fails: bool = False) -> Any:
    from comfy_api.latest import io

    from diffusers_relay.nodes import comfy_host
    from diffusers_relay.nodes.checked import checked

    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Example", display_name="Example Node", category="x", inputs=[], outputs=[])

        @classmethod
        def execute(cls) -> io.NodeOutput:
            for message in messages:
                comfy_host.runtime_for(cls).monitor.say(message)
            if fails:
                raise RelayError("no")
            return io.NodeOutput("a value")

    return checked(Example)


@pytest.mark.parametrize(
    ("messages", "ui"),
    [
        ((), None),
        (("Converted.",), {"relay_notes": ["Converted."]}),
        (("B.", "A.", "B."), {"relay_notes": ["B.", "A."]}),
    ],
)
def test_the_messages_of_a_run_are_in_its_output_once_and_in_order(messages: tuple[str, ...], ui: Any) -> None:
    output = node_that_says(*messages).execute()
    assert output.ui == ui
    assert output.result == ("a value",)


def test_a_run_has_no_messages_of_the_run_before() -> None:
    with pytest.raises(RelayError):
        node_that_says("Before.", fails=True).execute()
    assert node_that_says("Now.").execute().ui == {"relay_notes": ["Now."]}
    assert node_that_says().execute().ui is None


def test_messages_outside_of_a_node_are_kept_nowhere() -> None:
    from diffusers_relay.nodes import comfy_host

    comfy_host.HostMonitor(None, lambda: None).say("Nobody runs.")
    assert node_that_says("Now.").execute().ui == {"relay_notes": ["Now."]}
