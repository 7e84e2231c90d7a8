"""Loading: memory use, independence from later changes to the files, and read-ahead."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.files import read_ahead
from diffusers_relay.pipelines.files import safetensors as safetensors_file
from diffusers_relay.pipelines.files.casting import casting
from diffusers_relay.pipelines.files.read_ahead import Span, whole
from diffusers_relay.pipelines.files.registry import ComponentRegistry
from diffusers_relay.pipelines.files.safetensors import read_tensors, tensor_spans
from diffusers_relay.pipelines.loading import controlnet as controlnet_loading
from diffusers_relay.pipelines.loading import file_part, single_file
from diffusers_relay.pipelines.loading import folder as loading
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.loading.single_file import load_checkpoint
from diffusers_relay.pipelines.model.components import PipelineComponents
from relay_dev.model_folders import SmallModels
from relay_host.paths import ROOT, WORK
from support.checkpoints import SmallCheckpoints, write_file

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> ComponentRegistry:
    registry = ComponentRegistry()
    for module in (loading, single_file, file_part, controlnet_loading):
        monkeypatch.setattr(module, "REGISTRY", registry)
    return registry


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """Records the spans to read ahead, without reading them."""
    asked: list[Span] = []
    for module in (loading, file_part, controlnet_loading):
        monkeypatch.setattr(module, "read_ahead", asked.extend)
    return asked


def load(model: Path, small: SmallCheckpoints, dtype: torch.dtype = torch.float32) -> PipelineComponents:
    if model.is_dir():
        return load_folder(model, dtype=dtype, monitor=SilentMonitor())
    return load_checkpoint(
        model, dtype=dtype, vocabularies=small.vocabularies, monitor=SilentMonitor(), configs=small.configs
    )


@pytest.fixture(params=["folder", "file"])
def model(request: pytest.FixtureRequest, small: SmallCheckpoints, tmp_path: Path) -> Path:
    """A copy of the small SD1.5 that a test can change."""
    if request.param == "folder":
        return Path(shutil.copytree(small.folders["sd15"], tmp_path / "model"))
    return Path(shutil.copyfile(small.file("sd15"), tmp_path / "model.safetensors"))


def weights_of(model: Path) -> Path:
    return model / UNET if model.is_dir() else model


# --- the file and the memory


def test_weights_that_are_written_to_leave_the_file_alone(model: Path, small: SmallCheckpoints) -> None:
    before = hashlib.sha256(weights_of(model).read_bytes()).digest()
    unet = load(model, small)["unet"]
    bias = unet.conv_out.bias.clone()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(1)
    assert torch.equal(unet.conv_out.bias, bias + 1)
    assert hashlib.sha256(weights_of(model).read_bytes()).digest() == before


if os.name != "nt":  # Windows doesn't allow replacing a mapped file

    def test_a_file_that_is_replaced_leaves_the_loaded_model_alone(
        model: Path, small: SmallCheckpoints, tmp_path: Path
    ) -> None:
        expected = {key: value.clone() for key, value in load(model, small)["unet"].state_dict().items()}
        loaded = load(model, small)["unet"]
        new = {key: value + 1 for key, value in load_file(weights_of(model)).items()}
        save_file(new, tmp_path / "new.safetensors", metadata={"format": "pt"})
        os.replace(tmp_path / "new.safetensors", weights_of(model))
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
        again = load(model, small)["unet"]
        assert all(torch.equal(value, expected[key] + 1) for key, value in again.state_dict().items())


MEMORY = """
import sys, threading, gc
sys.path[:0] = [{root!r} + "/devtools"]
from relay_host.pack import prepare_pack
prepare_pack()
import torch
from pathlib import Path
from diffusers import UNet2DConditionModel, StableDiffusionPipeline
from diffusers_relay.pipelines.files import safetensors as safetensors_file
from diffusers_relay.pipelines.loading.folder import load_component
from diffusers_relay.pipelines.model.component_classes import UNET
from diffusers_relay.pipelines.files.component_files import ComponentFiles
from diffusers_relay.pipelines.loading.checkpoint_keys import prefixed
from diffusers_relay.pipelines.loading.file_part import Part, load_part
safetensors_file.PORTION = 4 * 2**20

