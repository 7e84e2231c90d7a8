"""ControlNets through the real server: the script's pixels, progress, cancel, one copy in memory, downloads, and bad input."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from reference import control_scripts, scripts, union_scripts
from reference.control_scripts import Control, edges
from reference.union_scripts import Mode
from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from small_models.native_checkpoint import NATIVE_NAME
from support.graph import Graph, Out, saved
from support.server_log import lines_during, stages_during

PROMPT = "a red cat"
MANY = 400


def load_net(graph: Graph, name: str, dtype: str = "float32") -> Out:
    return graph.add("RelayLoadControlNet", controlnet=name, dtype=dtype)


def lines(graph: Graph, server: HostServer, width: int = 64, height: int = 64) -> Out:
    return graph.picture(server, edges(width, height), f"edges-{width}x{height}.png")


def finish(graph: Graph, model: Out, latent: Out) -> Out:
    return graph.save(graph.decode(model, latent))


def assert_same_pixels(server: HostServer, graph: Graph, node: Out, script) -> None:
    expected = scripts.write_like_host(script)
    pixels = saved(server.run(graph.prompt), node)
    assert (pixels == expected).mean() > 0.9999, "all equal except for values at a rounding edge"
    assert abs(pixels.astype(int) - expected.astype(int)).max() <= 1
    assert expected.std() > 10


def test_two_units_in_image_to_image(server: HostServer, models: SmallModels) -> None:
    """The control pictures don't have the output size, so the pipeline scales them."""
    picture, first, second = scripts.soft_picture(96, 64), edges(96, 64), scripts.soft_picture(80, 80, 5)
    graph = Graph()
    model = graph.load("sd15")
    control = graph.control(load_net(graph, "sd15_depth"), lines(graph, server, 96, 64), end=0.5)
    other = graph.picture(server, second, "soft-80x80.png")
    control = graph.control(load_net(graph, "sd15_canny"), other, conditioning_scale=0.6, start=0.3, control=control)
    image = graph.picture(server, picture, "soft-96x64.png")
    latent = graph.image_to_image(model, graph.encode(model, PROMPT, "dog"), image=image, control=control, seed=7)
    script = control_scripts.image_to_image(
        models.named["sd15"],
        [
            Control(models.controlnets["sd15_depth"], first, end=0.5),
            Control(models.controlnets["sd15_canny"], second, scale=0.6, start=0.3),
        ],
        picture,
        PROMPT,
        "dog",
        seed=7,
        width=96,
        height=64,
    )
    with stages_during(server) as stages:
        assert_same_pixels(server, graph, finish(graph, model, latent), script)
    assert "denoise: UNet2DConditionModel, ControlNetModel, ControlNetModel" in stages()


def test_guess_mode_in_text_to_image_of_sdxl(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model = graph.load("sdxl_base")
    control = graph.control(load_net(graph, "sdxl_depth"), lines(graph, server), guess_mode=True)
    latent = graph.text_to_image(model, graph.encode(model, PROMPT), guidance_scale=4.0, seed=8, control=control)
    script = control_scripts.text_to_image(
        models.named["sdxl_base"],
        [Control(models.controlnets["sdxl_depth"], edges())],
        PROMPT,
        seed=8,
        guidance_scale=4.0,
        guess_mode=True,
    )
    assert_same_pixels(server, graph, finish(graph, model, latent), script)


def test_a_union_with_two_modes_in_text_to_image(server: HostServer, models: SmallModels) -> None:
    graph = Graph()
    model, union = graph.load("sdxl_base"), load_net(graph, "sdxl_promax")
    control = graph.control(union, lines(graph, server), conditioning_scale=0.7, mode="depth")
    soft = graph.picture(server, scripts.soft_picture(64, 64, 5), "soft-64x64.png")
    control = graph.control(union, soft, conditioning_scale=0.5, start=0.3, mode="repaint", control=control)
    latent = graph.text_to_image(model, graph.encode(model, PROMPT, "dog"), seed=8, control=control)
    script = union_scripts.run(
        *("text", models.named["sdxl_base"], [models.controlnets["sdxl_promax"]]),
        [Mode(1, edges(), 0.7), Mode(7, scripts.soft_picture(64, 64, 5), 0.5, 0.3)],
        *(PROMPT, "dog"),
        seed=8,
        width=64,
        height=64,
    )
    with stages_during(server) as stages:
        assert_same_pixels(server, graph, finish(graph, model, latent), script)
    assert "denoise: UNet2DConditionModel, ControlNetUnionModel" in stages()


def test_two_loaders_share_and_a_new_file_is_read(server: HostServer, models: SmallModels) -> None:
    folder = Path(server.models / "controlnet" / "edited")
    shutil.copytree(models.controlnets["sd15_depth"], folder)
    try:
        graph = Graph()
        model = graph.load("sd15")
        image = lines(graph, server)
        control = graph.control(load_net(graph, "edited"), image)
        # auto means float32 here; the different input keeps the host from merging the two nodes
        control = graph.control(load_net(graph, "edited", "auto"), image, control=control)
        node = finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT), control=control))
        with lines_during(server) as log:
            before = saved(server.run(graph.prompt), node)
        assert len([line for line in log() if "loaded controlnet of edited" in line]) == 1
        assert [line for line in log() if line.endswith("denoise: UNet2DConditionModel, ControlNetModel")]
        shutil.rmtree(folder)
        shutil.copytree(models.controlnets["sd15_canny"], folder)
        assert (saved(server.run(graph.prompt), node) != before).any()
    finally:
        shutil.rmtree(folder)


