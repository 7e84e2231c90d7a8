"""Single files: the same model as the folder, recognised from the header, without network access and without a second copy."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.loading import file_part
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.loading.single_file import load_checkpoint
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.runs.sampling import ImageToImageSettings, image_to_image
from reference import scripts, single_file_scripts
from relay_host.paths import ROOT
from small_models.native_checkpoint import Weights
from small_models.original_checkpoints import original_checkpoint
from small_models.weights import random_module
from support.checkpoints import SmallCheckpoints, open_checkpoint, write_file
from support.without_host import counting_runtime, encode

pytestmark = pytest.mark.usefixtures("registry")
NAMES = ("sd15", "sd2", "sdxl_base", "sdxl_refiner", "sd15_inpaint", "sdxl_base_inpaint")
NOT_THE_SAME = {"_name_or_path", "transformer_layers_per_block", "_diffusers_version", "dtype"}


def load(small: SmallCheckpoints, file: str | Path, dtype: torch.dtype = torch.float32) -> PipelineComponents:
    return open_checkpoint(small, file if isinstance(file, Path) else small.file(file), dtype=dtype)


def config_of(module: torch.nn.Module) -> dict[str, object]:
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_folder(name: str, dtype: torch.dtype, small: SmallCheckpoints) -> None:
    ours = load(small, name, dtype)
    folder = load_folder(small.folders[name], dtype=dtype, monitor=SilentMonitor())
    assert ours.family is folder.family
    assert dict(ours.config) == dict(folder.config)
    assert set(ours.modules) == set(folder.modules)
    assert type(ours["scheduler"]) is type(folder["scheduler"])
    assert ours["scheduler"].config == folder["scheduler"].config
    text = ["a red cat in the jungle", "", "dog " * 100]
    for component, module in folder.modules.items():
        loaded = ours[component]
        assert type(loaded) is type(module)
        if isinstance(module, torch.nn.Module):
            state, expected = loaded.state_dict(), module.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], expected[key]) for key in expected)
            assert all(state[key].stride() == expected[key].stride() for key in expected)
            mine, theirs = config_of(loaded), config_of(module)
            assert {k for k in mine.keys() & theirs.keys() if mine[k] != theirs[k]} <= NOT_THE_SAME
            assert loaded.dtype == dtype
            assert not loaded.training
            assert not any(parameter.requires_grad for parameter in loaded.parameters())
        elif component.startswith("tokenizer"):
            settings = {"padding": "max_length", "truncation": True}
            assert loaded.model_max_length == module.model_max_length == 77
            assert loaded(text, **settings).input_ids == module(text, **settings).input_ids


def test_the_inpainting_unet_is_told_by_its_channels(small: SmallCheckpoints) -> None:
    assert load(small, "sd15_inpaint")["unet"].config.in_channels == 9
    assert load(small, "sd15")["unet"].config.in_channels == 4


@pytest.mark.usefixtures("inference_mode")
@pytest.mark.parametrize("name", ["sd15", "sd2"])
def test_a_graph_of_a_file_is_the_script_of_the_file(name: str, small: SmallCheckpoints) -> None:
    model, picture = load(small, name), scripts.soft_picture()
    settings = {"strength": 0.6, "steps": 5, "guidance_scale": 7.5}
    latent = image_to_image(
        model,
        encode(model, "a red cat"),
        ImageToImageSettings(seed=3, **settings),
        counting_runtime(),
        image=scripts.read_like_host(picture),
    )
    script = single_file_scripts.image_to_image(small.file(name), small.folders[name], picture, "a red cat", **settings)
    assert torch.equal(latent.samples * model["vae"].config.scaling_factor, script) or (
        (latent.samples * model["vae"].config.scaling_factor - script).abs().max() <= 1e-5
    )


def test_components_are_shared_and_loads_logged(
    small: SmallCheckpoints, registry: ComponentRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=file_part.__name__):
        first = load(small, "sd15")
    lines = [record.getMessage() for record in caplog.records if record.name == file_part.__name__]
    assert sorted(line.split(" of ")[0] for line in lines) == ["loaded text_encoder", "loaded unet", "loaded vae"]
    loads = registry.loads
    link = tmp_path / "another name.safetensors"
    os.link(small.file("sd15"), link)
    again = load(small, link)
    assert registry.loads == loads
    assert all(again[name] is first[name] for name in first.modules if name != "scheduler")
    assert again["scheduler"] is not first["scheduler"]
    assert load(small, "sd15", torch.float16)["unet"] is not first["unet"]


def test_a_file_that_was_written_anew_is_read_anew(small: SmallCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weights = load_file(small.file("sd15"))
    write_file(path, weights)
    before = load(small, path)
    key = "model.diffusion_model.out.2.bias"
    path.unlink()
    write_file(path, {**weights, key: weights[key] + 1})
    after = load(small, path)
    assert torch.equal(after["unet"].conv_out.bias, before["unet"].conv_out.bias + 1)


def test_weights_are_usable_outside_of_inference_mode(small: SmallCheckpoints) -> None:
    with torch.inference_mode():
        components = load(small, "sdxl_base")
    modules = [components[name] for name in ("unet", "text_encoder", "text_encoder_2", "vae")]
    assert not any(parameter.is_inference() for module in modules for parameter in module.parameters())


def test_a_cancel_stops_between_components(small: SmallCheckpoints, registry: ComponentRegistry) -> None:
    class Stop(Exception):
        pass

    class Cancelling(SilentMonitor):
        def check(self) -> None:
            if registry.loads == 1:
                raise Stop

    with pytest.raises(Stop):
        load_checkpoint(
            small.file("sd15"),
            dtype=torch.float32,
            vocabularies=small.vocabularies,
            monitor=Cancelling(),
            configs=small.configs,
        )
    assert registry.loads == 1


def test_what_real_files_hold_beside_the_model_does_no_harm(small: SmallCheckpoints, tmp_path: Path) -> None:
    """EMA weights, schedule buffers, a loss, a step count; and CLIP keys without text_model, as in the first files."""
    weights = load_file(small.file("sd15"))
    old = "cond_stage_model.transformer."
    early = {key.replace(f"{old}text_model.", old): value for key, value in weights.items()}
    more = {
        **{f"model_ema.diffusion_model{index}weight": torch.zeros(2) for index in range(120)},
        "alphas_cumprod": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "global_step": torch.tensor(470000),
        f"{old}embeddings.position_ids": torch.arange(77)[None],
    }
    loaded = load(small, write_file(tmp_path / "early.safetensors", {**early, **more}))
    plain = load(small, "sd15")
    for name in ("unet", "vae", "text_encoder"):
        state, expected = loaded[name].state_dict(), plain[name].state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


ATTENTIONS = {
    "of today": ("to_q", "to_k", "to_v", "to_out.0"),
    "early": ("query", "key", "value", "proj_attn"),
}


def vae_attention(weights: Weights, names: tuple[str, ...], flat: bool) -> Weights:
    """As written by diffusers' conversion scripts: layers with other names, linear or not."""
    renamed = {}
    for key, value in weights.items():
        for old, new in zip(("q", "k", "v", "proj_out"), names, strict=True):
            if f".mid.attn_1.{old}." in key:
                key = key.replace(f".attn_1.{old}.", f".attn_1.{new}.")
                value = value.flatten(1) if flat and value.ndim == 4 else value
        renamed[key] = value
    return renamed


