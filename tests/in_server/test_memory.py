"""Our models and the host's own in its memory manager, on a real server over HTTP; the log shows what happens."""

from __future__ import annotations

import re
import time
from collections import Counter

import numpy as np

from relay_host.server import HostServer
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, saved
from support.server_log import lines_during


def paint(server: HostServer, seed: int) -> tuple[np.ndarray, list[str]]:
    """A picture of ours, also decoded by the host's own VAE, and the log's lines."""
    graph = Graph()
    model = graph.load("pixel")
    latent = graph.text_to_image(model, graph.encode(model, "a cat of the memory test"), seed=seed, steps=2)
    native = graph.add("CheckpointLoaderSimple", ckpt_name=f"{NATIVE_NAME}.safetensors")
    graph.save(graph.add("VAEDecode", samples=latent, vae=native[2]))
    node = graph.save(graph.decode(model, latent))
    with lines_during(server) as lines:
        picture = saved(server.run(graph.prompt), node)
    return picture, lines()


def named(lines: list[str], what: str) -> list[str]:
    return [found.group(1) for line in lines if (found := re.search(rf"{what}(\w+)$", line))]


OURS = {"CLIPTextModel", "UNet2DConditionModel", "AutoencoderKL"}


def unload_models(server: HostServer) -> None:
    """Repeats the request until the log shows that everything is unloaded: the server misses a request just as a prompt ends."""
    with lines_during(server) as lines:
        for _ in range(20):
            server.post("/free", {"unload_models": True})
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                if Counter(named(lines(), "Unloading ")) >= Counter([*OURS, "AutoencoderKL"]):  # with the native VAE
                    return
                time.sleep(0.05)
    raise AssertionError(lines())


def test_unload_models_unloads_ours_too_and_they_come_back_without_reading(server: HostServer) -> None:
    before, _ = paint(server, seed=1)
    unload_models(server)
    _, lines = paint(server, seed=2)
    assert {"UNet2DConditionModel", "AutoencoderKL"} <= set(named(lines, "Requested to load "))
    assert not [line for line in lines if " of pixel in " in line], "nothing is read from disk again"
    after, lines = paint(server, seed=1)
    assert np.array_equal(after, before)
    assert not OURS & set(named(lines, "Requested to load ")), "loaded models stay loaded"


def test_the_host_finds_no_leak(server: HostServer) -> None:
    paint(server, seed=3)
    graph = Graph()
    model = graph.load("comic")
    graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a"), steps=1)))
    server.run(graph.prompt).raise_for_error()
    assert "memory leak" not in server.log_text()
