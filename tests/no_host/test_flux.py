"""Flux.1: the numbers of diffusers' pipelines, from a prompt to a picture and on to other models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising import optimising
from diffusers_relay.pipelines.denoising.job import denoising_bytes
from diffusers_relay.pipelines.denoising.schedulers import with_scheduler
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.working_memory import single_stream_bytes
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.latents.latent_space import Latents
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.component_classes import FLOW_MATCH_SCHEDULERS, FLOW_SOLVERS
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.pipelines.runs import sampling
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from diffusers_relay.weighting.compel_encoder import encode_prompt
from reference import flux_scripts
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import Stopped, counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT, NEGATIVE = "a red cat on a big ball", "dog"
TOLERANCE = 1e-5
DEV, SCHNELL = "flux_dev", "flux_schnell"


def picture_of(model: PipelineComponents, latents: Latents) -> np.ndarray:
    return autoencoder_of(model).decode(latents.samples, PlainOffload()).numpy()


def assert_same(ours: np.ndarray, script: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == script.shape
    assert np.abs(ours - script).max() <= tolerance


def paint(model: PipelineComponents, prompt: PromptEmbeds | None = None, seed: int = 3, **given: Any) -> Latents:
    """Text to image without a picture, inpainting with a mask, else image to image."""
    picture, latent, mask = (given.pop(name, None) for name in ("image", "latent", "mask"))
    runtime = given.pop("runtime", None) or counting_runtime()
    prompt = prompt or encode(model, PROMPT, NEGATIVE)
    shared = {"steps": 4, "guidance_scale": 3.5, "seed": seed, "true_cfg_scale": 1.0, **given}
    if picture is None and latent is None:
        text = TextToImageSettings(**{"width": 64, "height": 64, "batch_size": 1, **shared})
        return text_to_image(model, prompt, text, runtime)
    source = {"image": picture, "latent": latent}
    shared = {"strength": 0.6, **shared}
    if mask is not None:
        return inpaint(model, prompt, as_mask(mask), InpaintSettings(**shared), runtime, **source)
    return image_to_image(model, prompt, ImageToImageSettings(**shared), runtime, **source)


@pytest.mark.parametrize("guidance_scale", [3.5, 1.0])
@pytest.mark.parametrize(("name", "size"), [(DEV, (96, 64)), (SCHNELL, (64, 64))])
def test_text_to_image_is_the_script(
    models: SmallModels, name: str, size: tuple[int, int], guidance_scale: float
) -> None:
    settings = {"width": size[0], "height": size[1], "guidance_scale": guidance_scale}
    ours = paint(load(name), **settings)
    assert ours.samples.shape == (1, 16, size[1] // 8, size[0] // 8)
    assert_same(picture_of(load(name), ours), flux_scripts.paint(models.named[name], PROMPT, seeds=[3], **settings))


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
def test_true_cfg_scale_is_the_script_s(models: SmallModels, task: str) -> None:
    picture, mask = soft_picture(64, 64), mask_picture()
    ours: dict[str, Any] = {} if task == "text" else {"image": read_like_host(picture), "strength": 0.8}
    theirs: dict[str, Any] = {} if task == "text" else {"image": picture, "strength": 0.8}
    given = {"mask": mask} if task == "inpaint" else {}
    made = paint(load(DEV), true_cfg_scale=3.0, **ours, **given)
    script = flux_scripts.paint(
        models.named[DEV], PROMPT, negative_prompt=[NEGATIVE], true_cfg_scale=3.0, seeds=[3], **theirs, **given
    )
    assert_same(picture_of(load(DEV), made), script)


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("mask", [None, mask_picture(96, 64)], ids=["image to image", "inpainting"])
def test_a_picture_is_repainted_as_by_the_script(models: SmallModels, mask: Any, strength: float) -> None:
    picture = soft_picture(96, 64)
    ours = paint(load(DEV), image=read_like_host(picture), mask=mask, strength=strength, steps=5)
    changes = {"strength": strength, "num_inference_steps": 5, "seeds": [3]}
    assert_same(
        picture_of(load(DEV), ours),
        flux_scripts.paint(models.named[DEV], PROMPT, image=picture, mask=mask, **changes),
    )


def test_batches_are_the_script_s(models: SmallModels) -> None:
    model, pictures, mask = load(DEV), [soft_picture(64, 64, one) for one in (1, 2)], mask_picture()
    both = torch.cat([read_like_host(one) for one in pictures])
    for area in (None, mask):
        ours = paint(model, image=both, mask=area, seed=7)
        script = flux_scripts.paint(models.named[DEV], PROMPT, image=pictures, mask=area, strength=0.6, seeds=[7, 8])
        assert_same(picture_of(model, ours), script)
    batch, alone = paint(model, batch_size=3, seed=11), paint(model, seed=13)
    assert (batch.samples[2:] - alone.samples).abs().max() <= TOLERANCE


def test_bfloat16_gives_the_script_s_bits_in_the_hosts_scale(models: SmallModels) -> None:
    model = load(DEV, torch.bfloat16)
    ours = paint(model, encode(model, PROMPT)).samples
    assert ours.dtype == torch.float32
    in_model_scale = (ours - 0.1159) * 0.3611  # ComfyUI's LatentFormat for Flux
    script = flux_scripts.paint(models.named[DEV], PROMPT, seeds=[3], dtype=torch.bfloat16, output_type="latent")
    from diffusers import FluxPipeline

    latents = FluxPipeline._unpack_latents(script, 64, 64, 8)
    assert latents.dtype == torch.bfloat16
    assert torch.equal(in_model_scale.bfloat16(), latents)


def test_a_latent_is_repainted_without_the_autoencoder(models: SmallModels) -> None:
    """As the script repaints the latents of another run, in model scale."""
    model = load(DEV)
    runtime = counting_runtime()
    begin = paint(model, seed=5)
    ours = paint(model, latent=begin, runtime=runtime)
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 1}
    in_model_scale = (begin.samples - 0.1159) * 0.3611
    script = flux_scripts.pipeline("image", models.named[DEV], torch.float32)(
        PROMPT,
        image=in_model_scale,
        width=64,
        height=64,
        strength=0.6,
        num_inference_steps=4,
        guidance_scale=3.5,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images
    assert_same(picture_of(model, ours), script)


def test_dev_goes_on_in_schnell_without_a_pass_of_the_autoencoder() -> None:
    dev, schnell = load(DEV), load(SCHNELL)
    begin = paint(dev)
    encode_image(dev, read_like_host(soft_picture(64, 64)), 0, counting_runtime())
    autoencoder_of(dev).is_same_space(autoencoder_of(schnell), PlainOffload())  # the probe, once a model
    prompt, runtime = encode(schnell, PROMPT), counting_runtime()
    after = paint(schnell, prompt, latent=begin, runtime=runtime)
    assert dict(runtime.policy.stages) == {Stage.DENOISE: 1}
    assert runtime.monitor.said == [f"guidance_scale is not used: {SCHNELL} (Flux.1) was trained without it."]
    assert (after.samples - begin.samples).abs().max() > 0.1


@pytest.mark.parametrize("other", ["sd15", "sd3"])
def test_another_models_latent_is_decoded_and_encoded_once(other: str) -> None:
    model, source = load(DEV), load(other)
    foreign = encode_image(source, read_like_host(soft_picture(64, 64)), 5, counting_runtime())
    prompt, runtime = encode(model, PROMPT), counting_runtime()
    ours = paint(model, prompt, latent=foreign, runtime=runtime)
    picture = autoencoder_of(source).decode(foreign.samples, PlainOffload())
    assert torch.equal(ours.samples, paint(model, prompt, image=picture).samples)
    assert any("decoded" in line for line in runtime.monitor.said)


def test_a_mask_keeps_what_is_not_repainted() -> None:
    model = load(DEV)
    begin = encode_image(model, read_like_host(soft_picture(96, 64)), 3, counting_runtime())
    ours = paint(model, latent=begin, mask=mask_picture(96, 64, (24, 16, 64, 48)), strength=1.0)
    kept = torch.ones(8, 12, dtype=torch.bool)
    kept[1:7, 2:9] = False
    assert (ours.samples - begin.samples)[..., kept].abs().max() <= 1e-6
    assert (ours.samples - begin.samples)[..., 3:5, 4:7].abs().max() > 0.1


@pytest.mark.parametrize("mask", [None, mask_picture()], ids=["text to image", "inpainting"])
def test_progress_previews_and_cancel_are_every_steps(mask: Any) -> None:
    model = load(DEV)
    prompt = encode(model, PROMPT)
    begin = {} if mask is None else {"latent": paint(model, prompt), "mask": mask, "strength": 1.0}
    runtime = counting_runtime(previews=True)
    last = paint(model, prompt, runtime=runtime, **begin)
    assert runtime.monitor.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [shown.shape for shown in runtime.monitor.previewed] == [(1, 16, 8, 8)] * 4
    shown = autoencoder_of(model).to_raw(runtime.monitor.previewed[-1])
    assert torch.allclose(shown, last.samples, atol=1e-5), "the last step's prediction is the result"
    stopped = counting_runtime(stop_after=2)
    with pytest.raises(Stopped):
        paint(model, prompt, runtime=stopped, **begin)
    assert stopped.monitor.steps == [(1, 4), (2, 4)]


UNIPC, DPM = FLOW_SOLVERS
EULER, HEUN = FLOW_MATCH_SCHEDULERS


@pytest.mark.parametrize(
    ("name", "choice", "script"),
    [
        (DEV, SchedulerChoice(UNIPC), {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        (SCHNELL, SchedulerChoice(UNIPC), {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        (DEV, SchedulerChoice(DPM), {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        (DEV, SchedulerChoice(shift=5.0), {"shift": 5.0, "use_dynamic_shifting": False}),
        (SCHNELL, SchedulerChoice(sigmas="beta"), {"use_beta_sigmas": True}),
    ],
    ids=str,
)
def test_a_scheduler_that_the_pipeline_runs_gives_the_script_s_numbers(
    models: SmallModels, name: str, choice: SchedulerChoice, script: dict[str, Any]
) -> None:
    model = with_scheduler(load(name), choice)
    own = flux_scripts.pipeline("text", models.named[name], torch.float32)
    scheduler = getattr(diffusers, choice.class_name or EULER).from_config(own.scheduler.config, **script)
    theirs = type(own)(**{**own.components, "scheduler": scheduler})
    theirs.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    made = theirs(
        PROMPT, width=96, height=64, num_inference_steps=5, guidance_scale=3.5, generator=generator, output_type="np"
    ).images
    assert_same(picture_of(model, paint(model, width=96, steps=5)), made)


@pytest.mark.parametrize("task", ["text", "image", "inpaint"])
@pytest.mark.parametrize(
    ("name", "choice"),
    [
        (DEV, SchedulerChoice(UNIPC)),
        (DEV, SchedulerChoice(DPM, shift=3.0)),
        (SCHNELL, SchedulerChoice(DPM)),
    ],
    ids=str,
)
def test_other_schedulers_end_where_euler_ends(name: str, choice: SchedulerChoice, task: str) -> None:
    """diffusers' own pipelines run most of them from text only."""
    model = load(name)
    prompt, picture = encode(model, PROMPT), read_like_host(soft_picture(64, 64))
    given: dict[str, Any] = {} if task == "text" else {"image": picture, "mask": None}
    given |= {"mask": mask_picture()} if task == "inpaint" else {}
    shift = SchedulerChoice(shift=choice.shift)
    euler = paint(with_scheduler(model, shift), prompt, steps=30, **given).samples
    other = paint(with_scheduler(model, choice), prompt, steps=30, **given).samples
    assert 0 < (other - euler).square().mean().sqrt() / euler.std() < 0.05


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        (DEV, SchedulerChoice(HEUN), f"Flux.1 can't run '{HEUN}'"),
        (DEV, SchedulerChoice("DDIMScheduler"), f"Flux.1 can't run 'DDIMScheduler'. It can run: .*{UNIPC}"),
        (DEV, SchedulerChoice(UNIPC, sigmas="karras"), f"sigmas: {UNIPC} can't use 'karras'. It can use: default\\."),
        (DEV, SchedulerChoice(UNIPC, timestep_spacing="trailing"), "timestep_spacing: .* It can use: default\\."),
        (DEV, SchedulerChoice(DPM, algorithm_type="sde-dpmsolver++"), r"It can use: default, dpmsolver\+\+\."),
        (DEV, SchedulerChoice(shift=-1.0), "shift: -1 is not between 0"),
        (DEV, SchedulerChoice(shift=float("nan")), "shift: nan is not between 0"),
        ("sd15", SchedulerChoice(shift=3.0), "shift: only flow matching models have one, and sd15"),
    ],
    ids=str,
)
def test_a_choice_that_flow_matching_has_not_is_refused(name: str, choice: SchedulerChoice, message: str) -> None:
    with pytest.raises(RelayError, match=message):
        with_scheduler(load(name), choice)