def clip_as_in_sgm(weights: Weights) -> Weights:
    return {
        key.replace("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."): weights[key]
        for key in weights
    }


def projection_as_a_layer(weights: Weights) -> Weights:
    """As written by diffusers' script for SDXL: a layer's weight instead of the matrix."""
    key = "conditioner.embedders.1.model.text_projection"
    return {**{name: weights[name] for name in weights if name != key}, f"{key}.weight": weights[key].T}


def two_clips(weights: Weights) -> Weights:
    """The second text encoder is in transformers' layout too."""
    return {
        **{key: value for key, value in weights.items() if "embedders.1." not in key},
        **{f"conditioner.embedders.1.transformer.{key}": value for key, value in second_encoder.items()},
    }


second_encoder: Weights = {}
OTHER_WRITERS: dict[str, tuple[str, Callable[[Weights], Weights]]] = {
    **{
        f"attention {name}, {'linear' if flat else '1 x 1'}": (
            "sd15",
            partial(vae_attention, names=names, flat=flat),
        )
        for name, names in ATTENTIONS.items()
        for flat in (True, False)
    },
    "linear": ("sd15", partial(vae_attention, names=("q", "k", "v", "proj_out"), flat=True)),
    "VAE below vae.": (
        "sd15",
        lambda weights: {key.replace("first_stage_model.", "vae."): weights[key] for key in weights},
    ),
    "module.": ("sd15", lambda weights: {f"module.{key}": weights[key] for key in weights}),
    "compiled": ("sd15", lambda weights: {f"_orig_mod.{key}": weights[key] for key in weights}),
    "compiled UNet": (
        "sd2",
        lambda weights: {
            key.replace("diffusion_model.", "diffusion_model._orig_mod."): weights[key] for key in weights
        },
    ),
    "state_dict. (SD2)": ("sd2", lambda weights: {f"state_dict.{key}": weights[key] for key in weights}),
    "float position_ids": (
        "sdxl_base",
        lambda weights: {
            **weights,
            "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77.0)[None],
            "conditioner.embedders.0.logit_scale": torch.ones(()),
            "conditioner.embedders.1.model.logit_scale": torch.ones(()),
        },
    ),
    "sgm": ("sd15", clip_as_in_sgm),
    "projection as a layer": ("sdxl_base", projection_as_a_layer),
    "two encoders of transformers": ("sdxl_base", two_clips),
    "a loss": (
        "sd15",
        lambda weights: {**weights, "first_stage_model.loss.discriminator.main.0.bias": torch.ones(4)},
    ),
}


