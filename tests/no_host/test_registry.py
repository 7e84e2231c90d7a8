"""A component is in memory once, however many models use it, and not at all when none does."""

import gc
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files.registry import ComponentRegistry, file_identity
from diffusers_relay.pipelines.loading import folder as loading
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ComponentRegistry:
    registry = ComponentRegistry()
    monkeypatch.setattr(loading, "REGISTRY", registry)
    return registry


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PipelineComponents:
    return load_folder(folder, dtype=dtype, monitor=SilentMonitor())


def test_the_same_model_is_loaded_once(models: SmallModels, registry: ComponentRegistry) -> None:
    first = load(models.named["sd15"])
    loads = registry.loads
    second = load(models.named["sd15"])
    assert loads == len(first.modules) == 5
    assert registry.loads == loads
    assert all(second[name] is first[name] for name in first.modules)


LINKS = [os.link] if os.name == "nt" else [os.link, os.symlink]  # on Windows, few users can make symbolic links


@pytest.mark.parametrize("link", LINKS)
def test_models_share_a_file_that_is_linked(
    link: Callable[[Path, Path], None], models: SmallModels, registry: ComponentRegistry, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(models.named["comic"], tuned)
    file = tuned / "vae" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    original = tmp_path / "original"
    shutil.copytree(models.named["sd15"], original)
    link(original / "vae" / file.name, file)
    base, other = load(original), load(tuned)
    assert other["vae"] is base["vae"]
    assert other["tokenizer"] is base["tokenizer"]  # different files with the same content
    assert other["unet"] is not base["unet"]


def test_another_config_is_another_component(models: SmallModels, registry: ComponentRegistry, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copytree(models.named["sd15"], original)
    shutil.copytree(original, copy, copy_function=os.link)
    config = copy / "vae" / "config.json"
    text = config.read_text("utf-8").replace("0.18215", "0.5")
    config.unlink()
    config.write_text(text, "utf-8")
    base, other = load(original), load(copy)
    assert other["unet"] is base["unet"]
    assert other["vae"] is not base["vae"]
    assert other["vae"].config.scaling_factor == 0.5


def test_another_dtype_is_another_module_and_the_same_tokenizer(
    models: SmallModels, registry: ComponentRegistry
) -> None:
    full, half = load(models.named["sd15"]), load(models.named["sd15"], torch.bfloat16)
    assert half["unet"] is not full["unet"]
    assert half["unet"].dtype == half["text_encoder"].dtype == torch.bfloat16
    assert half["tokenizer"] is full["tokenizer"]


def test_a_file_that_was_written_to_is_read_again(
    models: SmallModels, registry: ComponentRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models.named["sd15"], folder)
    before = load(folder)
    shutil.copyfile(
        models.named["comic"] / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.safetensors",
    )
    after = load(folder)
    assert after["unet"] is not before["unet"]
    assert after["vae"] is before["vae"]


if os.name != "nt":

    def test_a_folder_s_link_that_leads_elsewhere_is_followed_anew(
        models: SmallModels, registry: ComponentRegistry, tmp_path: Path
    ) -> None:
        """The other files have the same names, sizes and times."""
        folder = tmp_path / "model"
        shutil.copytree(models.named["sd15"], folder)
        parts = [tmp_path / name for name in ("one", "two")]
        for part in parts:
            shutil.copytree(folder / "unet", part)
        config = parts[1] / "config.json"
        config.write_text(config.read_text("utf-8").replace('"sample_size": 8', '"sample_size": 9'), "utf-8")
        shutil.rmtree(folder / "unet")
        (folder / "unet").symlink_to(parts[0])
        before = load(folder)
        (folder / "unet").unlink()
        (folder / "unet").symlink_to(parts[1])
        after = load(folder)
        assert after["unet"] is not before["unet"]
        assert after["vae"] is before["vae"]


def test_a_file_that_is_written_over_in_its_place_is_another(tmp_path: Path) -> None:
    """A LoRA whose training continues: the same file with the same size."""
    file = tmp_path / "lora.safetensors"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    before = file_identity(file)
    assert file_identity(file) == before
    with file.open("r+b") as there:
        there.write(b"two")
    os.utime(file, ns=(10**18, 10**18 + 10**7))
    assert file_identity(file) != before


def test_a_file_that_takes_another_s_place_is_another(tmp_path: Path) -> None:
    """The new file has the same size and time."""
    file, other = tmp_path / "a", tmp_path / "b"
    for path in (file, other):
        path.write_bytes(b"one")
        os.utime(path, ns=(10**18, 10**18))
    before = file_identity(file)
    os.replace(other, file)
    assert file_identity(file) != before


def test_what_nobody_holds_leaves_memory(models: SmallModels, registry: ComponentRegistry) -> None:
    components = load(models.named["sd15"])
    view = components.with_changes()
    unet = weakref.ref(components["unet"])
    del components
    gc.collect()
    assert unet() is not None
    assert len(registry) == 5
    del view
    gc.collect()
    assert unet() is None
    assert len(registry) == 0


def test_every_kind_of_component_can_be_shared(models: SmallModels, registry: ComponentRegistry) -> None:
    first, second = load(models.named["kandinsky_prior"]), load(models.named["kandinsky_prior"])
    assert set(first.modules) == {
        "prior",
        "image_encoder",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "image_processor",
    }
    assert all(second[name] is first[name] for name in first.modules)


def test_threads_get_one_object() -> None:
    class Component:
        pass

    registry = ComponentRegistry()
    start = threading.Barrier(8)
    found = []

    def work() -> None:
        start.wait()
        found.append(registry.get("key", make))

    def make() -> Component:
        threading.Event().wait(0.05)
        return Component()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(component) for component in found}) == 1
    assert registry.loads == 1


def test_a_load_that_fails_leaves_nothing() -> None:
    registry = ComponentRegistry()

    def fail() -> None:
        raise OSError

    with pytest.raises(OSError):
        registry.get("key", fail)
    assert (len(registry), registry.loads) == (0, 0)
    component = registry.get("key", ComponentRegistry)
    assert registry.get("key", fail) is component