@pytest.mark.parametrize(("syntax", "text"), [("compel", "a (red)1.5 cat"), ("a1111", "a (red:1.5) cat")])
def test_weights_move_the_picture(syntax: str, text: str) -> None:
    model = load(DEV)
    plain = encode(model, "a red cat")
    weighted = encode_prompt(model, text, "", counting_runtime(), syntax=syntax)
    unweighted = encode_prompt(model, text.replace("1.5", "1.0"), "", counting_runtime(), syntax=syntax)
    assert torch.equal(unweighted.positive.hidden, plain.positive.hidden)
    assert torch.equal(weighted.positive.pooled, plain.positive.pooled), "of the text without its weights"
    assert (paint(model, weighted).samples - paint(model, plain).samples).abs().max() > 1e-3
    distance = [(one.positive.hidden - plain.negative.hidden)[0, 1].norm() for one in (weighted, plain)]
    assert distance[0] / distance[1] == pytest.approx(1.5, abs=0.01), "a lerp from the empty prompt"


def test_a_long_prompt_is_read_whole() -> None:
    model = load(DEV)
    assert encode(model, "cat " * 500).positive.hidden.shape == (1, 512, 96)
    longer = [encode(model, "cat " * 600 + last).positive.hidden for last in ("dog", "ball")]
    assert longer[0].shape == (1, 1024, 96)
    assert not torch.equal(longer[0][:, 512:], longer[1][:, 512:])