@pytest.mark.parametrize("name", OTHER_WRITERS)
def test_the_same_model_by_another_program_is_the_same(name: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    kind, rewrite = OTHER_WRITERS[name]
    if name == "two encoders of transformers":
        second_encoder.update(load_file(small.folders[kind] / "text_encoder_2" / "model.safetensors"))
    weights = load_file(small.file(kind))
    rewritten = rewrite(weights)
    assert rewritten.keys() != weights.keys() or any(rewritten[key].shape != weights[key].shape for key in weights)
    loaded, plain = load(small, write_file(tmp_path / "other.safetensors", rewritten)), load(small, kind)
    for component, module in plain.modules.items():
        if isinstance(module, torch.nn.Module):
            state, expected = loaded[component].state_dict(), module.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], expected[key]) for key in expected)
    assert loaded["scheduler"].config == plain["scheduler"].config


# --- pruned and distilled models

DISTILLED: dict[str, dict[str, Any]] = {
    "SSD-1B": {
        "transformer_layers_per_block": [1, [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 2, 4], 1],
        "layers_per_block": 2,
        "mid_block_type": "UNetMidBlock2D",
    },
    "Vega": {
        "transformer_layers_per_block": [1, [1, 2]],
        "reverse_transformer_layers_per_block": [[2, 1, 1], 1],
        "layers_per_block": 2,
    },
    "KOALA": {"transformer_layers_per_block": [1, 5], "layers_per_block": 1, "mid_block_type": None},
}