def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def of_folder(folder, dtype):
    files = ComponentFiles("unet", UNET, "UNet2DConditionModel", (), ("diffusion_pytorch_model.safetensors",))
    return load_component(folder, files, dtype, "it")

def of_file(folder, dtype):
    part = Part("unet", "diffusers", "UNet2DConditionModel", folder, prefixed("model.diffusion_model."), {{}})
    return load_part(folder.with_suffix(".safetensors"), part, dtype, "it")

for load, dtype in ((of_folder, torch.float32), (of_folder, torch.float16), (of_file, torch.float32), (of_file, torch.float16)):
    load(Path({small!r}), dtype)  # one-time costs of a first load
    gc.collect()
    own = peak_own = memory("RssAnon")
    all_ = peak_all = memory("VmRSS")
    done = threading.Event()
    def watch():
        global peak_own, peak_all
        while not done.wait(0.001):
            peak_own = max(peak_own, memory("RssAnon"))
            peak_all = max(peak_all, memory("VmRSS"))
    thread = threading.Thread(target=watch)
    thread.start()
    unet = load(Path({wide!r}), dtype)
    done.set()
    thread.join()
    print(sum(p.numel() * p.element_size() for p in unet.parameters()), peak_own - own, peak_all - all_)
    del unet
"""

if sys.platform == "linux":  # only Linux reports a process's memory without the pages of mapped files

    def test_there_is_no_second_copy(small: SmallCheckpoints, tmp_path: Path) -> None:
        from diffusers import UNet2DConditionModel

        from small_models.original_checkpoints import whole_unet

        layout = UNet2DConditionModel.load_config(str(small.folders["sd15"] / "unet"))
        for name, channels in (("small", [32, 64]), ("wide", [256, 320])):
            unet = UNet2DConditionModel.from_config({**layout, "block_out_channels": channels})
            unet.save_pretrained(tmp_path / name)
            weights = {f"model.diffusion_model.{key}": value for key, value in whole_unet(unet.state_dict()).items()}
            write_file(tmp_path / f"{name}.safetensors", weights)
        code = MEMORY.format(root=str(ROOT), small=str(tmp_path / "small"), wide=str(tmp_path / "wide"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
        assert len(lines) == 4, done.stderr
        folder, folder_cast, file, file_cast = lines
        assert folder[0] == 2 * file_cast[0] > 50e6
        for size, own, _ in (folder, file):
            assert own < 0.2 * size, lines
        for size, own, _ in (folder_cast, file_cast):
            assert own < 1.3 * size, lines
        assert file_cast[2] < 1.6 * file_cast[0], lines  # includes the file's pages; all of them would add 2.0

    def test_what_is_read_ahead_is_in_memory() -> None:
        WORK.mkdir(exist_ok=True)
        file = WORK / f"read-ahead-{os.getpid()}"
        try:
            with file.open("wb") as to:
                to.write(bytes(32 * 2**20))
                os.fsync(to.fileno())
                os.posix_fadvise(to.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert pages_in_memory(file) < 0.1
            read_ahead._ask((Span(file, 0, 16 * 2**20),))
            wait_until(lambda: pages_in_memory(file) > 0.45)
            read_ahead.read_ahead([whole(file)])
            wait_until(lambda: pages_in_memory(file) > 0.95)
        finally:
            file.unlink()


def wait_until(true: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pages_in_memory(file: Path) -> float:
    """The share of a file's pages in the system's cache; see mincore(2)."""
    import ctypes
    import mmap

    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(mapped)), pages)
        del start
        assert not failed
        return sum(page & 1 for page in pages) / len(pages)


# --- read-ahead


def test_only_what_is_new_is_read_ahead_the_unet_last(
    small: SmallCheckpoints, asked: list[Span], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small.folders["sdxl_base"], tmp_path / "model"))
    first = load(folder, small)
    names = [f"{span.path.parent.name}/{span.path.name}" for span in asked]
    assert set(names) == {f"{file.parent.name}/{file.name}" for file in folder.rglob("*.safetensors")}
    assert names[-1] == UNET
    assert all((span.start, span.stop) == (0, span.path.stat().st_size) for span in asked)
    asked.clear()
    second = load(folder, small)
    assert not asked
    assert second["unet"] is first["unet"]


def test_of_a_checkpoint_only_its_model_is_read_ahead(
    small: SmallCheckpoints, asked: list[Span], tmp_path: Path
) -> None:
    weights = load_file(small.file("sd15"))
    ema = {f"model_ema.{index}": torch.zeros(1000) for index in range(50)}
    file = write_file(tmp_path / "with_ema.safetensors", {**weights, **ema})
    first = load(file, small)
    assert sum(span.stop - span.start for span in asked) == sum(value.nbytes for value in weights.values())
    content = file.read_bytes()
    key = "model.diffusion_model.out.2.bias"
    place = content.index(weights[key].numpy().tobytes())
    last = asked[-1]
    assert last.start <= place < last.stop
    asked.clear()
    assert load(file, small)["unet"] is first["unet"]
    assert not asked


def test_the_spans_of_tensors_are_their_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), float(number)) for number, name in enumerate("abcd")}
    file = write_file(tmp_path / "four.safetensors", tensors, {"about": "numbers"})
    spans = tensor_spans(file, lambda key: key if key != "c" else None)
    content = file.read_bytes()
    assert [content[span.start : span.stop] for span in spans] == [
        b"".join(tensors[name].numpy().tobytes() for name in "ab"),
        tensors["d"].numpy().tobytes(),
    ]


def test_nothing_is_read_ahead_where_memory_has_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import psutil

    calls: list[object] = []
    monkeypatch.setattr(read_ahead, "_ask", calls.append)
    monkeypatch.setattr(os, "posix_fadvise", None, raising=False)
    room = psutil.virtual_memory().total
    read_ahead.read_ahead([Span(tmp_path, 0, room), Span(tmp_path, 0, 1)])
    read_ahead.read_ahead([])
    assert not calls
    read_ahead.read_ahead([Span(tmp_path, 0, 1)])
    wait_until(lambda: len(calls) == 1)


def test_a_file_that_vanishes_is_no_matter_of_the_hint(tmp_path: Path) -> None:
    read_ahead._ask((Span(tmp_path / "gone", 0, 10),))


# --- casting


def test_portions_hold_every_tensor_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensors = {f"t{index}": torch.randn(index % 7 + 1, 300) for index in range(40)}
    tensors |= {"half": torch.randn(500).half(), "count": torch.arange(9), "none": torch.zeros(0)}
    file = write_file(tmp_path / "mixed.safetensors", tensors)
    for portion in (1, 5000, 2**30):
        monkeypatch.setattr(safetensors_file, "PORTION", portion)
        read = read_tensors(file, lambda key: f"new.{key}" if key != "t3" else None, torch.float16)
        assert read.keys() == {f"new.{key}" for key in tensors if key != "t3"}
        for key, value in read.items():
            source = tensors[key.removeprefix("new.")]
            assert torch.equal(value, source.half() if source.is_floating_point() else source)


def test_casting_gives_the_threads_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with casting(torch.bfloat16) as cast:
            assert cast([torch.ones(2), torch.zeros(1)])[0].dtype == torch.bfloat16
        with ThreadPoolExecutor(1) as pool:  # a thread started later
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_cast_in_the_hosts_inference_mode_is_usable_outside(small: SmallCheckpoints) -> None:
    with torch.inference_mode():
        model = load(small.file("sd15"), small, torch.bfloat16)
    assert not any(parameter.is_inference() for name in ("unet", "vae") for parameter in model[name].parameters())


# --- files shared by models


if os.name != "nt":  # the hub cache has no links on Windows

    def test_repos_of_the_hub_share_what_has_the_same_content(models: SmallModels, tmp_path: Path) -> None:
        from relay_dev.hub_cache import add_repository

        base = add_repository(tmp_path, "someone/base", models.named["sd15"])
        tuned = tmp_path / "tuned"
        shutil.copytree(models.named["comic"], tuned)
        shutil.copyfile(models.named["sd15"] / "vae" / "diffusion_pytorch_model.safetensors", tuned / "vae" / UNET[5:])
        other = add_repository(tmp_path, "another/tuned", tuned)
        first = load_folder(base, dtype=torch.float32, monitor=SilentMonitor())
        second = load_folder(other, dtype=torch.float32, monitor=SilentMonitor())
        assert json.loads((base / "vae" / "config.json").read_text()) == json.loads(
            (other / "vae" / "config.json").read_text()
        )
        assert second["vae"] is first["vae"]
        assert second["unet"] is not first["unet"]
