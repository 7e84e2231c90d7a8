"""An unused model leaves memory at once, not at the next garbage collection: no stage creates a reference cycle."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.optimising import with_options
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.options import ModelOptions
from diffusers_relay.pipelines.runs.inpainting import InpaintSettings, inpaint
from diffusers_relay.pipelines.runs.sampling import TextToImageSettings, text_to_image
from reference.inpaint_scripts import as_mask, mask_picture
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from small_models.finetunes import make_finetune
from support.without_host import counting_runtime, encode


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("previews", [False, True])
@pytest.mark.usefixtures("no_collector", "inference_mode")
def test_after_every_stage(models: SmallModels, tmp_path: Path, previews: bool) -> None:
    folder = make_finetune(
        models.named["sd15"], tmp_path / "own", seed=4519, vae="moved"
    )  # it shares no part with another test
    model = load_folder(folder, dtype=torch.float32, monitor=SilentMonitor())
    modules = {name: weakref.ref(model[name]) for name in ("text_encoder", "unet", "vae")}
    runtime = counting_runtime(previews=previews)
    prompt = encode(model, '("a (red)1.2 cat++", "a dog").and(1, 0.5)', "b")
    latent = text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 2, 7.5, 6), runtime)
    picture, mask = read_like_host(soft_picture()), as_mask(mask_picture())
    painted = inpaint(model, prompt, mask, InpaintSettings(0.8, 3, 7.5, 6), runtime, image=picture)
    sliced = with_options(model, ModelOptions(attention="sliced", vae_tiling=True), torch.device("cpu"))
    text_to_image(sliced, prompt, TextToImageSettings(64, 64, 1, 2, 7.5, 6), runtime)
    decode(sliced, painted, False, runtime)
    assert decode(model, latent, False, runtime).isfinite().all()
    del model, sliced, latent, painted
    assert {name: module() is None for name, module in modules.items()} == dict.fromkeys(modules, True)