def distilled_unet(small: SmallCheckpoints, name: str) -> UNet2DConditionModel:
    config = json.loads((small.configs / "sdxl" / "unet" / "config.json").read_text("utf-8"))
    return random_module(lambda: UNet2DConditionModel.from_config({**config, **DISTILLED[name]}), 11).eval()


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distilled_model_is_its_folder(name: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    unet = distilled_unet(small, name)
    folder = tmp_path / "folder"
    shutil.copytree(small.folders["sdxl_base"], folder)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    file = write_file(tmp_path / "distilled.safetensors", original_checkpoint(folder))
    models = (load(small, file), load_folder(folder, dtype=torch.float32, monitor=SilentMonitor()))
    picture = scripts.read_like_host(scripts.soft_picture())
    for model in models:
        state = model["unet"].state_dict()
        assert state.keys() == unet.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in unet.state_dict().items())
    painted = [
        image_to_image(
            model,
            encode(model, "a red cat"),
            ImageToImageSettings(0.6, 3, 5.0, 3),
            counting_runtime(),
            image=picture,
        ).samples
        for model in models
    ]
    assert (painted[0] - painted[1]).abs().max() <= 1e-5 * painted[1].abs().max()


# --- what the UNet predicts


def prediction(small: SmallCheckpoints, file: Path) -> tuple[str, bool]:
    scheduler = load(small, file)["scheduler"]
    assert scheduler.alphas_cumprod.shape == (1000,)
    return scheduler.config.prediction_type, bool(scheduler.config.get("rescale_betas_zero_snr"))


def test_marks_and_metadata_say_what_is_predicted(small: SmallCheckpoints, tmp_path: Path) -> None:
    mark = {"v_pred": torch.tensor([])}
    for name in ("sd15", "sd2", "sdxl_base"):
        weights = load_file(small.file(name))
        file = tmp_path / f"{name}.safetensors"
        assert prediction(small, write_file(file, weights)) == ("epsilon", False)
        assert prediction(small, write_file(file, {**weights, **mark})) == ("v_prediction", False)
        snr = {**weights, **mark, "ztsnr": torch.tensor([])}
        assert prediction(small, write_file(file, snr)) == ("v_prediction", True)
        said = {"modelspec.prediction_type": "v"}
        assert prediction(small, write_file(file, weights, said)) == ("v_prediction", False)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize(("channels", "spread", "expected"), [(4, 0.2, "v"), (4, 0.05, "epsilon"), (9, 0.2, "epsilon")])
def test_a_silent_sd2_file_is_judged_by_its_last_norm(
    channels: int, spread: float, expected: str, layout: str, tmp_path: Path
) -> None:
    from diffusers_relay.pipelines.files.safetensors import read_header
    from diffusers_relay.pipelines.loading import prediction

    index = ("original", "diffusers").index(layout)
    first, last = (prediction.UNET + names[index] for names in (prediction.FIRST_LAYERS, prediction.LAST_NORMS))
    norm = torch.tensor([spread, -spread]).repeat(160)
    file = write_file(tmp_path / "sd2.safetensors", {first: torch.zeros(8, channels, 3, 3), last: norm})
    changes = prediction.marked_or_measured_prediction(file, read_header(file, "file"))
    assert changes["prediction_type"].startswith(expected)


# --- no network

OFFLINE = """
import sys
sys.path[:0] = [{root!r} + "/devtools", {root!r} + "/tests"]
from relay_host.pack import prepare_pack
prepare_pack()
import socket
def refuse(*arguments, **keywords):
    raise AssertionError("a socket was opened")
import torch
from pathlib import Path
from diffusers_relay.pipelines.loading.single_file import load_checkpoint
from diffusers_relay.pipelines.base.monitor import SilentMonitor
socket.socket = socket.create_connection = socket.getaddrinfo = refuse
for name in {names!r}:
    load_checkpoint(Path({files!r}) / (name + ".safetensors"), dtype=torch.float16, vocabularies={{"clip": Path({tokenizer!r})}},
                    monitor=SilentMonitor(), configs=Path({configs!r}))
print("loaded")
"""


