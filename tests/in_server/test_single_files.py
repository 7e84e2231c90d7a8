"""Files in models/checkpoints through the real server: the same picture as the folder, and when and how files are rejected."""

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
from relay_host.server import HostServer, PromptRejected
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, Out, saved
from support.server_log import lines_during

FILE = f"{NATIVE_NAME}.safetensors"
PROMPT = "a red cat on a blue sofa"


def painted(server: HostServer, model_name: str, seed: int = 3) -> tuple[Graph, Out, Out]:
    graph = Graph()
    model = graph.load(model_name)
    picture = graph.picture(server, scripts.soft_picture(), "soft.png")
    latent = graph.image_to_image(model, graph.encode(model, PROMPT, "dog"), image=picture, steps=3, seed=seed)
    return graph, graph.save(graph.decode(model, latent)), latent


@pytest.fixture
def checkpoints(server: HostServer) -> Iterator[Path]:
    """The server's checkpoints folder; files that a test adds are removed afterwards."""
    folder = server.models / "checkpoints"
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def test_a_file_gives_the_picture_of_its_folder(server: HostServer) -> None:
    pictures = []
    for name in (NATIVE_NAME, FILE):
        graph, node, sampler = painted(server, name)
        with lines_during(server) as lines:
            result = server.run(graph.prompt)
        pictures.append(saved(result, node))
        assert [p.value / p.maximum for p in result.progress if p.node_id == sampler.node][-1] == 1
    loaded = {line.split("loaded ")[1].split(" of ")[0] for line in lines() if f" of {FILE} in " in line}
    assert loaded == {"unet", "vae", "text_encoder"}
    assert np.array_equal(*pictures)
    assert pictures[0].std() > 10


def test_the_choice_lists_folders_and_then_files(server: HostServer, checkpoints: Path) -> None:
    (checkpoints / "old.ckpt").write_bytes(b"x")
    spec = server.object_info()["RelayLoadModel"]["input"]["required"]["model"]
    choices = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
    assert choices.index("sd15") < choices.index(FILE)
    assert choices[: len(choices) - choices[::-1].index("sd15")].count(FILE) == 0
    assert "old.ckpt" not in choices


def test_a_name_of_both_is_shown_with_what_it_is(server: HostServer) -> None:
    """A workflow that names the folder keeps using it when a file with the same name is added."""
    folder = server.models / "diffusers" / FILE
    shutil.copytree(server.models / "diffusers" / "sd15", folder)
    try:
        spec = server.object_info()["RelayLoadModel"]["input"]["required"]["model"]
        choices = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
        assert {f"{FILE} (folder)", f"{FILE} (checkpoint)"} <= set(choices)
        assert FILE not in choices
        found = {}
        for name in (FILE, f"{FILE} (folder)", f"{FILE} (checkpoint)"):
            graph, node, _ = painted(server, name, seed=7)
            found[name] = saved(server.run(graph.prompt), node)
        assert np.array_equal(found[FILE], found[f"{FILE} (folder)"])
        assert not np.array_equal(found[FILE], found[f"{FILE} (checkpoint)"])
    finally:
        shutil.rmtree(folder)


def test_a_unet_of_diffusion_models_is_completed_by_the_folder(server: HostServer) -> None:
    """It is listed under a name that no other file can take; files of other kinds are not listed, but named when they are chosen."""
    folder = server.models / "diffusion_models"
    folder.mkdir(exist_ok=True)
    weights = load_file(server.models / "checkpoints" / FILE)
    place = "model.diffusion_model."
    save_file({key.removeprefix(place): weights[key] for key in weights if key.startswith(place)}, folder / FILE)
    save_file({"double_blocks.0.x": torch.ones(1), "single_blocks.0.x": torch.ones(1)}, folder / "flux.safetensors")
    name = f"{FILE} (diffusion model)"
    try:
        spec = server.object_info()["RelayLoadModel"]["input"]["required"]["model"]
        choices = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
        assert choices[-1] == name
        assert "flux.safetensors (diffusion model)" not in choices
        graph = Graph()
        whole = graph.load(NATIVE_NAME)
        model = graph.add("RelaySetVae", model=graph.load(name), vae_from=whole)
        prompt, picture = graph.encode(whole, PROMPT, "dog"), graph.picture(server, scripts.soft_picture(), "soft.png")
        latents = [graph.image_to_image(one, prompt, image=picture, steps=3, seed=3) for one in (model, whole)]
        nodes = [graph.save(graph.decode(whole, latent)) for latent in latents]
        result = server.run(graph.prompt)
        assert np.array_equal(*(saved(result, node) for node in nodes))
        for wrong, message in (
            ("flux.safetensors (diffusion model)", "is a Flux, not a checkpoint"),
            (name, "has no text encoder"),
        ):
            error = server.run(painted(server, wrong)[0].prompt).error
            assert error is not None
            assert message in error.message
    finally:
        shutil.rmtree(folder)


def test_a_file_that_was_written_anew_is_loaded_anew(server: HostServer, checkpoints: Path) -> None:
    path = checkpoints / "edited.safetensors"
    weights = load_file(checkpoints / FILE)
    os.link(checkpoints / FILE, path)
    graph, node, _ = painted(server, path.name)
    before = saved(server.run(graph.prompt), node)
    assert server.run(graph.prompt).executed == ()
    path.unlink()
    key = "model.diffusion_model.out.2.bias"
    save_file({**weights, key: weights[key] + 1}, path)
    after = saved(server.run(graph.prompt), node)
    assert np.abs(before.astype(int) - after.astype(int)).max() > 5


BAD = {
    "a LoRA": (
        lambda path: save_file({"lora_unet_a.lora_down.weight": torch.ones(1)}, path),
        r"is a LoRA.*models/loras",
    ),
    "Flux": (
        lambda path: save_file({"double_blocks.0.x": torch.ones(1), "single_blocks.0.x": torch.ones(1)}, path),
        r"is a Flux, not a checkpoint",
    ),
    "cut short": (lambda path: path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}"), r"damaged or cut short"),
    "a pickle": (
        lambda path: torch.save({"a": torch.ones(1)}, path),
        r"is a pickle with another suffix.*save_pretrained",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_the_next_run_works(server: HostServer, checkpoints: Path, name: str) -> None:
    make, message = BAD[name]
    path = checkpoints / "bad.safetensors"
    make(path)
    graph, _, _ = painted(server, path.name)
    error = server.run(graph.prompt).error
    assert error is not None
    assert (error.node_type, error.exception_type) == ("RelayLoadModel", "diffusers_relay.RelayError")
    assert re.search(r"^model: bad\.safetensors.*" + message, error.message), error.message
    assert str(server.base) not in error.message
    good, node, _ = painted(server, "sd15")
    assert saved(server.run(good.prompt), node).std() > 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("old.ckpt", r"old\.ckpt is not a \.safetensors file.*save_pretrained"),
        ("gone.safetensors", r"'gone\.safetensors' is not among the models.*" + re.escape(FILE)),
        ("../checkpoints/" + FILE, r"is not among the models"),
    ],
)
def test_what_the_name_tells_is_refused_before_anything_runs(
    server: HostServer, checkpoints: Path, name: str, message: str
) -> None:
    torch.save({"a": torch.ones(1)}, checkpoints / "old.ckpt")
    graph, _, _ = painted(server, name)
    with pytest.raises(PromptRejected) as caught:
        server.run(graph.prompt)
    (errors,) = (e for e in caught.value.node_errors.values() if e["class_type"] == "RelayLoadModel")
    assert re.search(message, errors["errors"][0]["details"], re.DOTALL), errors
