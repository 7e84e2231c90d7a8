"""A library's error inside a node reaches the user as a sentence; errors that the host handles reach the host."""

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


class Sampler:
    """A node with a model input, like the sampling nodes."""

    @staticmethod
    def make(run: Any) -> Any:
        from comfy_api.latest import io

        from diffusers_relay.nodes import sampling_inputs
        from diffusers_relay.nodes.checked import checked

        class Example(io.ComfyNode):
            @classmethod
            def define_schema(cls) -> io.Schema:
                inputs = [sampling_inputs.model(), sampling_inputs.steps()]
                return io.Schema(node_id="Example", display_name="Sampler", category="x", inputs=inputs, outputs=[])

            @classmethod
            def execute(cls, model: Any, steps: int) -> io.NodeOutput:
                return run()

        return checked(Example)


def test_the_model_and_the_scheduler_are_named_where_there_are_any() -> None:
    from diffusers_relay.pipelines.model.components import SchedulerChoice
    from support.without_host import load

    model = load("sd15").with_changes(scheduler=SchedulerChoice("DDIMScheduler"))
    with pytest.raises(
        RelayError, match=r"^Sampler stopped with sd15 and DDIMScheduler: odd \(ValueError\)\. .*Set Scheduler"
    ):
        Sampler.make(raising(ValueError("odd."))).execute(model=model, steps=4)
    with pytest.raises(RelayError) as caught:
        node_that(raising(ValueError("odd"))).execute(strength=1.0)
    assert "Scheduler" not in str(caught.value), "a node without steps has no scheduler"


def test_a_processor_s_memory_that_ran_out_is_said_to_have() -> None:
    said = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    with pytest.raises(RelayError, match=r"^Example Node stopped: .*not enough memory"):
        node_that(raising(RuntimeError(said))).execute(strength=1.0)


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