def test_progress_and_cancel(server: HostServer) -> None:
    def make(steps: int) -> tuple[Graph, Out, Out]:
        graph = Graph()
        model = graph.load("sd15")
        control = graph.control(load_net(graph, "sd15_depth"), lines(graph, server))
        latent = graph.text_to_image(model, graph.encode(model, PROMPT), steps=steps, control=control)
        return graph, latent, finish(graph, model, latent)

    graph, node, _ = make(MANY)
    pending = server.queue(graph.prompt)
    server.wait_until(pending, lambda run: len([p for p in run.progress if p.node_id == node.node]) >= 3)
    server.interrupt()
    result = server.wait(pending)
    assert result.interrupted
    assert result.error is None
    assert [p.value for p in result.progress if p.node_id == node.node][-1] < MANY / 2
    graph, node, saving = make(6)
    result = server.run(graph.prompt)
    assert saved(result, saving).std() > 10
    reports = [p for p in result.progress if p.node_id == node.node]
    assert len(reports) >= 6
    assert reports[-1].value == reports[-1].maximum
    assert len(result.previews) >= 5


def test_the_cache_serves_with_no_hub(server: HostServer) -> None:
    """The pair in the example workflows, under the published ids."""
    graph = Graph()
    model = graph.add(
        "RelayLoadModelFromHub",
        repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="",
        variant="auto",
        dtype="float32",
    )
    net = graph.controlnet_from_hub("lllyasviel/control_v11f1p_sd15_depth")
    latent = graph.text_to_image(model, graph.encode(model, PROMPT), control=graph.control(net, lines(graph, server)))
    node = finish(graph, model, latent)
    assert saved(server.run(graph.prompt), node).std() > 10


# --- bad input

Make = Callable[[Graph, HostServer], None]


def painting(
    net: str = "sd15_depth",
    model: str = "sd15",
    *,
    dtype: str = "float32",
    pictures: int = 1,
    guess_before: bool | None = None,
    sampling: dict | None = None,
    image_to_image: bool = False,
    **settings,
) -> Make:
    def make(graph: Graph, server: HostServer) -> None:
        loaded = graph.load(model)
        image = lines(graph, server)
        hints = graph.add("ImageBatch", image1=image, image2=image) if pictures == 2 else image
        if guess_before is not None:
            settings["control"] = graph.control(load_net(graph, net), hints, guess_mode=guess_before)
        control = graph.control(load_net(graph, net, dtype), hints, **settings)
        prompt = graph.encode(loaded, PROMPT)
        if image_to_image:
            latent = graph.image_to_image(loaded, prompt, image=image, control=control, **(sampling or {}))
        else:
            latent = graph.text_to_image(loaded, prompt, control=control, **(sampling or {}))
        finish(graph, loaded, latent)

    return make


def for_kandinsky(graph: Graph, server: HostServer) -> None:
    prior, decoder = graph.load("kandinsky_prior"), graph.load("kandinsky_decoder")
    control = graph.control(load_net(graph, "sd15_depth"), lines(graph, server))
    finish(graph, decoder, graph.text_to_image(decoder, graph.prior(prior, PROMPT), control=control))


def from_a_subfolder(graph: Graph, server: HostServer) -> None:
    repository = {"repo_id": "lllyasviel/control_v11f1p_sd15_depth", "revision": "", "variant": "auto", "dtype": "auto"}
    net = graph.add("RelayLoadControlNetFromHub", **repository, subfolder="../x")
    model = graph.load("sd15")
    control = graph.control(net, lines(graph, server))
    finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT), control=control))


