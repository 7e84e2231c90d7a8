"""Playground v2.5 and CosXL as single files: SDXL's layout with an EDM scheduler. The numbers are those of diffusers' script with the folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.denoising.schedulers import build_scheduler, with_scheduler
from diffusers_relay.pipelines.latents.autoencoder import autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.other_autoencoder import with_vae_of
from diffusers_relay.pipelines.loading.checkpoint_layout import CONFIGS
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents, SchedulerChoice
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    image_to_image,
    text_to_image,
)
from reference.scripts import read_like_host, sdxl_image_to_image, sdxl_text_to_image, soft_picture
from small_models.native_checkpoint import Weights
from small_models.original_checkpoints import original_checkpoint
from support.checkpoints import SmallCheckpoints, copy_configs, open_checkpoint, write_file
from support.without_host import counting_runtime, encode, load

pytestmark = pytest.mark.usefixtures("inference_mode", "registry")
MARKS: dict[str, Weights] = {
    "playground_v2_5": {"edm_mean": torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)},
    "cosxl": {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)},
}
SCHEDULERS = {"playground_v2_5": "EDMDPMSolverMultistepScheduler", "cosxl": "EDMEulerScheduler"}


@dataclass(frozen=True)
class Edm:
    small: SmallCheckpoints
    folder: Path
    weights: Weights
    """Of the single file, with its marks."""

    def open(self, path: Path) -> PipelineComponents:
        return open_checkpoint(self.small, write_file(path / "x.safetensors", self.weights))


@pytest.fixture(scope="module")
def edms(small: SmallCheckpoints, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Edm]:
    """The small SDXL with the published schedulers, and with Playground's scale of latents."""
    made = {}
    for kind, marks in MARKS.items():
        folder = tmp_path_factory.mktemp("edm") / kind
        shutil.copytree(small.folders["sdxl_base"], folder)
        for name in ("vae/config.json", "scheduler/scheduler_config.json", "model_index.json"):
            change(folder / name, json.loads((CONFIGS / kind / name).read_text("utf-8")), whole=name.startswith("sch"))
        copy_configs(folder, small.configs / kind)
        made[kind] = Edm(small, folder, {**original_checkpoint(folder), **marks})
    return made


def change(path: Path, published: dict[str, Any], *, whole: bool) -> None:
    """Takes over what the published config says of the scheduler and of the latents' scale."""
    names = ("scaling_factor", "latents_mean", "latents_std", "scheduler")
    config = json.loads(path.read_text("utf-8"))
    config = published if whole else config | {name: published[name] for name in names if name in published}
    path.write_text(json.dumps(config), "utf-8")


@pytest.fixture(params=MARKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_file_is_the_folder(kind: str, edms: dict[str, Edm], tmp_path: Path) -> None:
    ours = edms[kind].open(tmp_path)
    folder = load_folder(edms[kind].folder, dtype=torch.float32, monitor=SilentMonitor())
    assert ours.family is folder.family
    assert type(ours["scheduler"]).__name__ == type(folder["scheduler"]).__name__ == SCHEDULERS[kind]
    assert ours["scheduler"].config == folder["scheduler"].config
    assert set(ours.modules) == set(folder.modules)
    assert autoencoder_of(ours).scale == autoencoder_of(folder).scale
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        state, expected = ours[name].state_dict(), folder[name].state_dict()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("strength", [None, 0.6])
def test_a_graph_of_the_file_is_the_script(
    kind: str, strength: float | None, edms: dict[str, Edm], tmp_path: Path
) -> None:
    model, runtime, folder = edms[kind].open(tmp_path), counting_runtime(), edms[kind].folder
    prompt = encode(model, "a red cat")
    common = {"steps": 4, "guidance_scale": 3.0, "seed": 3, "output_type": "pt"}
    if strength is None:
        latent = text_to_image(model, prompt, TextToImageSettings(64, 64, 1, 4, 3.0, 3), runtime)
        script = sdxl_text_to_image(folder, "a red cat", **common)
    else:
        settings, picture = ImageToImageSettings(strength, 4, 3.0, 3), soft_picture()
        latent = image_to_image(model, prompt, settings, runtime, image=read_like_host(picture))
        script = sdxl_image_to_image(folder, picture, "a red cat", strength=strength, **common)
    ours = decode(model, latent, False, runtime)
    assert (ours - script.movedim(1, -1)).abs().max() <= 1e-5
    assert ours.std() > 0.01


def test_only_edm_schedulers_run_it(kind: str, edms: dict[str, Edm], tmp_path: Path) -> None:
    model = edms[kind].open(tmp_path)
    with pytest.raises(RelayError, match=r"x.safetensors is an EDM model, and EulerDiscreteScheduler can't handle"):
        with_scheduler(model, SchedulerChoice("EulerDiscreteScheduler"))
    for name in set(SCHEDULERS.values()):
        config = build_scheduler(with_scheduler(model, SchedulerChoice(name))).config
        own = model["scheduler"].config
        for law in ("sigma_max", "sigma_data", "prediction_type", "sigma_schedule"):
            assert config[law] == own[law]


def test_playground_keeps_its_own_vae(edms: dict[str, Edm], tmp_path: Path) -> None:
    playground = edms["playground_v2_5"]
    with pytest.raises(RelayError, match=r"^vae_from: x.safetensors can't use the autoencoder of sdxl_base.* scale"):
        with_vae_of(playground.open(tmp_path), load("sdxl_base"))
    unet = {key: tensor for key, tensor in playground.weights.items() if not key.startswith("first_stage_model.")}
    with pytest.raises(RelayError, match=r"x.safetensors has no vae, which a model of its kind needs"):
        open_checkpoint(playground.small, write_file(tmp_path / "x.safetensors", unet))


def test_the_unet_of_cosxl_alone_has_its_scheduler(edms: dict[str, Edm], tmp_path: Path) -> None:
    cosxl = edms["cosxl"]
    unet = {key: tensor for key, tensor in cosxl.weights.items() if key.startswith(("model.diffusion", "edm_"))}
    model = open_checkpoint(cosxl.small, write_file(tmp_path / "x.safetensors", unet))
    assert set(model.modules) == {"unet", "scheduler"}
    assert type(model["scheduler"]).__name__ == "EDMEulerScheduler"
    assert with_vae_of(model, load("sdxl_base"))["vae"] is load("sdxl_base")["vae"]
