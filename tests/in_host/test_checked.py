"""What a library raises inside of a node reaches the user in a sentence; what the host handles reaches the host."""

from __future__ import annotations

from typing import Any

import pytest

from diffusers_relay.pipelines.base.errors import RelayError


def node_that(run: Any) -> Any:
    from comfy_api.latest import io

    from diffusers_relay.nodes.checked import checked

    class Example(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            inputs = [io.Latent.Input("latent", optional=True), io.Float.Input("strength", default=1.0)]
            return io.Schema(node_id="Example", display_name="Example Node", category="x", inputs=inputs, outputs=[])

        @classmethod
        def execute(cls, strength: float, latent: Any = None) -> io.NodeOutput:
            return run()

    return checked(Example)


def raising(error: BaseException) -> Any:
    def run() -> None:
        raise error

    return run


def test_a_library_s_error_is_a_sentence_and_its_cause_is_kept() -> None:
    cause = IndexError("index 8 is out of bounds\n for dimension 0 with size 7" + " and so on" * 100)
    with pytest.raises(RelayError, match=r"^Example Node stopped: index 8 is out of bounds for dimension 0") as caught:
        node_that(raising(cause)).execute(strength=1.0)
    assert caught.value.__cause__ is cause
    assert len(str(caught.value)) < 400


def test_what_the_host_handles_reaches_it() -> None:
    import comfy.model_management as memory

    for error in (memory.InterruptProcessingException(), memory.OOM_EXCEPTION("full"), MemoryError()):
        with pytest.raises(type(error)) as caught:
            node_that(raising(error)).execute(strength=1.0)
        assert caught.value is error


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_by_its_input(value: float) -> None:
    with pytest.raises(RelayError, match=rf"^strength: {value} can't be used"):
        node_that(raising(AssertionError("it ran"))).execute(strength=value)
