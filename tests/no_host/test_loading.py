"""Diffusers folders: what is loaded, how, and what is rejected."""

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.loading import folder as loading
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels
from small_models.finetunes import add_fp16_files

FAMILIES = {
    "sd15": "stable-diffusion",
    "sdxl_base": "sdxl",
    "sdxl_refiner": "sdxl-refiner",
    "kandinsky_prior": "kandinsky22-prior",
    "kandinsky_decoder": "kandinsky22",
}
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> ComponentRegistry:
    registry = ComponentRegistry()
    monkeypatch.setattr(loading, "REGISTRY", registry)
    return registry


@pytest.fixture
def folder(models: SmallModels, tmp_path: Path) -> Path:
    """A copy of the small SD 1.5 that a test can damage."""
    copy = tmp_path / "model"
    shutil.copytree(models.named["sd15"], copy)
    return copy


def load(folder: Path, dtype: torch.dtype = torch.float32, variant: str = "auto") -> PipelineComponents:
    return load_folder(folder, dtype=dtype, variant=variant, monitor=SilentMonitor())


def refusal(folder: Path, registry: ComponentRegistry, variant: str = "auto") -> str:
    """The error's text. Also checks that nothing was loaded before it."""
    with pytest.raises(RelayError) as caught:
        load(folder, variant=variant)
    assert registry.loads == 0
    return str(caught.value)


def edit_index(folder: Path, **entries: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **entries}), "utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_loads_as_diffusers_loads_it(name: str, models: SmallModels) -> None:
    from diffusers import DiffusionPipeline

    ours = load(models.named[name])
    theirs = DiffusionPipeline.from_pretrained(models.named[name], torch_dtype=torch.float32)
    assert ours.family.name == FAMILIES[name]
    assert set(ours.modules) == set(ours.family.components)
    for component, module in ours.modules.items():
        reference = theirs.components[component]
        assert type(module) is type(reference)
        if isinstance(module, torch.nn.Module):
            state, expected = module.state_dict(), reference.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(value, expected[key]) for key, value in state.items())
            assert not module.training
            assert not any(parameter.requires_grad for parameter in module.parameters())
            assert module.dtype == ours.dtype == torch.float32


def test_the_flags_that_change_results_come_along(models: SmallModels, folder: Path) -> None:
    refiner = load(models.named["sdxl_refiner"])
    assert dict(refiner.config) == {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True}
    silent = folder.with_name("refiner")
    shutil.copytree(models.named["sdxl_refiner"], silent)
    index = json.loads((silent / "model_index.json").read_text("utf-8"))
    del index["force_zeros_for_empty_prompt"], index["requires_aesthetics_score"]
    (silent / "model_index.json").write_text(json.dumps(index), "utf-8")
    assert dict(load(silent).config) == {"force_zeros_for_empty_prompt": True, "requires_aesthetics_score": False}


def test_weights_are_usable_outside_of_inference_mode(models: SmallModels) -> None:
    with torch.inference_mode():
        components = load(models.named["sd15"])
    parameters = [*components["unet"].parameters(), *components["text_encoder"].parameters()]
    assert not any(parameter.is_inference() for parameter in parameters)


def test_a_load_is_logged(models: SmallModels, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=loading.__name__):
        components = load(models.named["sd15"])
    logged = [record.getMessage() for record in caplog.records if record.name == loading.__name__]
    assert sorted(line.split()[1] for line in logged) == sorted(components.modules)
    assert all(line.startswith("loaded ") and "sd15 in " in line for line in logged)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=loading.__name__):
        load(models.named["sd15"])
    assert not caplog.records


def test_a_cancel_stops_between_components(models: SmallModels, registry: ComponentRegistry) -> None:
    class Stop(Exception):
        pass

    class Cancelling(SilentMonitor):
        def check(self) -> None:
            if registry.loads == 2:
                raise Stop

    with pytest.raises(Stop):
        load_folder(models.named["sd15"], dtype=torch.float32, monitor=Cancelling())
    assert registry.loads == 2


# --- variants


@pytest.fixture
def both(folder: Path) -> Path:
    """A model with plain and fp16 files."""
    add_fp16_files(folder)
    return folder