def test_no_socket_is_opened_whatever_is_set(small: SmallCheckpoints, tmp_path: Path) -> None:
    code = OFFLINE.format(
        root=str(ROOT),
        names=NAMES,
        files=str(small.root),
        tokenizer=str(small.vocabularies["clip"]),
        configs=str(small.configs),
    )
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    environment["HF_HOME"] = str(tmp_path / "empty")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "loaded", done.stderr


# --- rejected


def no_file(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_in_header(path: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def zeros(path: Path) -> None:
    os.truncate(path, 0)
    os.truncate(path, 2**20)


def zeros_after_the_header(path: Path) -> None:
    """As left by a program that allocates the whole file first; the header is valid."""
    file = write_file(path, {**load_file(path), "z": torch.ones(4 * 2**20)})
    size = file.stat().st_size
    os.truncate(path, size - 12 * 2**20)
    os.truncate(path, size)


def many_tensors(path: Path) -> None:
    header = json.dumps(
        {f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_001)}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def huge_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(struct.pack("<Q", 2**60) + content[8:])


def lying_offsets(path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].replace(b'"data_offsets":[0,', b'"data_offsets":[4,', 1)
    assert header != content[8 : 8 + length]
    path.write_bytes(content[:8] + header + content[8 + length :])


def lying_shapes(path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].replace(b'"shape":[32]', b'"shape":[99]', 1)
    assert header != content[8 : 8 + length]
    path.write_bytes(content[:8] + header + content[8 + length :])


def zip_pickle(path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "utf-8")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (no_file, ["no longer exists"]),
        (cut, ["damaged or cut short", "download it again"]),
        (cut_in_header, ["damaged or cut short"]),
        (empty, ["is empty"]),
        (zeros, ["only zeros", "unfinished"]),
        (zeros_after_the_header, ["has only zeros", "unfinished"]),
        (many_tensors, ["has 50,001 tensors"]),
        (write(b"<!DOCTYPE html><html>"), ["is a web page"]),
        (write(b'\n<?xml version="1.0"?><Error><Code>AccessDenied</Code>'), ["is a web page"]),
        (write(b'{"error": "Unauthorized"}'), ['is a text file (\'{"error": "Unauthorized"}\')']),
        (write(b"Entry not found"), ["is a text file ('Entry not found')"]),
        (write(b"GGUF\x03\0\0\0"), ["is a GGUF file", "float16"]),
        (write(b"\x89PNG\r\n\x1a\n"), ["is an image"]),
        (write(b"PK\x03\x04\x14\0\0\0\0\0model.safetensors"), ["is an archive", "unpack it"]),
        (write(b"\x1f\x8b\x08\0"), ["is an archive"]),
        (huge_header, ["damaged or cut short"]),
        (lying_offsets, ["damaged or cut short"]),
        (lying_shapes, ["damaged or cut short"]),
        (zip_pickle, ["is a pickle with another suffix", "save_pretrained"]),
        (bare_pickle, ["is a pickle with another suffix", "save_pretrained"]),
        (lfs, ["git lfs pull"]),
    ],
)
def test_a_file_that_is_no_good_is_refused(
    break_it: Callable[[Path], None],
    words: list[str],
    small: SmallCheckpoints,
    registry: ComponentRegistry,
    tmp_path: Path,
) -> None:
    path = write_file(tmp_path / "model.safetensors", load_file(small.file("sd15")))
    break_it(path)
    with pytest.raises(RelayError) as caught:
        load(small, path)
    assert all(word in str(caught.value) for word in ["model.safetensors", *words]), caught.value
    assert registry.loads == 0


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.CKPT"])
def test_another_extension_is_refused_by_name(name: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(small.file("sd15").read_bytes())
    with pytest.raises(RelayError, match=r"not a \.safetensors file.*from_single_file.*save_pretrained"):
        load(small, path)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "model.diffusion_model.middle_block.0.in_layers.2.bias",
            r"the tensors of its unet don't match .*pruned or distilled",
        ),
        (
            "first_stage_model.decoder.norm_out.bias",
            r"the tensors of its vae don't match the AutoencoderKL of this kind of model\. It is another variant or incomplete: use another",
        ),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            r"the tensors of its text_encoder don't match",
        ),
    ],
)
def test_missing_tensors_are_not_made_up(key: str, words: str, small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = load_file(small.file("sd15"))
    del weights[key]
    with pytest.raises(RelayError, match=words) as caught:
        load(small, write_file(tmp_path / "model.safetensors", weights))
    assert "ownload" not in str(caught.value), "nothing proves that the file is damaged"


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int32, torch.complex64], ids=str)
@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("model.diffusion_model.out.2.weight", "unet"),
        ("first_stage_model.decoder.conv_out.weight", "vae"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "text_encoder"),
    ],
)
def test_integers_are_not_taken_for_weights(
    key: str, part: str, dtype: torch.dtype, small: SmallCheckpoints, registry: ComponentRegistry, tmp_path: Path
) -> None:
    weights = load_file(small.file("sd15"))
    path = write_file(tmp_path / "model.safetensors", {**weights, key: weights[key].mul(100).to(dtype)})
    with pytest.raises(
        RelayError, match=rf"the weights of its {part} are quantised or not weights .*Use the float16 file"
    ):
        load(small, path)
    assert registry.loads == 0


