"""Stable Diffusion 3: the numbers of diffusers' classic pipelines, by their modular blocks, from a prompt to a picture and on to other models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.modular_pipelines import StableDiffusion3AutoBlocks
from PIL import Image
from transformers import T5Config, T5EncoderModel

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising import modular, optimising
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model import family_table
from diffusers_relay.pipelines.model.component_classes import FLOW_SOLVERS
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.model.options import ModelOptions
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import sd3_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import loaded, read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a big ball", "dog"
TOLERANCE = 1e-5
"""The blocks predict the prompt and its negative in two calls, the classic pipeline in one batch."""


def picture_of(model: PipelineComponents, latents: Latents) -> np.ndarray:
    return autoencoder_of(model).decode(latents.samples, PlainOffload()).numpy()


def assert_same(ours: np.ndarray, script: np.ndarray) -> None:
    assert ours.shape == script.shape
    assert np.abs(ours - script).max() <= TOLERANCE


def from_text(model: PipelineComponents, prompt: Any = None, batch: int = 1, seed: int = 3, **changes: Any) -> Latents:
    settings = {"width": 64, "height": 64, "steps": 4, "guidance_scale": 4.0, **changes}
    prompt = prompt or encode(model, PROMPT, NEGATIVE)
    return text_to_image(
        model, prompt, TextToImageSettings(batch_size=batch, seed=seed, **settings), counting_runtime()
    )


@pytest.mark.parametrize("name", ["sd3", "sd3_without_t5"])
@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)], ids=str)
def test_text_to_image_is_the_script(
    models: SmallModels, name: str, guidance_scale: float, size: tuple[int, int]
) -> None:
    width, height = size
    model = load(name)
    ours = from_text(model, width=width, height=height, guidance_scale=guidance_scale)
    assert ours.samples.shape == (1, 16, height // 8, width // 8)
    script = sd3_scripts.text_to_image(
        models.named[name], PROMPT, NEGATIVE, width=width, height=height, guidance_scale=guidance_scale, seed=3
    )
    assert_same(picture_of(model, ours), script)


@pytest.mark.parametrize("negative", ["", NEGATIVE])
def test_an_empty_negative_prompt_is_the_scripts_none(models: SmallModels, negative: str) -> None:
    model = load("sd3")
    ours = from_text(model, encode(model, PROMPT, negative))
    script = sd3_scripts.text_to_image(models.named["sd3"], PROMPT, negative or None, seed=3)
    assert_same(picture_of(model, ours), script)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image_is_the_script(models: SmallModels, strength: float) -> None:
    model, picture = load("sd3"), soft_picture(96, 64)
    runtime = counting_runtime()
    ours = image_to_image(
        model,
        encode(model, PROMPT, NEGATIVE),
        ImageToImageSettings(strength, 5, 4.0, 3),
        runtime,
        image=read_like_host(picture),
    )
    script = sd3_scripts.image_to_image(models.named["sd3"], picture, PROMPT, NEGATIVE, strength=strength, seed=3)
    assert_same(picture_of(model, ours), script)


def test_latents_in_give_what_the_picture_gives() -> None:
    """A drawn latent and the picture that it is drawn from: the same noise follows, from the same generator's second draw."""
    model, picture = load("sd3"), read_like_host(soft_picture(64, 64))
    settings, prompt = ImageToImageSettings(0.6, 5, 4.0, 3), encode(model, PROMPT, NEGATIVE)
    begin = encode_image(model, picture, 3, counting_runtime())
    ours = image_to_image(model, prompt, settings, counting_runtime(), latent=begin)
    again = image_to_image(model, prompt, settings, counting_runtime(), latent=begin)
    assert torch.equal(ours.samples, again.samples)
    assert ours.samples.shape == begin.samples.shape
    moved = (picture_of(model, ours) - picture.numpy()).std()
    assert 0.01 < moved < 0.6


def test_an_image_of_a_batch_is_the_one_made_alone() -> None:
    model = load("sd3")
    batch = from_text(model, batch=3, seed=11)
    alone = from_text(model, seed=13)
    assert (batch.samples[2:] - alone.samples).abs().max() <= TOLERANCE


