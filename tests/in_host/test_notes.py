"""What a node says while it runs is in its UI output, and in nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.latents.borrowed_module import retry_in_float32
from support.small_card import SmallCard


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


def test_how_a_module_ran_is_a_message_of_the_node(small_card: Callable[[int], SmallCard]) -> None:
    """The node of the run says that a module was streamed, and that an autoencoder ran in float32."""
    from comfy_api.latest import io

    from diffusers_relay.nodes import comfy_host
    from diffusers_relay.nodes.checked import checked

    small_card(10**9)

    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Example", display_name="Example Node", category="x", inputs=[], outputs=[])

        @classmethod
        def execute(cls) -> io.NodeOutput:
            policy = comfy_host.runtime_for(cls).policy
            with policy.on_device(Stage.DENOISE, [torch.nn.Linear(8, 8)], working_bytes=2 * 10**9):
                retry_in_float32(torch.float16, "sd15", policy)
            return io.NodeOutput("a value")

    streamed, float32 = checked(Example).execute().ui["relay_notes"]
    assert streamed.startswith(
        "Linear is streamed block by block, which is slower: it has 0 MB, the run needs 1907 MB more"
    )
    assert float32 == "The autoencoder of sd15 overflowed in float16, so it ran again in float32."


def test_messages_outside_of_a_node_are_kept_nowhere() -> None:
    from diffusers_relay.nodes import comfy_host

    comfy_host.HostMonitor(None, lambda: None).say("Nobody runs.")
    assert node_that_says("Now.").execute().ui == {"relay_notes": ["Now."]}
