"""Z-Image: the numbers of diffusers' pipelines, from a prompt to a picture, and latents that other models of its space read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.streaming import streamed
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents, from_host
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.component_classes import FLOW_SOLVERS
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference import z_image_scripts as scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a big ball", "dog"
TOLERANCE = 1e-6


def picture_of(model: PipelineComponents, latents: Latents) -> np.ndarray:
    return autoencoder_of(model).decode(latents.samples, PlainOffload()).numpy()


def assert_same(ours: np.ndarray, script: np.ndarray) -> None:
    assert ours.shape == script.shape
    assert np.abs(ours - script).max() <= TOLERANCE


def from_text(model: PipelineComponents, prompt: Any = None, batch: int = 1, seed: int = 3, **changes: Any) -> Latents:
    settings = {"width": 64, "height": 64, "steps": 4, "guidance_scale": 0.0, **changes}
    prompt = prompt or encode(model, PROMPT, NEGATIVE)
    return text_to_image(
        model, prompt, TextToImageSettings(batch_size=batch, seed=seed, **settings), counting_runtime()
    )


@pytest.mark.parametrize(
    ("guidance_scale", "negative", "size"),
    [(0.0, NEGATIVE, (64, 64)), (4.0, NEGATIVE, (96, 64)), (0.5, "", (64, 64))],
    ids=str,
)
def test_text_to_image_is_the_script(
    models: SmallModels, guidance_scale: float, negative: str, size: tuple[int, int]
) -> None:
    """Guidance starts above 0 in this family. An empty negative prompt is the script's None."""
    width, height = size
    model = load("z_image")
    changes = {"width": width, "height": height, "guidance_scale": guidance_scale}
    ours = from_text(model, encode(model, PROMPT, negative), **changes)
    assert ours.samples.shape == (1, 16, height // 8, width // 8)
    script = scripts.text_to_image(models.named["z_image"], PROMPT, negative or None, seed=3, **changes)
    assert_same(picture_of(model, ours), script)


def test_bfloat16_is_the_script_bit_for_bit(models: SmallModels) -> None:
    model, dtype = load("z_image", torch.bfloat16), {"dtype": torch.bfloat16, "output_type": "latent"}
    to_model = autoencoder_of(model).to_model_scale
    ours = to_model(from_text(model, guidance_scale=4.0).samples)
    script = scripts.text_to_image(models.named["z_image"], PROMPT, NEGATIVE, guidance_scale=4.0, seed=3, **dtype)
    assert script.dtype == torch.float32
    assert (ours - script).abs().max() <= TOLERANCE
    picture = soft_picture(64, 64)
    settings = ImageToImageSettings(0.6, 5, 0.0, 3)
    prompt, image = encode(model, PROMPT, NEGATIVE), read_like_host(picture)
    ours = to_model(image_to_image(model, prompt, settings, counting_runtime(), image=image).samples)
    script = scripts.image_to_image(models.named["z_image"], picture, PROMPT, NEGATIVE, seed=3, **dtype)
    assert (ours - script).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("strength", "guidance_scale"), [(0.3, 0.0), (0.6, 4.0), (1.0, 0.0)])
def test_image_to_image_is_the_script(models: SmallModels, strength: float, guidance_scale: float) -> None:
    model, picture = load("z_image"), soft_picture(96, 64)
    settings = ImageToImageSettings(strength, 5, guidance_scale, 3)
    prompt, image = encode(model, PROMPT, NEGATIVE), read_like_host(picture)
    ours = image_to_image(model, prompt, settings, counting_runtime(), image=image)
    changes = {"strength": strength, "guidance_scale": guidance_scale, "seed": 3}
    assert_same(
        picture_of(model, ours),
        scripts.image_to_image(models.named["z_image"], picture, PROMPT, NEGATIVE, **changes),
    )


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_is_the_script(models: SmallModels, strength: float) -> None:
    model, pictures, mask = load("z_image"), [soft_picture(64, 96, one) for one in (1, 2)], mask_picture(64, 96)
    both = torch.cat([read_like_host(one) for one in pictures])
    settings = InpaintSettings(strength, 5, 4.0, 7)
    prompt = encode(model, PROMPT, NEGATIVE)
    ours = inpaint(model, prompt, as_mask(mask), settings, counting_runtime(), image=both)
    changes = {"strength": strength, "guidance_scale": 4.0, "seeds": [7, 8]}
    script = scripts.inpaint(models.named["z_image"], pictures, mask, PROMPT, NEGATIVE, **changes)
    assert_same(picture_of(model, ours), script)


def test_a_latent_goes_in_and_what_a_mask_keeps_comes_out() -> None:
    model, picture = load("z_image"), read_like_host(soft_picture(96, 64))
    prompt, mask = encode(model, PROMPT), torch.zeros(1, 64, 96)
    mask[:, 16:48, 24:64] = 1
    begin = encode_image(model, picture, 3, counting_runtime())
    runtime = counting_runtime()
    masked = inpaint(model, prompt, mask, InpaintSettings(1.0, 4, 0.0, 3), runtime, latent=begin)
    own = from_host({**begin.to_host(), "noise_mask": mask})
    repainted = image_to_image(model, prompt, ImageToImageSettings(1.0, 4, 0.0, 3), runtime, latent=own)
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 2}, "no picture is encoded or decoded"
    kept = torch.ones(8, 12, dtype=torch.bool)
    kept[1:7, 2:9] = False
    for ours in (masked, repainted):
        assert (ours.samples - begin.samples)[..., kept].abs().max() <= 1e-6
        assert (ours.samples - begin.samples)[..., 3:5, 4:7].abs().max() > 0.1