def test_heun_runs_as_in_the_script(models: SmallModels, tmp_path: Path) -> None:
    folder = tmp_path / "heun"
    shutil.copytree(models.named["sd3"], folder)
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    config = {"_class_name": "FlowMatchHeunDiscreteScheduler", "num_train_timesteps": 1000, "shift": config["shift"]}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config), "utf-8")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["scheduler"][1] = config["_class_name"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    chosen = with_scheduler(load("sd3"), SchedulerChoice("FlowMatchHeunDiscreteScheduler"))
    script = sd3_scripts.text_to_image(folder, PROMPT, NEGATIVE, seed=3)
    assert_same(picture_of(chosen, from_text(chosen)), script)


@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_solvers_run_as_in_the_script_and_also_from_a_picture(models: SmallModels, name: str) -> None:
    """diffusers' own pipeline runs them from text only."""
    chosen = with_scheduler(load("sd3"), SchedulerChoice(name))
    script = loaded(StableDiffusion3Pipeline, models.named["sd3"], {})
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    script.scheduler = getattr(diffusers, name).from_config(script.scheduler.config, **settings)
    generator = torch.Generator().manual_seed(3)
    sizes = {"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 4.0}
    made = script(PROMPT, negative_prompt=NEGATIVE, **sizes, generator=generator, output_type="np").images
    assert_same(picture_of(chosen, from_text(chosen)), made)
    prompt, picture = encode(chosen, PROMPT), read_like_host(soft_picture(64, 64))
    euler, other = (
        image_to_image(model, prompt, ImageToImageSettings(0.6, 30, 1.0, 3), counting_runtime(), image=picture).samples
        for model in (load("sd3"), chosen)
    )
    assert 0 < (other - euler).square().mean().sqrt() / euler.std() < 0.12


def test_progress_previews_and_cancel_are_every_steps() -> None:
    model = load("sd3")
    prompt = encode(model, PROMPT, NEGATIVE)
    runtime = counting_runtime(previews=True)
    text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 7.0, 3), runtime)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 1}
    stopped = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 7.0, 3), stopped)
    assert stopped.monitor.steps == [(1, 4), (2, 4)]


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_inpainting_is_the_script(models: SmallModels, strength: float, guidance_scale: float) -> None:
    model, picture, mask = load("sd3"), soft_picture(96, 64), mask_picture(96, 64)
    settings = InpaintSettings(strength, 5, guidance_scale, 3)
    prompt, image = encode(model, PROMPT, NEGATIVE), read_like_host(picture)
    ours = inpaint(model, prompt, as_mask(mask), settings, counting_runtime(), image=image)
    changes = {"strength": strength, "guidance_scale": guidance_scale, "seeds": [3]}
    script = sd3_scripts.inpaint(models.named["sd3"], picture, mask, PROMPT, NEGATIVE, **changes)
    assert_same(picture_of(model, ours), script)


def test_a_batch_is_inpainted_as_in_the_script(models: SmallModels) -> None:
    model, pictures, mask = load("sd3"), [soft_picture(64, 64, one) for one in (1, 2)], mask_picture()
    prompt = encode(model, PROMPT, NEGATIVE)
    both = torch.cat([read_like_host(one) for one in pictures])
    settings = InpaintSettings(0.6, 5, 4.0, 7)
    ours = inpaint(model, prompt, as_mask(mask), settings, counting_runtime(), image=both)
    changes = {"strength": 0.6, "seeds": [7, 8]}
    script = sd3_scripts.inpaint(models.named["sd3"], pictures, mask, PROMPT, NEGATIVE, **changes)
    assert_same(picture_of(model, ours), script)


def test_a_mask_keeps_what_is_not_repainted() -> None:
    model, picture = load("sd3"), read_like_host(soft_picture(96, 64))
    mask = torch.zeros(1, 64, 96)
    mask[:, 16:48, 24:64] = 1
    begin = encode_image(model, picture, 3, counting_runtime())
    ours = inpaint(
        model,
        encode(model, PROMPT, NEGATIVE),
        mask,
        InpaintSettings(1.0, 4, 7.0, 3),
        counting_runtime(),
        latent=begin,
    )
    kept = torch.ones(8, 12, dtype=torch.bool)
    kept[1:7, 2:9] = False
    assert (ours.samples - begin.samples)[..., kept].abs().max() <= 1e-6
    assert (ours.samples - begin.samples)[..., 3:5, 4:7].abs().max() > 0.1


