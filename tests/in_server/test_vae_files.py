"""Files in models/vae through the real server: the same picture as the folder's VAE, and when and how files are rejected."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reference import scripts
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from small_models.native_checkpoint import NATIVE_NAME, original_vae
from support.graph import Graph, Out, saved
from support.server_log import lines_during

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def vaes(server: HostServer) -> Iterator[Path]:
    """The server's VAE folder; files that a test adds are removed afterwards."""
    folder = server.models / "vae"
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def native_folder(models: SmallModels) -> Path:
    """A model with a full-size VAE, as in the pack's configs."""
    return models.models / "diffusers" / NATIVE_NAME


def another_decoder(models: SmallModels) -> dict[str, torch.Tensor]:
    """Like ft-mse: the same encoder, another decoder."""
    weights = load_file(native_folder(models) / WEIGHTS)
    key = "decoder.conv_out.bias"
    return {**weights, key: weights[key] + torch.tensor([0.3, -0.2, 0.1]).to(weights[key])}


def set_vae(graph: Graph, model: Out, **choice: str | Out) -> Out:
    return graph.add("RelaySetVae", model=model, **choice)


def encoded(graph: Graph, server: HostServer, model: Out) -> Out:
    picture = graph.picture(server, scripts.soft_picture(32, 32), "soft-32x32.png")
    return graph.add("RelayEncode", model=model, image=picture, seed=3)


def test_a_file_is_the_folder_and_shares_the_space(server: HostServer, models: SmallModels, vaes: Path) -> None:
    weights = another_decoder(models)
    save_file(original_vae(weights), vaes / "file.safetensors")
    folder = server.models / "diffusers" / "with_its_vae"
    shutil.copytree(native_folder(models), folder, copy_function=os.link)
    save_file(weights, folder / "vae" / "new.safetensors", metadata={"format": "pt"})
    (folder / "vae" / "new.safetensors").replace(folder / WEIGHTS)
    try:
        graph = Graph()
        model = graph.load(NATIVE_NAME)
        latent = encoded(graph, server, model)
        with_file = set_vae(graph, model, vae_file="file.safetensors")
        with_folder = set_vae(graph, model, vae_from=graph.load("with_its_vae"), vae_file="none")
        nodes = [graph.save(graph.decode(one, latent)) for one in (with_file, with_folder, model)]
        with lines_during(server) as lines:
            result = server.run(graph.prompt)
        from_file, from_folder, own = (saved(result, node).astype(int) for node in nodes)
        assert np.array_equal(from_file, from_folder)
        assert np.abs(from_file - own).max() > 5, "another decoder"
        assert result.texts == (), "the encoder is the same, so the latent is in the model's space"
        assert len([line for line in lines() if "loaded vae of file.safetensors" in line]) == 1
    finally:
        shutil.rmtree(folder)


def test_a_file_that_was_written_anew_is_loaded_anew(server: HostServer, models: SmallModels, vaes: Path) -> None:
    weights = another_decoder(models)
    path = vaes / "edited.safetensors"
    save_file(weights, path)
    graph = Graph()
    model = set_vae(graph, graph.load(NATIVE_NAME), vae_file=path.name)
    node = graph.save(graph.decode(model, encoded(graph, server, model)))
    before = saved(server.run(graph.prompt), node)
    assert server.run(graph.prompt).executed == ()
    path.unlink()
    save_file({**weights, "decoder.conv_out.bias": -weights["decoder.conv_out.bias"]}, path)
    after = saved(server.run(graph.prompt), node)
    assert np.abs(before.astype(int) - after.astype(int)).max() > 5


def test_the_choice_lists_safetensors_after_none(server: HostServer, vaes: Path) -> None:
    (vaes / "old.pt").write_bytes(b"x")
    (vaes / "a.safetensors").write_bytes(b"x")
    inputs = server.object_info()["RelaySetVae"]["input"]
    assert list(inputs["optional"]) == ["vae_from", "vae_file"]
    spec = inputs["optional"]["vae_file"]
    choices = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
    assert choices == ["none", "a.safetensors"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("old.pt", r"vae_file: 'old\.pt' is a pickle.*convert this one once"),
        ("gone.safetensors", r"vae_file: 'gone\.safetensors' is not among the files.*here\.safetensors"),
        ("../checkpoints/" + NATIVE_NAME + ".safetensors", r"vae_file: .*is not among the files"),
        ("/etc/passwd", r"vae_file: .*is not among the files"),
        ("", r"vae_file: '' is not among the files"),
    ],
)
def test_what_the_name_tells_is_refused_before_anything_runs(
    server: HostServer, vaes: Path, name: str, message: str
) -> None:
    torch.save({"a": torch.ones(1)}, vaes / "old.pt")
    save_file({"a": torch.ones(1)}, vaes / "here.safetensors")
    graph = Graph()
    model = set_vae(graph, graph.load("sd15"), vae_file=name)
    graph.save(graph.decode(model, encoded(graph, server, model)))
    with pytest.raises(PromptRejected) as caught:
        server.run(graph.prompt)
    (errors,) = (e for e in caught.value.node_errors.values() if e["class_type"] == "RelaySetVae")
    assert re.search(message, errors["errors"][0]["details"], re.DOTALL), errors


EXACTLY_ONE = r"^vae_from, vae_file: use exactly one of them"
BAD = {
    # {name: (the file's tensors, other choices, model, message)}
    "neither": (None, {}, "sd15", EXACTLY_ONE),
    "both": ({"a": torch.ones(1)}, {"vae_from": "comic"}, "sd15", EXACTLY_ONE),
    "no VAE": ({"a": torch.ones(1)}, {}, "sd15", r"^bad\.safetensors is not a VAE of Stable Diffusion 1\.x / 2\.x"),
    "of 16 channels": (
        {"decoder.conv_in.weight": torch.ones(8, 16, 3, 3), "encoder.conv_in.weight": torch.ones(8, 3, 3, 3)},
        {},
        "sd15",
        r"^bad\.safetensors is not a VAE .*takes 16 channels",
    ),
    "of another width": (
        {"decoder.conv_in.weight": torch.ones(8, 4, 3, 3), "encoder.conv_in.weight": torch.ones(8, 3, 3, 3)},
        {},
        "sd15",
        r"^bad\.safetensors: the tensors of its vae don't match",
    ),
    "for Kandinsky": ({"a": torch.ones(1)}, {}, "kandinsky_decoder", r"^bad\.safetensors: .*can't use a VAE file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_file_tells_is_refused_and_the_next_run_works(server: HostServer, vaes: Path, name: str) -> None:
    tensors, others, kind, message = BAD[name]
    graph = Graph()
    if tensors is not None:
        save_file(tensors, vaes / "bad.safetensors")
        others = {"vae_file": "bad.safetensors", **{key: graph.load(value) for key, value in others.items()}}
    model = set_vae(graph, graph.load(kind), **others)
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    graph.save(graph.decode(model, latent))
    error = server.run(graph.prompt).error
    assert error is not None
    assert (error.node_type, error.exception_type) == ("RelaySetVae", "diffusers_relay.RelayError")
    assert re.search(message, error.message, re.DOTALL), error.message
    assert str(server.base) not in error.message
    good = Graph()
    model = good.load("sd15")
    node = good.save(good.decode(model, encoded(good, server, model)))
    assert saved(server.run(good.prompt), node).std() > 10