def test_another_seed_encodes_nothing() -> None:
    model, image, runtime = load(DEV), read_like_host(soft_picture(64, 64)), counting_runtime()
    for seed in (1, 2):
        prompt = encode_prompt(model, PROMPT, NEGATIVE, runtime, syntax="compel")
        paint(model, prompt, image=image, seed=seed, runtime=runtime)
    assert dict(runtime.policy.stages) == {Stage.TEXT: 1, Stage.VAE: 1, Stage.DENOISE: 2}


def test_what_a_run_does_not_use_is_said() -> None:
    dev, schnell = load(DEV), load(SCHNELL)

    def said(model: PipelineComponents, negative: str, **changes: Any) -> list[str]:
        runtime = counting_runtime()
        paint(model, encode(model, PROMPT, negative), steps=1, runtime=runtime, **changes)
        return list(runtime.monitor.said)

    assert said(dev, "") == []
    assert said(dev, NEGATIVE, true_cfg_scale=2.0) == []
    (unread,) = said(dev, NEGATIVE)
    assert unread.startswith("The negative prompt is not used") and "Set true_cfg_scale above 1" in unread
    assert said(schnell, "") == [f"guidance_scale is not used: {SCHNELL} (Flux.1) was trained without it."]


def test_an_empty_negative_prompt_is_guided_away_from(models: SmallModels) -> None:
    model = load(DEV)
    ours = paint(model, encode(model, PROMPT), true_cfg_scale=3.0)
    script = flux_scripts.paint(models.named[DEV], PROMPT, negative_prompt=[""], true_cfg_scale=3.0, seeds=[3])
    assert_same(picture_of(model, ours), script)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sd15", {"true_cfg_scale": 2.0}, r"true_cfg_scale: the pipelines of sd15 .* don't use it.*do: Flux\.1"),
        (DEV, {"true_cfg_scale": 0.5}, r"true_cfg_scale: 0\.5 is too small"),
        (DEV, {"true_cfg_scale": float("nan")}, r"true_cfg_scale: nan can't be used"),
        (DEV, {"width": 72}, r"72x64.*multiples of 16"),
    ],
)
def test_bad_input_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    model = load(name)
    with pytest.raises(RelayError, match=message):
        paint(model, encode(model, PROMPT), **changes)


