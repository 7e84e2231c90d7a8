"""Our nodes and ComfyUI's own in one graph, on the same weights: no conversion is needed, and none happens."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file

from reference import scripts
from relay_host.server import HostServer, RunResult
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, Out, saved
from support.server_log import stages_during

PROMPT = "a red cat on a blue sofa"
KSAMPLER = {"sampler_name": "euler", "scheduler": "normal", "steps": 4, "cfg": 5.0, "seed": 31}


def native(graph: Graph) -> Out:
    return graph.add("CheckpointLoaderSimple", ckpt_name=f"{NATIVE_NAME}.safetensors")


def test_the_host_s_vae_decode_reads_our_latent(server: HostServer) -> None:
    graph = Graph()
    model, checkpoint = graph.load(NATIVE_NAME), native(graph)
    latent = graph.text_to_image(model, graph.encode(model, PROMPT), seed=3)
    ours = graph.save(graph.decode(model, latent))
    theirs = graph.save(graph.add("VAEDecode", samples=latent, vae=checkpoint[2]))
    result = server.run(graph.prompt)
    a, b = saved(result, ours), saved(result, theirs)
    assert np.abs(a.astype(int) - b.astype(int)).max() <= 1
    assert a.std() > 10


def test_sd15_to_ksampler_to_sd15(server: HostServer) -> None:
    graph = Graph()
    model, checkpoint = graph.load(NATIVE_NAME), native(graph)
    prompt = graph.encode(model, PROMPT, "dog")
    first = graph.text_to_image(model, prompt, seed=3)
    second = graph.add(
        "KSampler",
        model=checkpoint[0],
        positive=prompt[1],
        negative=prompt[2],
        latent_image=first,
        denoise=0.6,
        **KSAMPLER,
    )
    third = graph.image_to_image(model, prompt, latent=second, strength=0.5, steps=4, seed=5)
    node = graph.save(graph.decode(model, third))
    with stages_during(server) as stages:
        result = server.run(graph.prompt)
    assert saved(result, node).std() > 10
    assert result.texts == (), "nothing is converted, so there is no message"
    assert stages().count("vae: AutoencoderKL") == 1, "one decode at the end"


def test_the_host_s_encode_and_latent_nodes_feed_ours(server: HostServer) -> None:
    """VAEEncode drops every tag, so the latent is assumed to be in the model's own space, which is correct."""
    graph = Graph()
    model, checkpoint = graph.load(NATIVE_NAME), native(graph)
    image = graph.picture(server, scripts.soft_picture(), "soft.png")
    encoded = graph.add("VAEEncode", pixels=image, vae=checkpoint[2])
    larger = graph.add(
        "LatentUpscale", samples=encoded, upscale_method="bilinear", width=128, height=64, crop="disabled"
    )
    prompt = graph.encode(model, PROMPT)
    node = graph.save(graph.decode(model, graph.image_to_image(model, prompt, latent=larger, strength=0.3, steps=4)))
    result = server.run(graph.prompt)
    assert saved(result, node).shape == (1, 64, 128, 3)
    assert result.texts == ()


def test_set_latent_noise_mask_keeps_the_rest_of_the_picture(server: HostServer) -> None:
    graph = Graph()
    model = graph.load("sd15")
    image = graph.picture(server, scripts.soft_picture(128, 64), "soft-128x64.png")
    encoded = graph.add("RelayEncode", model=model, image=image, seed=1)
    mask = graph.add("SolidMask", value=1.0, width=64, height=64)
    wide = graph.add(
        "MaskComposite",
        destination=graph.add("SolidMask", value=0.0, width=128, height=64),
        source=mask,
        x=64,
        y=0,
        operation="add",
    )
    masked = graph.add("SetLatentNoiseMask", samples=encoded, mask=wide)
    painted = graph.image_to_image(model, graph.encode(model, PROMPT), latent=masked, strength=0.9, steps=5)
    before, after = (graph.add("SaveLatent", samples=latent, filename_prefix="test") for latent in (encoded, painted))
    result = server.run(graph.prompt).raise_for_error()
    change = (saved_latent(result, before) - saved_latent(result, after)).abs()
    assert change.shape == (1, 4, 8, 16)
    assert float(change[..., :8].max()) <= 1e-6 * 30
    assert float(change[..., 8:].mean()) > 0.1


def saved_latent(result: RunResult, node: Out) -> torch.Tensor:
    entry = result.outputs[node.node]["latents"][0]
    return load_file(result.folders[entry["type"]] / entry["subfolder"] / entry["filename"])["latent_tensor"]