def test_weights_of_eight_bits_with_no_scales_load(small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = {key: value.to(torch.float8_e4m3fn) for key, value in load_file(small.file("sd15")).items()}
    loaded = load(small, write_file(tmp_path / "model.safetensors", weights))
    key = "model.diffusion_model.out.2.weight"
    assert torch.equal(loaded["unet"].conv_out.weight, weights[key].float())


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("model.diffusion_model.middle_block.3.in_layers.0.weight", "unet"),
        ("first_stage_model.encoder.down.0.attn.0.q.weight", "vae"),
        ("cond_stage_model.transformer.text_model.encoder.layers.9.layer_norm1.weight", "text_encoder"),
    ],
)
def test_tensors_that_have_no_place_are_not_dropped(
    key: str, part: str, small: SmallCheckpoints, tmp_path: Path
) -> None:
    weights = {**load_file(small.file("sd15")), key: torch.ones(64)}
    with pytest.raises(RelayError, match=rf"the tensors of its {part} don't match"):
        load(small, write_file(tmp_path / "model.safetensors", weights))


def test_unlike_blocks_are_refused(small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = load_file(small.file("sdxl_base"))
    gone = "model.diffusion_model.output_blocks.0.1."
    pruned = {key: value for key, value in weights.items() if not key.startswith(gone)}
    assert len(pruned) < len(weights)
    with pytest.raises(RelayError, match=r"its blocks are not arranged"):
        load(small, write_file(tmp_path / "model.safetensors", pruned))


def test_a_width_that_is_not_the_kind_s_is_refused(small: SmallCheckpoints, tmp_path: Path) -> None:
    weights = load_file(small.file("sd15"))
    wide = {
        key: torch.cat([value, value], dim=1) if ".attn2.to_k." in key or ".attn2.to_v." in key else value
        for key, value in weights.items()
    }
    with pytest.raises(RelayError, match=r"attn2.to_k.weight has shape \[32, 64\], but this kind has \[32, 32\]\.$"):
        load(small, write_file(tmp_path / "model.safetensors", wide))


def test_no_vocabulary(small: SmallCheckpoints, tmp_path: Path) -> None:
    with pytest.raises(RelayError, match=r"vocab\.json.*comfy/sd1_tokenizer"):
        load_checkpoint(
            small.file("sd15"),
            dtype=torch.float32,
            vocabularies={"clip": tmp_path},
            monitor=SilentMonitor(),
            configs=small.configs,
        )
