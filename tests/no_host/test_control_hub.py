"""ControlNets from the hub: which files are downloaded, and what happens without a hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.loading.controlnet import load_controlnet_folder, load_controlnet_from_hub
from relay_dev.hub_cache import HUB_CONTROLNETS
from relay_dev.model_folders import SmallModels
from relay_host.fake_hub import FakeHub, FakeRepo
from small_models.finetunes import add_fp16_files, make_fp16_copy, make_pickle_copy
from support.without_host import ListeningMonitor, SilentMonitor

REPO = "someone/small-controlnet"
WEIGHTS, HALF = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
UNWANTED = {"README.md": b"#", "control.py": b"raise SystemExit", "notes.json": b"{}", "images/a.safetensors": b"0"}


@pytest.fixture
def folder(models: SmallModels, tmp_path: Path) -> Path:
    """A repository with plain and fp16 files."""
    made = make_fp16_copy(models.controlnets["sd15_depth"], tmp_path / "repo", variant=None)
    add_fp16_files(made)
    return made


@pytest.fixture
def fake(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A fake hub with the repository, and an empty cache."""
    with FakeHub() as server:
        server.repos[REPO] = FakeRepo.of_folder(folder, **UNWANTED)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        (tmp_path / "hub").mkdir()
        yield server


def from_hub(repo_id: str = REPO, dtype: torch.dtype = torch.float32, variant: str = "auto"):
    monitor = ListeningMonitor()
    return load_controlnet_from_hub(repo_id, dtype=dtype, variant=variant, monitor=monitor), monitor


@pytest.mark.parametrize(("dtype", "weights"), [(torch.float32, WEIGHTS), (torch.float16, HALF)])
def test_only_the_config_and_one_set_of_weights_is_fetched(fake: FakeHub, dtype: torch.dtype, weights: str) -> None:
    net, monitor = from_hub(dtype=dtype)
    assert fake.fetched() == {"config.json", weights}
    assert (net.title, net.module.dtype) == (REPO, dtype)
    assert len(monitor.said) == 1
    assert "1 files" in monitor.said[0]
    fake.requests.clear()
    again, monitor = from_hub(dtype=dtype)
    assert again.module is net.module
    assert fake.fetched() <= {"config.json"}
    assert monitor.said == []


def test_the_weights_are_those_of_the_folder(fake: FakeHub, folder: Path) -> None:
    net, _ = from_hub()
    same = load_controlnet_folder(folder, dtype=torch.float32, variant="none", monitor=SilentMonitor())
    theirs = same.module.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in net.module.state_dict().items())


def test_a_controlnet_in_a_subfolder(fake: FakeHub, folder: Path) -> None:
    """As in the repository of a whole ControlNet pipeline, or one with several ControlNets."""
    own = FakeRepo.of_folder(folder).files
    fake.repos["a/many"] = FakeRepo({f"controlnet/depth/{name}": content for name, content in own.items()})
    load = partial(load_controlnet_from_hub, "a/many", dtype=torch.float32, monitor=SilentMonitor())
    net = load(subfolder="controlnet/depth")
    assert fake.fetched() == {"controlnet/depth/config.json", f"controlnet/depth/{WEIGHTS}"}
    assert net.title == "a/many/controlnet/depth"
    with pytest.raises(RelayError, match=r"a/many has no config\.json, .*entered as subfolder: controlnet/depth\."):
        load()


def test_a_variant_that_the_controlnet_lacks(fake: FakeHub) -> None:
    with pytest.raises(
        RelayError, match=r"controlnet has no bf16 files, only fp16 and plain ones\. Set variant to auto"
    ):
        from_hub(variant="bf16")


def test_bf16_files_are_found_by_themselves(models: SmallModels, tmp_path: Path) -> None:
    bf16 = make_fp16_copy(models.controlnets["sd15_depth"], tmp_path / "bf16", variant="bf16")
    for dtype in (torch.float32, torch.bfloat16):
        assert load_controlnet_folder(bf16, dtype=dtype, monitor=SilentMonitor()).module.dtype == dtype
    load_controlnet_folder(bf16, dtype=torch.float32, variant="bf16", monitor=SilentMonitor())
    with pytest.raises(RelayError, match=r"no plain files, only bf16 ones"):
        load_controlnet_folder(bf16, dtype=torch.float32, variant="none", monitor=SilentMonitor())


def test_a_copy_in_the_cache_serves_where_there_is_no_hub(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = from_hub()
    del fake.repos[REPO]
    second, monitor = from_hub()
    assert second.module is first.module
    assert "Using the copy in this machine's cache" in monitor.said[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert from_hub()[0].module is first.module
    with pytest.raises(
        RelayError, match=r"someone/else.*config\.json .*not in this machine's cache.*models/controlnet"
    ):
        from_hub("someone/else")
    with pytest.raises(RelayError, match=r"can't be used: .*no fp16 files"):
        from_hub(variant="fp16")


@pytest.mark.parametrize("repo_id", HUB_CONTROLNETS)
def test_the_published_ids_are_in_the_test_cache(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, repo_id: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(models.hub_cache))
    net, _ = from_hub(repo_id, torch.float16, "fp16")
    assert all(float(value.abs().max()) > 0 for value in net.module.parameters()), (
        "not even its zero convolutions are zero"
    )


def test_what_is_no_controlnet(fake: FakeHub, models: SmallModels, tmp_path: Path) -> None:
    fake.repos["a/pickle"] = FakeRepo.of_folder(make_pickle_copy(models.controlnets["sd15_depth"], tmp_path / "pickle"))
    fake.repos["a/model"] = FakeRepo.of_folder(models.named["sd15"])
    fake.repos["a/unet"] = FakeRepo.of_folder(models.named["sd15"] / "unet")
    for repo_id, message in {
        "a/pickle": r"a/pickle only has weights as pickles",
        "a/model": r"a/model has no config\.json.*Load Diffusers Model from Hub",
        "a/unet": r"a/unet is not a ControlNet .*'UNet2DConditionModel'",
    }.items():
        with pytest.raises(RelayError, match=message):
            from_hub(repo_id)
    assert not [name for name in fake.fetched() if name.endswith((".safetensors", ".bin"))]