CASES: dict[str, tuple[Make, str, str]] = {
    # {name: (graph, type of the failing node, part of the message)}
    "another family": (painting("sdxl_depth"), "RelayTextToImage", r"control: sdxl_depth was made for another kind"),
    "another family, repainting": (
        painting("sd15_depth", "sdxl_base", image_to_image=True),
        "RelayImageToImage",
        r"control: sd15_depth was made for another kind of model than sdxl_base",
    ),
    "Kandinsky": (for_kandinsky, "RelayTextToImage", r"control: kandinsky_decoder .* takes no ControlNets"),
    "another dtype": (painting(dtype="bfloat16"), "RelayTextToImage", r"control: sd15_depth is loaded in bfloat16"),
    "two pictures": (painting(pictures=2), "RelayTextToImage", r"control: .* 2 control pictures, and 1 picture is"),
    "guess modes": (painting(guess_before=True), "RelayApplyControlNet", r"guess_mode: it is off for .* and on for"),
    "a Union without a mode": (
        painting("sdxl_union", "sdxl_base"),
        "RelayApplyControlNet",
        r"mode: .*Choose one of: op",
    ),
    "a mode without a Union": (
        painting(mode="depth"),
        "RelayApplyControlNet",
        r"mode: sd15_depth is not a ControlNet U",
    ),
    "a subfolder outside": (
        from_a_subfolder,
        "RelayLoadControlNetFromHub",
        r"subfolder: '\.\./x' is not a folder of a rep",
    ),
    "a range in image to image": (
        painting("sdxl_depth", "sdxl_base", image_to_image=True, sampling={"denoising_end": 0.8}),
        "RelayImageToImage",
        r"control, denoising_start, denoising_end",
    ),
}
AT_ONCE: dict[str, tuple[Make, str, str]] = {
    "an empty range": (painting(start=0.6, end=0.4), "RelayApplyControlNet", r"start, end: .*start must be before"),
    "an unknown one": (painting("nothing"), "RelayLoadControlNet", r"controlnet: 'nothing' .* It has: .*sd15_depth"),
    "outside": (painting("../diffusers/sd15/unet"), "RelayLoadControlNet", r"controlnet: '\.\./diffusers"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_says_what_to_do_and_nothing_was_painted(server: HostServer, name: str) -> None:
    make, node_type, message = CASES[name]
    graph = Graph()
    make(graph, server)
    with stages_during(server) as stages:
        error = server.run(graph.prompt).error
    assert error is not None
    assert error.exception_type == "diffusers_relay.RelayError"
    assert error.node_type == node_type
    assert re.search(message, error.message, re.DOTALL), error.message
    assert not [stage for stage in stages() if "UNet" in stage or stage.startswith("vae")]


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_is_known_from_the_prompt_is_refused_before_anything_runs(server: HostServer, name: str) -> None:
    make, node_type, message = AT_ONCE[name]
    graph = Graph()
    make(graph, server)
    with stages_during(server) as stages, pytest.raises(PromptRejected) as caught:
        server.run(graph.prompt)
    assert stages() == []
    (errors,) = [e for e in caught.value.node_errors.values() if e["class_type"] == node_type]
    assert re.search(message, errors["errors"][0]["details"], re.DOTALL), errors


def test_a_strength_out_of_range_is_refused_by_the_host(server: HostServer) -> None:
    graph = Graph()
    painting(conditioning_scale=-1.0)(graph, server)
    with pytest.raises(PromptRejected, match="min"):
        server.run(graph.prompt)


def test_the_choices_are_the_folders(server: HostServer, models: SmallModels) -> None:
    info = server.object_info()["RelayLoadControlNet"]["input"]["required"]["controlnet"]
    options = info[0] if isinstance(info[0], list) else info[1]["options"]
    assert set(options) >= set(models.controlnets)


def test_a_single_file_is_the_folder(server: HostServer, models: SmallModels, tmp_path: Path) -> None:
    """A file shows only widths and depths; the other numbers are SD1.5's, so this ControlNet is for such a UNet."""
    unet = UNet2DConditionModel.from_pretrained(
        models.models / "diffusers" / NATIVE_NAME / "unet", torch_dtype=torch.float32
    )
    net = ControlNetModel.from_unet(unet)
    generator = torch.Generator().manual_seed(4721)
    for parameter in net.parameters():  # also the zero convolutions, which would have no effect
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    folder, file = server.models / "controlnet" / "own", server.models / "controlnet" / "files" / "own file.safetensors"
    net.save_pretrained(folder)
    file.parent.mkdir()
    shutil.copyfile(folder / "diffusion_pytorch_model.safetensors", file)
    try:
        options = server.object_info("RelayLoadControlNet")["input"]["required"]["controlnet"][1]["options"]
        assert "own" in options
        assert "files/own file.safetensors" in options
        assert not [name for name in options if name.startswith("own/")], "files inside a model folder aren't choices"
        graph = Graph()
        model = graph.load(NATIVE_NAME)
        prompt = graph.encode(model, PROMPT)
        image = lines(graph, server)
        plain, by_folder, by_file = (
            finish(graph, model, graph.text_to_image(model, prompt, **extra))
            for extra in (
                {},
                {"control": graph.control(load_net(graph, "own"), image)},
                {"control": graph.control(load_net(graph, "files/own file.safetensors"), image)},
            )
        )
        result = server.run(graph.prompt)
        assert (saved(result, by_file) == saved(result, by_folder)).all()
        assert (saved(result, by_file) != saved(result, plain)).mean() > 0.1
        file.write_bytes(b"\x80\x02 a pickle in disguise")
        graph = Graph()
        model = graph.load(NATIVE_NAME)
        control = graph.control(load_net(graph, "files/own file.safetensors"), lines(graph, server))
        finish(graph, model, graph.text_to_image(model, graph.encode(model, PROMPT), control=control))
        error = server.run(graph.prompt).error
        assert error is not None
        assert error.node_type == "RelayLoadControlNet"
        assert "own file.safetensors" in error.message
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(file.parent)