def test_an_image_of_a_batch_is_the_one_made_alone() -> None:
    model = load("z_image")
    batch = from_text(model, batch=3, seed=11, guidance_scale=4.0)
    alone = from_text(model, seed=13, guidance_scale=4.0)
    assert (batch.samples[2:] - alone.samples).abs().max() <= 1e-5


def test_another_seed_encodes_nothing_and_a_step_is_shown_and_can_be_the_last() -> None:
    model = load("z_image")
    prompt = encode(model, PROMPT, NEGATIVE)
    runtime = counting_runtime(previews=True)
    for seed in (3, 4):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 4.0, seed), runtime)
    assert runtime.monitor.steps == 2 * [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [one.shape for one in runtime.monitor.previewed] == 8 * [(1, 16, 8, 8)]
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 2}
    stopped = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 0.0, 3), stopped)
    assert stopped.monitor.steps == [(1, 4), (2, 4)]


def test_the_space_is_that_of_flux() -> None:
    """ComfyUI's LatentFormat for Flux is (x - 0.1159) * 0.3611."""
    model = load("z_image")
    latents = encode_image(model, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    host = latents.to_host()["samples"]
    assert host.shape == (1, 16, 8, 8)
    assert torch.allclose(autoencoder_of(model).to_model_scale(host), (host - 0.1159) * 0.3611)
    assert (model.family.preview_format, model.family.host_factor, model.family.host_shift) == ("Flux", 0.3611, 0.1159)


def test_latents_of_flux_pass_as_they_are_and_back() -> None:
    """Their autoencoders are loaded apart, and are told to be the same by what they do. SD3's latents have the same shape and are converted."""
    model, flux, other = load("z_image"), load("flux_dev"), load("sd3")
    latents = encode_image(flux, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    settings, prompt = ImageToImageSettings(0.6, 4, 0.0, 3), encode(model, PROMPT)
    runtime = counting_runtime()
    assert autoencoder_of(model).module is not autoencoder_of(flux).module
    assert autoencoder_of(model).is_same_space(autoencoder_of(flux), runtime.policy)  # the probes are kept
    runtime.policy.stages.clear()
    repainted = image_to_image(model, prompt, settings, runtime, latent=latents)
    image_to_image(flux, encode(flux, PROMPT), settings, runtime, latent=repainted)
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 2}
    assert runtime.monitor.said == []
    foreign = encode_image(other, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    image_to_image(model, prompt, settings, runtime, latent=foreign)
    assert runtime.monitor.said == ["Latent converted from sd3: decoded, then encoded with this seed."]


def test_streamed_block_by_block_it_gives_the_same() -> None:
    model = load("z_image")
    prompt = encode(model, PROMPT)
    whole = from_text(model, prompt)
    with streamed(model["transformer"], torch.device("cpu")):
        parts = from_text(model, prompt)
    assert torch.equal(whole.samples, parts.samples)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((72, 64), "multiples of 16"),
        ((8208, 16), "can't do 8208x16. Its transformer has positions for 8192 pixels a side"),
    ],
)
def test_a_size_that_it_cannot_do_is_refused(size: tuple[int, int], said: str) -> None:
    width, height = size
    with pytest.raises(RelayError, match=said):
        from_text(load("z_image"), width=width, height=height)


def test_a_scheduler_that_takes_no_sigmas_is_refused(models: SmallModels, tmp_path: Path) -> None:
    with pytest.raises(RelayError, match="Z-Image can't run 'FlowMatchHeunDiscreteScheduler'"):
        with_scheduler(load("z_image"), SchedulerChoice("FlowMatchHeunDiscreteScheduler"))


def test_names_of_the_text_encoder_in_other_versions_load(models: SmallModels, tmp_path: Path) -> None:
    """Published models have the language model with its head, whose keys begin with ``model.``."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(models.named["z_image"], tmp_path / "causal"))
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["text_encoder"] = ["transformers", "Qwen3ForCausalLM"]
    index["tokenizer"] = ["transformers", "Qwen2TokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    renamed = {f"model.{key}": value for key, value in weights.items()}
    renamed["lm_head.weight"] = weights["embed_tokens.weight"].clone()
    save_file(renamed, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    model = load_folder(folder, dtype=torch.float32, source="causal", monitor=SilentMonitor())
    ours, known = encode(model, PROMPT), encode(load("z_image"), PROMPT)
    assert torch.equal(ours.positive.hidden, known.positive.hidden)


@pytest.mark.parametrize(
    ("name", "solver"), [*(("z_image", solver) for solver in FLOW_SOLVERS), ("qwen_image", FLOW_SOLVERS[0])]
)
def test_other_schedulers_end_where_euler_ends(name: str, solver: str) -> None:
    """From text and under a mask."""
    model = with_scheduler(load(name), SchedulerChoice(shift=3.0))
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    prompt = encode(model, PROMPT)
    begin = encode_image(model, read_like_host(soft_picture(64, 64)), 3, counting_runtime())
    solved = with_scheduler(load(name), SchedulerChoice(solver, shift=3.0))
    for run in (
        lambda one: from_text(one, prompt, steps=30),
        lambda one: inpaint(one, prompt, mask, InpaintSettings(1.0, 30, 0.0, 3), counting_runtime(), latent=begin),
    ):
        euler, other = run(model).samples, run(solved).samples
        assert 0 < (other - euler).square().mean().sqrt() / euler.std() < 0.05
