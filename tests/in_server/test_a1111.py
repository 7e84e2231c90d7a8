"""The a1111 syntax through the real server: the same picture as with Compel's own syntax, in our samplers and the host's."""

from __future__ import annotations

import numpy as np
import pytest

from relay_host.server import HostServer
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, Out, saved

A1111 = r"a ((red)) [cat] \(toy\) BREAK (a dog:1.3)"
COMPEL = r'("a (red)1.21 (cat)0.9090909090909091 \(toy\)", "(a dog)1.3").and()'


@pytest.mark.parametrize("model_name", ["sd15", "sdxl_base"])
def test_one_prompt_in_two_syntaxes_is_one_picture(server: HostServer, model_name: str) -> None:
    graph = Graph()
    model = graph.load(model_name)

    def picture(text: str, syntax: str) -> Out:
        prompt = graph.encode(model, text, "[ugly]" if syntax == "a1111" else "(ugly)0.9090909090909091", syntax=syntax)
        return graph.save(graph.decode(model, graph.text_to_image(model, prompt)))

    nodes = [picture(A1111, "a1111"), picture(COMPEL, "compel"), picture("a red cat (toy)", "plain")]
    result = server.run(graph.prompt).raise_for_error()
    a1111, compel, plain = (saved(result, node) for node in nodes)
    assert np.array_equal(a1111, compel)
    assert not np.array_equal(a1111, plain)


def test_break_in_the_host_s_sampler_and_in_the_prior(server: HostServer) -> None:
    graph = Graph()
    model = graph.load(NATIVE_NAME)
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=f"{NATIVE_NAME}.safetensors")
    prompt = graph.encode(model, A1111, syntax="a1111")
    empty = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    settings = {"sampler_name": "euler", "scheduler": "normal", "steps": 3, "cfg": 5.0, "seed": 1, "denoise": 1.0}
    latent = graph.add(
        "KSampler", model=checkpoint[0], positive=prompt[1], negative=prompt[2], latent_image=empty, **settings
    )
    first = graph.save(graph.add("VAEDecode", samples=latent, vae=checkpoint[2]))
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    embeds = graph.prior(prior, A1111)
    graph.prompt[embeds.node]["inputs"]["syntax"] = "a1111"
    second = graph.save(graph.decode(decoder, graph.text_to_image(decoder, embeds)))
    result = server.run(graph.prompt).raise_for_error()
    assert saved(result, first).std() > 5
    assert saved(result, second).std() > 5
    assert any("The 2 parts were averaged" in text for _, text in result.texts)
