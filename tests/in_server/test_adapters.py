"""LoRAs and textual inversions through the real server: branches with and without them, bad input, cancel."""

from __future__ import annotations

import numpy as np
import pytest

from reference import adapter_scripts, scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from support.graph import Graph, Out, saved

PROMPT = "a red cat"
MANY = 400


def add_lora(graph: Graph, model: Out, lora: str, strength: float = 1.0, text_strength: float = 1.0) -> Out:
    return graph.add("RelayLoadLora", model=model, lora=lora, strength=strength, text_strength=text_strength)


def teach(graph: Graph, model: Out, embedding: str, token: str = "") -> Out:
    return graph.add("RelayLoadTextualInversion", model=model, embedding=embedding, token=token)


def paint(graph: Graph, model: Out, prompt: str = PROMPT, **settings) -> Out:
    latent = graph.text_to_image(model, graph.encode(model, prompt), seed=5, **settings)
    return graph.save(graph.decode(model, latent))


def assert_written(pixels: np.ndarray, script: np.ndarray) -> None:
    difference = np.abs(pixels.astype(int) - scripts.write_like_host(script))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("order", [[0.0, 1.0, 0.4], [0.4, 0.0, 1.0]], ids=str)
def test_branches_of_one_model(server: HostServer, models: SmallModels, order: list[float]) -> None:
    """0 is the branch without a LoRA node."""
    graph = Graph()
    model = graph.load("sd15")
    nodes = {}
    for strength in order:
        branch = add_lora(graph, model, "sd15_kohya.safetensors", strength, strength) if strength else model
        nodes[strength] = paint(graph, branch)
    result = server.run(graph.prompt)
    file = models.models / "loras" / "sd15_kohya.safetensors"
    for strength, node in nodes.items():
        loras = [adapter_scripts.LoraFile(file, strength, strength)] if strength else []
        pipe = adapter_scripts.pipeline(models.named["sd15"], loras)
        assert_written(saved(result, node), adapter_scripts.paint(pipe, PROMPT, seed=5))


def test_an_embedding_and_a_branch_without(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model = graph.load("sd15")
    prompt = "a badhands cat"
    with_word = paint(graph, teach(graph, model, "badhands.safetensors"), prompt)
    without = paint(graph, model, prompt)
    result = server.run(graph.prompt)
    pipe = adapter_scripts.pipeline(models.named["sd15"])
    assert_written(saved(result, without), adapter_scripts.paint(pipe, prompt, seed=5))
    pipe.load_textual_inversion(models.models / "embeddings", weight_name="badhands.safetensors", token="badhands")
    assert_written(saved(result, with_word), adapter_scripts.paint(pipe, prompt, seed=5))
    assert not np.array_equal(saved(result, with_word), saved(result, without))


def test_a_cancel_leaves_the_other_branch_as_it_was(server: HostServer) -> None:
    def plain() -> np.ndarray:
        graph = Graph()
        node = paint(graph, graph.load("sd15"), guidance_scale=7.0)
        return saved(server.run(graph.prompt), node)

    before = plain()
    graph = Graph()
    paint(graph, add_lora(graph, graph.load("sd15"), "sd15_kohya.safetensors"), steps=MANY)
    pending = server.queue(graph.prompt)
    server.wait_until(pending, lambda run: len(run.progress) >= 3)
    server.interrupt()
    result = server.wait(pending)
    assert result.interrupted
    assert result.error is None
    server.free()
    assert np.array_equal(plain(), before)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ("sd15_pickle.pt", "lora: .*is a pickle"),
        ("nowhere.safetensors", "lora: .*is not among the files"),
        ("../checkpoints/relay_native_sd15.safetensors", "lora: .*is not among the files"),
        ("/etc/passwd", "lora: .*is not among the files"),
    ],
)
def test_a_lora_that_is_no_choice_is_refused_when_it_is_queued(server: HostServer, lora: str, says: str) -> None:
    graph = Graph()
    paint(graph, add_lora(graph, graph.load("sd15"), lora))
    with pytest.raises(PromptRejected, match=says):
        server.run(graph.prompt)


def test_an_embedding_that_is_no_choice_is_refused_when_it_is_queued(server: HostServer) -> None:
    graph = Graph()
    paint(graph, teach(graph, graph.load("sd15"), "../loras/sd15_kohya.safetensors"))
    with pytest.raises(PromptRejected, match=r"embedding: .*is not among the files"):
        server.run(graph.prompt)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda g: add_lora(g, g.load("sd15"), "sdxl_kohya.safetensors"), "was made for SDXL"),
        (lambda g: add_lora(g, g.load("kandinsky_decoder"), "sd15_kohya.safetensors"), "can't use a LoRA"),
        (lambda g: teach(g, g.load("sd15"), "too_wide.safetensors"), "has vectors of width 64"),
        (lambda g: teach(g, g.load("sd15"), "sdxl_style.safetensors"), "made for SDXL"),
    ],
)
def test_of_another_family(server: HostServer, make, says: str) -> None:
    graph = Graph()
    paint(graph, make(graph))
    error = server.run(graph.prompt).error
    assert error is not None
    assert error.exception_type == "diffusers_relay.RelayError"
    assert says in error.message


def test_a_prompt_without_the_lora_is_refused_with_it(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("sd15")
    latent = graph.text_to_image(add_lora(graph, model, "sd15_kohya.safetensors"), graph.encode(model, PROMPT))
    graph.save(graph.decode(model, latent))
    error = server.run(graph.prompt).error
    assert error is not None
    assert "Encode the prompt again" in error.message
