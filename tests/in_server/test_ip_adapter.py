"""IP-Adapters in a graph of the real server: the script's pixels, other branches unaffected, and pictures that are read once."""

from __future__ import annotations

import numpy as np

from reference import task_scripts
from reference.ip_adapter_scripts import Adapter, half_mask, picture, prepare
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer
from support.graph import Graph, Out, saved
from support.pixels import assert_same_pixels
from support.server_log import stages_during

PROMPT, NEGATIVE = "a red cat", "dog"
SIZE = {"width": task_scripts.SIZE[0], "height": task_scripts.SIZE[1]}
SETTINGS = {**SIZE, "steps": task_scripts.STEPS, "guidance_scale": 5.0}
PLAIN, PLUS = "models/ip-adapter_sd15.safetensors", "models/ip-adapter-plus_sd15.safetensors"
ENCODER = "small_vit_h"


def stacked(graph: Graph, server: HostServer) -> Out:
    """A plain IP-Adapter with two pictures in the left half, and Plus with another picture for the end of the run."""
    first, second, third = (graph.picture(server, picture(seed), f"ip-{seed}.png") for seed in (1, 2, 3))
    plain, plus = (
        graph.add("RelayLoadIpAdapter", ip_adapter=name, image_encoder=ENCODER, dtype="float32")
        for name in (PLAIN, PLUS)
    )
    both = graph.add("ImageBatch", image1=first, image2=second)
    mask = graph.mask(server, half_mask(0), "ip-mask.png")
    whole, late = {"weight": 0.7, "start": 0.0, "end": 1.0}, {"weight": 0.5, "start": 0.4, "end": 1.0}
    units = graph.add("RelayIpAdapterImage", ip_adapter=plain, images=both, mask=mask, **whole)
    return graph.add("RelayIpAdapterImage", ip_adapter=plus, images=third, other_images=units, **late)


def in_script(models: SmallModels) -> list[Adapter]:
    folder = models.models / "ipadapter"
    masks = [half_mask(0), half_mask(0)]
    return [
        Adapter(folder / PLAIN, [picture(1), picture(2)], 0.7, masks=masks),
        Adapter(folder / PLUS, [picture(3)], 0.5, start=0.4),
    ]


def test_it_is_the_script_s_and_stays_in_its_branch(server: HostServer, models: SmallModels) -> None:
    """Samplers of one model without, with and without IP-Adapters, one after the other: each gives the pixels of its own script."""

    def build(seed: int) -> tuple[Graph, list[Out]]:
        graph = Graph()
        model = graph.load("sd15")
        prompt, adapters = graph.encode(model, PROMPT, NEGATIVE), stacked(graph, server)
        nodes = []
        for number, chosen in enumerate(({}, {"ip_adapter": adapters}, {})):
            latent = graph.text_to_image(model, prompt, seed=seed + number // 2, **SETTINGS, **chosen)
            nodes.append(graph.save(graph.decode(model, latent)))
        return graph, nodes

    graph, nodes = build(3)
    result = server.run(graph.prompt)
    before, steered, after = (saved(result, node) for node in nodes)
    folder = models.named["sd15"]
    begin = prepare(in_script(models), models.models / "clip_vision" / ENCODER)
    assert_same_pixels(steered, task_scripts.paint(folder, "text", PROMPT, NEGATIVE, prepare=begin))
    assert_same_pixels(before, task_scripts.paint(folder, "text", PROMPT, NEGATIVE))
    assert_same_pixels(after, task_scripts.paint(folder, "text", PROMPT, NEGATIVE, seed=4))
    assert np.abs(before.astype(int) - steered).max() > 5

    graph, _ = build(8)
    with stages_during(server) as stages:
        server.run(graph.prompt).raise_for_error()
    assert not [stage for stage in stages() if stage.startswith("text")], "another seed encodes nothing"
    assert [stage for stage in stages() if "IpAdapterWeights" in stage], "the memory manager knows the weights"
