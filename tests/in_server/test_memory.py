"""Our models and the host's own in its memory manager, told from its log: on a real server, asked over HTTP."""

from __future__ import annotations

import numpy as np

from relay_dev.native_checkpoint import NATIVE_NAME
from relay_dev.server import HostServer
from support.graph import Graph, saved
from support.server_log import lines_during


def paint(server: HostServer, seed: int) -> tuple[np.ndarray, list[str]]:
    """A picture of ours that the host's own VAE decodes too, and what the log said."""
    graph = Graph()
    model = graph.load("pixel")
    latent = graph.text_to_image(model, graph.encode(model, "a cat of the memory test"), seed=seed, steps=2)
    native = graph.add("CheckpointLoaderSimple", ckpt_name=f"{NATIVE_NAME}.safetensors")
    graph.save(graph.add("VAEDecode", samples=latent, vae=native[2]))
    node = graph.save(graph.decode(model, latent))
    with lines_during(server) as lines:
        picture = saved(server.run(graph.prompt), node)
    return picture, lines()


def named(lines: list[str], what: str) -> set[str]:
    return {line.split(what)[1].split()[0] for line in lines if what in line}


OURS = {"CLIPTextModel", "UNet2DConditionModel", "AutoencoderKL"}


def test_unload_models_unloads_ours_too_and_they_come_back_without_reading(server: HostServer) -> None:
    server.free()
    before, lines = paint(server, seed=1)
    assert named(lines, "Requested to load ") >= OURS
    with lines_during(server) as since_free:
        server.post("/free", {"unload_models": True})
        paint(server, seed=2)
    lines = since_free()
    assert named(lines, "Unloading ") >= OURS
    assert sum("Unloading AutoencoderKL" in line for line in lines) == 2, "the native one and ours"
    assert {"UNet2DConditionModel", "AutoencoderKL"} <= named(lines, "Requested to load ")
    assert not [line for line in lines if " of pixel in " in line], "nothing is read from disk again"
    after, lines = paint(server, seed=1)
    assert np.array_equal(after, before)
    assert named(lines, "Requested to load ") & OURS == set(), "what is loaded stays"


def test_the_host_finds_no_leak(server: HostServer) -> None:
    paint(server, seed=3)
    graph = Graph()
    model = graph.load("comic")
    graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a"), steps=1)))
    server.run(graph.prompt).raise_for_error()
    assert "memory leak" not in server.log_text()
