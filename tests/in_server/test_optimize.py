"""RelayOptimize through the real server: the script's pixels, and rejected options."""

from __future__ import annotations

import re

import pytest
import torch

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels

PROMPT = "a red cat"


def optimize(graph: Graph, model: Out, **options: object) -> Out:
    defaults = {
        "compile": "off",
        "attention": "auto",
        "vae_tiling": False,
        "vae_slicing": False,
        "channels_last": False,
    }
    return graph.add("RelayOptimize", model=model, **{**defaults, **options})


def painted(graph: Graph, model: Out) -> Out:
    latent = graph.text_to_image(model, graph.encode(model, PROMPT), seed=15, batch_size=1)
    return graph.save(graph.decode(model, latent))


def test_two_branches_of_one_model(server: HostServer, models: SmallModels) -> None:
    """One branch with options that change no pixel, and one without: both give the script's pixels, in either order."""
    script = scripts.sd15_text_to_image(models.named["sd15"], PROMPT, seed=15)
    for optimized_first in (True, False):
        graph = Graph()
        model = graph.load("sd15")
        other = optimize(graph, model, attention="sdpa", vae_slicing=True)
        nodes = [painted(graph, one) for one in ((other, model) if optimized_first else (model, other))]
        result = server.run(graph.prompt)
        for node in nodes:
            assert_same_pixels(saved(result, node), script)


def test_all_that_a_cpu_knows_at_once(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("sd15")
    fast = optimize(graph, model, attention="sliced", vae_tiling=True, channels_last=True, matmul="onednn")
    plain, other = painted(graph, model), painted(graph, fast)
    result = server.run(graph.prompt)
    difference = abs(saved(result, plain).astype(int) - saved(result, other).astype(int))
    # A processor with AMX multiplies in bfloat16, whose values have 8 bits.
    assert difference.max() <= (16 if torch.cpu._is_amx_tile_supported() else 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sd15", {"attention": "xformers"}, r"attention: xformers .*sdpa"),
        ("kandinsky_decoder", {"vae_tiling": True}, r"vae_tiling: .*does not support it"),
        ("kandinsky_prior", {}, r"model: .*nothing to optimise"),
    ],
)
def test_what_would_do_nothing_is_an_error(
    server: HostServer, name: str, options: dict[str, object], message: str
) -> None:
    graph = Graph()
    model = optimize(graph, graph.load(name), **options)
    graph.save(graph.decode(model, graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)))
    error = server.run(graph.prompt).error
    assert error is not None and error.node_type == "RelayOptimize"
    assert re.search(message, error.message), error.message


def test_an_unknown_choice_is_refused_before_it_runs(server: HostServer) -> None:
    for options in ({"compile": "fastest"}, {"attention": "flash"}, {"matmul": "mkl"}):
        graph = Graph()
        painted(graph, optimize(graph, graph.load("sd15"), **options))
        with pytest.raises(PromptRejected, match="is not one of the choices in this version"):
            server.run(graph.prompt)