def damage(file: Path) -> None:
    file.write_bytes(b"damaged")


def test_auto_reads_the_fp16_files_for_half_precision(both: Path) -> None:
    damage(both / UNET)
    assert load(both, torch.float16)["unet"].dtype == torch.float16
    assert load(both, torch.bfloat16)["unet"].dtype == torch.bfloat16


def test_auto_reads_the_plain_files_for_float32(both: Path) -> None:
    damage(both / UNET.replace(".safetensors", ".fp16.safetensors"))
    assert load(both)["unet"].dtype == torch.float32


def test_auto_takes_what_there_is(models: SmallModels) -> None:
    assert load(models.named["sd15_fp16"])["unet"].dtype == torch.float32
    assert load(models.named["sd15"], torch.float16)["unet"].dtype == torch.float16


def test_auto_decides_for_each_component(both: Path) -> None:
    (both / UNET).unlink()
    (both / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert set(load(both).modules) == set(load(both, torch.float16).modules)


def test_a_variant_that_is_asked_for_is_needed(both: Path, models: SmallModels, registry: ComponentRegistry) -> None:
    text = refusal(models.named["sd15"], registry, "fp16")
    assert "no fp16 files" in text
    assert "not complete" not in text
    assert "no plain files" in refusal(models.named["sd15_fp16"], registry, "none")
    assert "'fp8'" in refusal(both, registry, "fp8")
    damage(both / UNET)
    load(both, variant="fp16")


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_shards_load(component: str, variant: str | None, models: SmallModels, folder: Path) -> None:
    whole = load(models.named["sd15"])[component]
    for file in (folder / component).glob("*.safetensors"):
        file.unlink()
    whole.save_pretrained(folder / component, max_shard_size="150KB", variant=variant)
    assert len(list((folder / component).glob("*.safetensors"))) > 1
    loaded = load(folder)[component]
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_missing_shard_is_named_before_anything_loads(
    models: SmallModels, folder: Path, registry: ComponentRegistry
) -> None:
    unet = load(models.named["sd15"])["unet"]
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    next((folder / "unet").glob("*-00002-of-*.safetensors")).unlink()
    registry.loads = 0
    assert "complete set of its shards" in refusal(folder, registry)


def test_an_index_of_other_shards_is_refused(models: SmallModels, folder: Path, registry: ComponentRegistry) -> None:
    unet = load(models.named["sd15"])["unet"]
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(index.read_text("utf-8").replace("diffusion_pytorch_model-00002", "../../other-00002"), "utf-8")
    registry.loads = 0
    assert "does not match the shards" in refusal(folder, registry)


# --- refusals


def remove_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "Stable', "utf-8")


def list_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[]", "utf-8")


def unknown_class(folder: Path) -> None:
    edit_index(folder, unet=["diffusers", "UNetOfTomorrow"])


def own_pipeline(folder: Path) -> None:
    edit_index(folder, _class_name=["pipeline", "OwnPipeline"])
    (folder / "pipeline.py").write_text("raise SystemExit('run')", "utf-8")


def own_component(folder: Path) -> None:
    edit_index(folder, unet=["unet_code", "OwnUNet"])
    (folder / "unet" / "unet_code.py").write_text("raise SystemExit('run')", "utf-8")


def component_named_by_its_files(folder: Path) -> None:
    edit_index(folder, text_encoder=["transformers", "AutoModel"])


def no_component(folder: Path) -> None:
    edit_index(folder, vae=[None, None])


def remove_component(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def remove_weights(folder: Path) -> None:
    (folder / UNET).unlink()


def remove_config(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()


def remove_scheduler(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").unlink()


def remove_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "merges.txt"):  # transformers 5 and later write the first one
        (folder / "tokenizer" / name).unlink(missing_ok=True)


def cut_weights(folder: Path) -> None:
    os.truncate(folder / UNET, 5000)


def disguise_pickle(folder: Path) -> None:
    (folder / UNET).write_bytes(pickle.dumps({"weight": [1.0]}))


def disguise_zip(folder: Path) -> None:
    torch.save({"weight": torch.ones(1)}, folder / UNET)


def lfs_pointer(folder: Path) -> None:
    (folder / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "utf-8")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (remove_index, ["no model_index.json", "Choose the folder"]),
        (break_index, ["model_index.json can't be read", "download it again"]),
        (list_index, ["not a JSON object"]),
        (own_pipeline, ["OwnPipeline", "not run code"]),
        (own_component, ["'OwnUNet' of 'unet_code'", "can only be UNet2DConditionModel of diffusers"]),
        (unknown_class, ["'UNetOfTomorrow'", "can only be UNet2DConditionModel of diffusers"]),
        (component_named_by_its_files, ["AutoModel", "text_encoder"]),
        (no_component, ["has no vae"]),
        (remove_component, ["vae/config.json", "not complete"]),
        (remove_weights, [UNET, "no weights"]),
        (remove_config, ["unet/config.json"]),
        (remove_scheduler, ["scheduler/scheduler_config.json"]),
        (remove_vocabulary, ["tokenizer/tokenizer.json"]),
        (cut_weights, [UNET, "cut short", "download it again"]),
        (disguise_pickle, [UNET, "is a pickle with another suffix", "safe_serialization=True"]),
        (disguise_zip, [UNET, "is a pickle with another suffix"]),
        (lfs_pointer, [UNET, "git lfs pull"]),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_what_to_do(
    break_it: Callable[[Path], None], words: list[str], folder: Path, registry: ComponentRegistry
) -> None:
    break_it(folder)
    text = refusal(folder, registry)
    assert str(folder) in text
    assert all(word in text for word in words), text


def test_a_class_that_the_library_does_not_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older library without a class in the table."""
    import diffusers

    monkeypatch.setattr(diffusers, "UNet2DConditionModel", None)
    with pytest.raises(RelayError, match=r"UNet2DConditionModel.*Update diffusers"):
        load(folder)


def test_pickles_are_refused_before_anything_loads(models: SmallModels, registry: ComponentRegistry) -> None:
    text = refusal(models.named["sd15_pickle"], registry)
    assert "text_encoder/pytorch_model.bin" in text
    assert "safe_serialization=True" in text


@pytest.mark.parametrize("name", [UNET, "text_encoder/model.safetensors"])
def test_missing_tensors_are_not_made_up(name: str, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / name)
    del weights[sorted(weights)[3]]
    save_file(weights, folder / name, metadata={"format": "pt"})
    with pytest.raises(RelayError, match="1 tensors are missing"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "key", "kept"),
    [
        (UNET, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.weight", False),
        ("vae/diffusion_pytorch_model.safetensors", "encoder.down_blocks.7.resnets.0.conv1.weight", False),
        ("text_encoder/model.safetensors", "text_model.encoder.layers.99.mlp.fc1.weight", False),
        ("text_encoder/model.safetensors", "vision_model.post_layernorm.weight", True),
        ("text_encoder/model.safetensors", "text_projection.weight", True),
        ("text_encoder/model.safetensors", "text_model.embeddings.position_ids", True),
    ],
)
def test_tensors_that_have_no_place_are_not_dropped_in_silence(
    name: str, key: str, kept: bool, folder: Path, library_warnings: list[str]
) -> None:
    from safetensors.torch import load_file, save_file

    stranger = torch.arange(77) if "position_ids" in key else torch.ones(4, 4)
    save_file({**load_file(folder / name), key: stranger}, folder / name, metadata={"format": "pt"})
    if kept:  # from a whole CLIP model: the encoder doesn't read it
        load(folder)
        assert library_warnings == []
        return
    with pytest.raises(RelayError, match=rf"contain 1 tensors that \w+ does not use, such as .*{key[-20:]}"):
        load(folder)


def test_a_library_error_names_the_component(folder: Path) -> None:
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text("utf-8").replace('"CrossAttnDownBlock2D"', '"NoBlock2D"'), "utf-8")
    with pytest.raises(
        RelayError, match=r"UNet2DConditionModel can't be built from unet/config.json \(NoBlock2D does not exist\)"
    ):
        load(folder)


def test_a_readme_beside_the_weights_does_no_harm(folder: Path) -> None:
    for name in ("README", "unet/LICENSE", "unet/diffusion_pytorch_model.bin", "unet/example.py"):
        (folder / name).write_text("x", "utf-8")
    load(folder)
