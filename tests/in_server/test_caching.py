"""Counts in the server what runs again when something changes."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.server_log import lines_during, stages_during


def image_to_image_graph(server: HostServer, seed: int, **settings: Any) -> tuple[Graph, Out, dict[str, Out]]:
    graph = Graph()
    model = graph.load("comic")
    prompt = graph.encode(model, "a cat of the caching test")
    image = graph.picture(server, scripts.soft_picture(), "soft.png")
    latent = graph.image_to_image(model, prompt, image=image, seed=seed, **settings)
    picture = graph.decode(model, latent)
    nodes = {"model": model, "prompt": prompt, "image": image, "sampler": latent, "decode": picture}
    return graph, graph.save(picture), nodes


def test_another_seed_runs_only_the_sampler_and_what_follows(server: HostServer) -> None:
    graph, node, nodes = image_to_image_graph(server, seed=1)
    first = saved(server.run(graph.prompt), node)
    graph, node, nodes = image_to_image_graph(server, seed=2)
    with lines_during(server) as lines, stages_during(server) as stages:
        result = server.run(graph.prompt)
    second = saved(result, node)
    assert set(result.executed) == {nodes["sampler"].node, nodes["decode"].node, node.node}
    assert not [line for line in lines() if "loaded " in line and " of comic" in line]
    assert not [stage for stage in stages() if stage.startswith("text")]
    assert stages() == ["denoise: UNet2DConditionModel", "vae: AutoencoderKL"], "the picture is not encoded again"
    assert np.abs(first.astype(int) - second.astype(int)).max() > 5


def sweep(server: HostServer, picture: Image.Image, seed: int = 1) -> tuple[Graph, list[Out]]:
    """Four strengths of one picture in four nodes, and the prompt in two nodes."""
    graph = Graph()
    model = graph.load("comic")
    prompts = [graph.encode(model, "a cat of the sweep", syntax=one) for one in ("compel", "plain")]
    image = graph.picture(server, picture, "swept.png")
    nodes = []
    for index, strength in enumerate((0.3, 0.5, 0.7, 0.9)):
        latent = graph.image_to_image(model, prompts[index % 2], image=image, seed=seed, strength=strength)
        nodes.append(graph.save(graph.decode(model, latent)))
    return graph, nodes


def counted(server: HostServer, graph: Graph, nodes: list[Out]) -> tuple[dict[str, int], np.ndarray]:
    """({stage: number of runs}, the pictures)"""
    with stages_during(server) as stages:
        result = server.run(graph.prompt)
    pictures = np.concatenate([saved(result, node) for node in nodes])
    return dict(Counter(stage.split(":")[0] for stage in stages())), pictures


def test_a_strength_sweep_encodes_its_picture_and_its_prompt_once(server: HostServer) -> None:
    """The host runs each node; the first one encodes what they share."""
    picture = scripts.soft_picture(seed=77)
    graph, nodes = sweep(server, picture)
    server.free()
    stages, swept = counted(server, graph, nodes)
    assert stages == {"text": 1, "vae": 1 + 4, "denoise": 4}
    graph, nodes = sweep(server, picture, seed=2)
    stages, other = counted(server, graph, nodes)
    assert stages == {"vae": 4, "denoise": 4}, "another seed reuses the encoded values and only decodes"
    assert np.abs(swept.astype(int) - other).max() > 5
    graph, nodes = sweep(server, picture)
    assert np.array_equal(counted(server, graph, nodes)[1], swept)

    changed = np.array(picture)
    changed[5, 7] ^= 1
    graph, nodes = sweep(server, Image.fromarray(changed))
    assert counted(server, graph, nodes)[0] == {"vae": 1 + 4, "denoise": 4}, "one changed pixel makes another picture"

    server.free()
    graph, nodes = sweep(server, picture)
    stages, again = counted(server, graph, nodes)
    assert stages == {"text": 1, "vae": 1 + 4, "denoise": 4}, "encoded values are freed together with the models"
    assert np.array_equal(again, swept)


def test_the_same_prompt_again_runs_nothing(server: HostServer) -> None:
    graph, _, _ = image_to_image_graph(server, seed=1)
    server.run(graph.prompt).raise_for_error()
    with stages_during(server) as stages:
        result = server.run(graph.prompt)
    assert result.executed == ()
    assert stages() == []


def test_two_loaders_of_one_model_share_its_modules(server: HostServer) -> None:
    """The host itself merges two equal nodes; these two give the dtype in different ways."""
    graph = Graph()
    first, second = graph.load("pixel", "float32"), graph.load("pixel", "auto")
    latents = [graph.text_to_image(model, graph.encode(model, "a"), seed=i) for i, model in enumerate((first, second))]
    for model, latent in zip((first, second), latents):
        graph.save(graph.decode(model, latent))
    with lines_during(server) as lines:
        server.run(graph.prompt).raise_for_error()
    loaded = sorted(line.split("loaded ")[1].split(" of ")[0] for line in lines() if " of pixel in " in line)
    assert loaded.count("unet") == 1, loaded
    assert len(loaded) == len(set(loaded)), loaded


def test_a_model_that_the_graph_drops_leaves_memory_and_loads_again(server: HostServer) -> None:
    def run(name: str) -> list[str]:
        graph = Graph()
        model = graph.load(name)
        graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a"), steps=1)))
        with lines_during(server) as lines:
            server.run(graph.prompt).raise_for_error()
        return [line for line in lines() if f" of {name} in " in line and "loaded unet" in line]

    run("sd15_half")
    assert run("sd15_half") == []
    run("sdxl_base")
    gc.collect()
    assert len(run("sd15_half")) == 1, "no one used its modules, so they were freed"


def test_free_memory_and_the_next_run_works(server: HostServer) -> None:
    graph, node, _ = image_to_image_graph(server, seed=3)
    before = saved(server.run(graph.prompt), node)
    server.free()
    after = saved(server.run(graph.prompt), node)
    assert np.array_equal(before, after)


def test_a_model_that_was_saved_anew_is_loaded_anew(server: HostServer, models: SmallModels) -> None:
    folder = server.models / "diffusers" / "edited"
    shutil.copytree(models.named["sd15"], folder)
    try:
        graph = Graph()
        model = graph.load("edited")
        node = graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a"), steps=2)))
        before = saved(server.run(graph.prompt), node)
        assert server.run(graph.prompt).executed == ()
        for file in (folder / "unet").glob("*.safetensors"):
            file.unlink()
            shutil.copyfile(models.named["comic"] / "unet" / file.name, file)
        after = saved(server.run(graph.prompt), node)
        assert np.abs(before.astype(int) - after.astype(int)).max() > 5
    finally:
        shutil.rmtree(folder)