@pytest.mark.parametrize("other", ["sd15", "sdxl_base"])
def test_another_models_latent_is_decoded_and_encoded_once(other: str) -> None:
    """As by hand: that model's picture, encoded with the run's own generator."""
    model, source = load("sd3"), load(other)
    prompt, settings = encode(model, PROMPT, NEGATIVE), ImageToImageSettings(0.6, 5, 4.0, 3)
    foreign = encode_image(source, read_like_host(soft_picture(64, 64)), 5, counting_runtime())
    runtime = counting_runtime()
    ours = image_to_image(model, prompt, settings, runtime, latent=foreign)
    picture = autoencoder_of(source).decode(foreign.samples, PlainOffload())
    by_hand = image_to_image(model, prompt, settings, counting_runtime(), image=picture)
    assert torch.equal(ours.samples, by_hand.samples)
    back = image_to_image(source, encode(source, PROMPT), ImageToImageSettings(0.5, 4, 7.0, 3), runtime, latent=ours)
    assert back.samples.shape == (1, 4, 8, 8)


def test_weights_move_the_picture() -> None:
    model = load("sd3")
    plain = from_text(model, encode(model, "a red cat"))
    assert torch.equal(plain.samples, from_text(model, encode(model, "a (red)1.0 cat")).samples)
    assert (from_text(model, encode(model, "a (red)1.5 cat")).samples - plain.samples).abs().max() > 1e-3


@pytest.mark.parametrize(("width", "height"), [(72, 64), (64, 40)])
def test_a_size_that_the_patches_do_not_fill_is_refused(width: int, height: int) -> None:
    with pytest.raises(RelayError, match="multiples of 16"):
        from_text(load("sd3"), width=width, height=height)


def test_a_t5_of_another_width_is_refused_when_it_is_loaded(models: SmallModels, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(models.named["sd3"], folder)
    narrow = T5EncoderModel(T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4))
    shutil.rmtree(folder / "text_encoder_3")
    narrow.save_pretrained(folder / "text_encoder_3")
    with pytest.raises(RelayError, match="its transformer reads text of width 96, but its text_encoder_3 makes 32"):
        load_folder(folder, dtype=torch.float32, source="mixed", monitor=SilentMonitor())


def test_bfloat16_comes_out_in_the_hosts_scale() -> None:
    model = load("sd3", torch.bfloat16)
    latents = from_text(model).samples
    assert latents.dtype == torch.float32
    model_scale = (latents - 0.0609) * 1.5305
    half = model_scale.bfloat16()
    assert torch.allclose(half.float(), model_scale, atol=1e-6, rtol=1e-6), (
        "the model's bfloat16 values, not rounded again"
    )
    assert torch.equal(autoencoder_of(model).to_model_scale(latents).bfloat16(), half)


def test_a_grey_picture_encodes_round_the_hosts_mean() -> None:
    """ComfyUI's LatentFormat for SD3 is (x - 0.0609) * 1.5305."""
    model = load("sd3")
    grey = torch.from_numpy(np.asarray(Image.new("RGB", (64, 64), (90, 140, 60)), np.float32) / 255)[None]
    latents = encode_image(model, grey, 3, counting_runtime()).samples
    in_model_scale = autoencoder_of(model).to_model_scale(latents)
    assert torch.allclose(in_model_scale, (latents - 0.0609) * 1.5305)
    assert family_table.STABLE_DIFFUSION_3.preview_format == "SD3"


def test_the_blocks_of_a_transformer_are_compiled_and_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    compiled = optimising._compile(load("sd3")["transformer"], "default")
    assert sorted(compiled) == ["transformer_blocks.0", "transformer_blocks.1"]


def test_a_choice_of_attention_that_its_layers_do_not_have_is_refused() -> None:
    able = r"attention: the layers of sd3 .* can't use sliced\. They can use: auto, sdpa, xformers\."
    with pytest.raises(RelayError, match=able):
        optimising.with_options(load("sd3"), ModelOptions(attention="sliced"), torch.device("cpu"))


def test_a_run_leaves_nothing_in_the_blocks_that_diffusers_shares() -> None:
    """Otherwise each run would keep its model in memory until the next run."""
    from_text(load("sd3"))
    stage = StableDiffusion3AutoBlocks().sub_blocks["denoise"]
    loops = list(modular._loops(stage))
    assert loops
    assert not any(modular.WATCHER in loop.sub_blocks for loop in loops)