def test_another_models_prompt_is_refused() -> None:
    with pytest.raises(RelayError, match=r"encoded for sd15 .*Encode the prompt again with this model"):
        paint(load(DEV), encode(load("sd15"), PROMPT))


def test_clip_skip_is_refused() -> None:
    with pytest.raises(RelayError, match=r"clip_skip: flux_dev .* always reads the last layer"):
        encode_prompt(load(DEV), PROMPT, "", counting_runtime(), syntax="compel", clip_skip=1)


def changed(models: SmallModels, folder: Path, component: str, **changes: Any) -> Path:
    """A copy of the model with other values in a config."""
    shutil.copytree(models.named[DEV], folder)
    path = folder / component / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes_dims_rope": [4, 6, 4]}, "axes_dims_rope is .*three even numbers with the sum 16"),
        ({"axes_dims_rope": [5, 5, 6]}, "axes_dims_rope is .*three even numbers"),
        ({"num_single_layers": 5000}, "num_single_layers is 5000, which no model has"),
        ({"guidance_embeds": "yes"}, "guidance_embeds is 'yes', but it must be true or false"),
    ],
)
def test_a_config_that_no_model_has_is_refused(
    models: SmallModels, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = changed(models, tmp_path / "bad", "transformer", **changes)
    with pytest.raises(RelayError, match=message):
        load_folder(folder, dtype=torch.float32, source="bad", monitor=SilentMonitor())


def test_parts_of_other_models_are_refused(models: SmallModels, tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    narrow = T5EncoderModel(T5Config(vocab_size=600, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4))
    sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4}
    sizes |= {"axes_dims_rope": (4, 6, 6), "joint_attention_dim": 96, "pooled_projection_dim": 32}
    fill = FluxTransformer2DModel(**sizes | {"in_channels": 384, "out_channels": 64})
    wide = FluxTransformer2DModel(**sizes | {"pooled_projection_dim": 48})
    for index, (component, module, message) in enumerate(
        (
            ("text_encoder_2", narrow, "its transformer reads text of width 96, but its text_encoder_2 makes 32"),
            ("transformer", fill, "takes 384 channels, but a Flux.1 transformer takes 64. It is for another pipeline"),
            ("transformer", wide, "reads a pooled embedding of width 48, but its text encoders make 32"),
        )
    ):
        folder = tmp_path / str(index)
        shutil.copytree(models.named[DEV], folder)
        shutil.rmtree(folder / component)
        module.save_pretrained(folder / component)
        with pytest.raises(RelayError, match=message):
            load_folder(folder, dtype=torch.float32, source="mixed", monitor=SilentMonitor())


def test_a_step_asks_for_the_memory_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with true_cfg_scale, whose two calls are made one after the other."""
    model, asked = load(DEV), []
    own = sampling.denoise
    monkeypatch.setattr(
        sampling, "denoise", lambda jobs, runtime: asked.append(denoising_bytes(jobs[0])) or own(jobs, runtime)
    )
    for scale in (1.0, 2.0):
        paint(model, steps=1, true_cfg_scale=scale)
    assert asked == [single_stream_bytes(model["transformer"], rows=1, patches=16, text_tokens=512)] * 2


def test_the_blocks_are_compiled_and_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    compiled = optimising._compile(load(DEV)["transformer"], "default")
    assert sorted(compiled) == ["single_transformer_blocks.0", "transformer_blocks.0"]
