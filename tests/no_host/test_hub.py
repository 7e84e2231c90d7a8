"""Hub ids: what is downloaded, progress, cancelling and resuming, and what happens without a hub."""

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.base import watched
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.downloads import hub, hub_transfer
from diffusers_relay.pipelines.downloads.hub import fetch_repo
from diffusers_relay.pipelines.downloads.hub_names import check_repo_id, check_revision
from diffusers_relay.pipelines.loading.from_hub import PIPELINE, load_from_hub
from relay_dev.hub_cache import HUB_CONTROLNETS, HUB_IP_ADAPTERS
from relay_dev.model_folders import SmallModels
from relay_host.fake_hub import FakeHub, FakeRepo
from small_models.finetunes import add_fp16_files

REPO = "someone/small-model"
UNET = "unet/diffusion_pytorch_model.safetensors"
CHUNK_BYTES = 1 << 15
UNWANTED = {
    "README.md": b"# A model",
    "pipeline.py": b"raise SystemExit",
    "v1-5-pruned.safetensors": b"0" * 1000,
    "v1-5-pruned.ckpt": b"0" * 1000,
    "unet/diffusion_pytorch_model.bin": b"0" * 1000,
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"0" * 1000,
    "unet/model.onnx": b"0" * 1000,
    "unet/flax_model.msgpack": b"0" * 1000,
    "unet/code.py": b"raise SystemExit",
    "text_encoder/adapter_config.json": b'{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}',
    "text_encoder/adapter_model.safetensors": b"0" * 1000,
    "text_encoder/generation_config.json": b"{}",
    "tokenizer/chat_template.json": b"{}",
    "tokenizer/evil:stream.json": b"{}",
    "unet/config.json:evil": b"{}",
    "unet/nul.json": b"{}",
    "unet/deeper/config.json": b"{}",
    "samples/12:30:01.png": b"0",
    "safety_checker/config.json": b"{}",
    "safety_checker/model.safetensors": b"0" * 1000,
}


class Stop(Exception):
    """Stands for the host's interrupt."""


class Watching(SilentMonitor):
    """Records messages and progress; stops when `stop_when` returns True."""

    def __init__(self, stop_when: Callable[["Watching"], bool] = lambda _: False) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.thread = threading.get_ident()
        self._stop_when = stop_when

    def check(self) -> None:
        assert threading.get_ident() == self.thread
        if self._stop_when(self):
            raise Stop

    def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
        assert threading.get_ident() == self.thread
        self.steps.append((done, total))

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a hub address where nothing answers."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)
    monkeypatch.setattr(watched, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    point_to(monkeypatch, "http://127.0.0.1:9")
    return folder


@pytest.fixture
def fake(cache: Path, models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub() as server:
        server.repos[REPO] = FakeRepo.of_folder(models.named["sd15"], **UNWANTED)
        point_to(monkeypatch, server.endpoint)
        yield server


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def fetch(
    repo_id: str = REPO,
    revision: str = "",
    variant: str = "auto",
    dtype: torch.dtype = torch.float32,
    monitor: Watching | None = None,
    subfolder: str = "",
) -> Path:
    place = {"revision": revision, "subfolder": subfolder}
    return fetch_repo(repo_id, **place, variant=variant, dtype=dtype, monitor=monitor or Watching(), kind=PIPELINE)


def refusal(**arguments: str) -> str:
    with pytest.raises(RelayError) as caught:
        fetch(**arguments)  # type: ignore[arg-type]
    return str(caught.value)


def in_folder(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "diffusers-relay-download":
            thread.join(20)
            assert not thread.is_alive()


# --- what is downloaded


def test_only_what_is_needed_is_fetched(fake: FakeHub, models: SmallModels) -> None:
    folder = fetch()
    assert fake.fetched() == in_folder(models.named["sd15"])
    assert in_folder(folder) == in_folder(models.named["sd15"])
    assert all((folder / name).read_bytes() == fake.repos[REPO].files[name] for name in in_folder(folder))


def test_the_user_is_told_once_and_sees_all_bytes(fake: FakeHub, models: SmallModels) -> None:
    monitor = Watching()
    fetch(monitor=monitor)
    files = {name: len(content) for name, content in fake.repos[REPO].files.items()}
    total = sum(files[name] for name in in_folder(models.named["sd15"]) - {"model_index.json"})
    assert len(monitor.said) == 1
    assert REPO in monitor.said[0]
    assert f"{total / 1e6:.1f} MB" in monitor.said[0]
    done = [step[0] for step in monitor.steps]
    assert done == sorted(done)
    assert monitor.steps[-1] == (total, total)
    assert {step[1] for step in monitor.steps} == {total}


def test_a_second_time_nothing_is_fetched(fake: FakeHub) -> None:
    folder = fetch()
    fake.requests.clear()
    monitor = Watching()
    assert fetch(monitor=monitor) == folder
    assert fake.fetched() == set()
    assert (monitor.said, monitor.steps) == ([], [])


def test_a_commit_that_is_there_needs_no_hub(fake: FakeHub) -> None:
    folder = fetch()
    fake.requests.clear()
    assert fetch(revision=folder.name) == folder
    assert fake.requests == []


def test_a_new_commit_brings_only_what_changed(fake: FakeHub) -> None:
    fetch()
    repo = fake.repos[REPO]
    repo.commit = "b" * 40
    repo.files["scheduler/scheduler_config.json"] += b"\n"
    fake.requests.clear()
    folder = fetch()
    assert folder.name == repo.commit
    assert fake.fetched() == {"scheduler/scheduler_config.json"}
    assert (folder / UNET).read_bytes() == repo.files[UNET]


@pytest.mark.parametrize(
    ("dtype", "variant", "half"),
    [
        (torch.float16, "auto", True),
        (torch.bfloat16, "auto", True),
        (torch.float32, "auto", False),
        (torch.float32, "fp16", True),
        (torch.float16, "none", False),
    ],
)
def test_one_set_of_weights_is_fetched(
    dtype: torch.dtype, variant: str, half: bool, fake: FakeHub, models: SmallModels, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(models.named["sd15"], both)
    add_fp16_files(both)
    fake.repos[REPO] = FakeRepo.of_folder(both)
    components = load_from_hub(REPO, variant=variant, dtype=dtype, monitor=Watching())
    weights = {name for name in fake.fetched() if name.endswith(".safetensors")}
    assert len(weights) == 3
    assert all((".fp16." in name) == half for name in weights)
    assert components.source == REPO
    assert components["unet"].dtype == dtype


def test_parts_of_a_variant_are_joined_with_plain_ones_as_in_the_script(
    fake: FakeHub, models: SmallModels, tmp_path: Path
) -> None:
    folder = tmp_path / "non_ema"
    shutil.copytree(models.named["sd15"], folder)
    rewrite_as(folder / "unet", "non_ema")
    fake.repos[REPO] = FakeRepo.of_folder(folder)
    unet = load_from_hub(REPO, variant="non_ema", dtype=torch.float32, monitor=Watching())["unet"]
    weights = {name for name in fake.fetched() if name.endswith(".safetensors")}
    assert weights == {
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    theirs = StableDiffusionPipeline.from_pretrained(
        folder, variant="non_ema", torch_dtype=torch.float32, safety_checker=None
    ).unet
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in unet.state_dict().items())
    assert not torch.equal(unet.conv_in.weight, load_file(folder / UNET)["conv_in.weight"])


def rewrite_as(part: Path, variant: str) -> None:
    """Adds files of a variant with other weights beside the plain ones."""
    for file in part.glob("*.safetensors"):
        weights = {key: value * 1.5 for key, value in load_file(file).items()}
        save_file(weights, file.with_suffix(f".{variant}.safetensors"), metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("variant", "names", "message"),
    [
        (
            "bf16",
            {},
            r"small-model: it has no bf16 files, only non_ema and plain ones\. Set variant to auto or non_ema or none\.",
        ),
        (
            "non_ema",
            {"unet": "fp16"},
            r"it has no non_ema files, only fp16 and plain ones\. Set variant to auto or fp16 or none\.",
        ),
        ("none", {"unet": "bf16"}, r"unet has no plain files, only bf16 ones\. Set variant to auto or bf16\."),
        (
            "fp16",
            {"unet": "ema_only"},
            r"text_encoder has no fp16 files, only plain ones\. Set variant to auto or none\.",
        ),
        ("auto", {"unet": "ema_only"}, r"unet has no .* files, only ema_only ones\. Use another copy of the model\."),
        (
            "auto",
            {"unet": "non_ema"},
            r"unet has no plain or fp16 or bf16 files, only non_ema ones\. Set variant to non_ema\.",
        ),
        ("int8", {}, r"there is no variant 'int8'\. Choose one of: auto, fp16, none, bf16, non_ema\."),
    ],
)
def test_the_error_lists_the_variants_that_the_repository_has(
    variant: str, names: dict[str, str], message: str, fake: FakeHub, models: SmallModels
) -> None:
    files = fake.repos[REPO].files
    if names:
        files = FakeRepo.of_folder(models.named["sd15"]).files
        for part, named in names.items():
            content = files[UNET] if variant == "non_ema" else files.pop(UNET)
            files[f"{part}/diffusion_pytorch_model.{named}.safetensors"] = content
        fake.repos[REPO] = FakeRepo(files)
    with pytest.raises(RelayError, match=message):
        fetch(variant=variant)
    assert fake.fetched() == {"model_index.json"}


# --- subfolders


IN_FOLDERS = "someone/models-in-folders"


@pytest.fixture
def folders(fake: FakeHub, models: SmallModels) -> FakeHub:
    """A repository with a model in models/small, another at its top level without an index, and files beside them."""
    own = FakeRepo.of_folder(models.named["sd15"], **UNWANTED).files
    fake.repos[IN_FOLDERS] = FakeRepo(
        {
            **{f"models/small/{name}": content for name, content in own.items()},
            **{name: content for name, content in own.items() if name != "model_index.json"},
            "models/other/model_index.json": b"{}",
            "models/small-2/unet/config.json": b"{}",
        }
    )
    return fake


def test_only_files_of_the_subfolder_are_fetched(folders: FakeHub, models: SmallModels) -> None:
    monitor = Watching()
    model = load_from_hub(IN_FOLDERS, subfolder="models/small", dtype=torch.float32, monitor=monitor)
    assert folders.fetched() == {f"models/small/{name}" for name in in_folder(models.named["sd15"])}
    assert model.source == f"{IN_FOLDERS}/models/small"
    assert f"Download of {IN_FOLDERS}/models/small: " in monitor.said[0]
    assert torch.equal(model["unet"].conv_in.weight, load_file(models.named["sd15"] / UNET)["conv_in.weight"])


def test_a_subfolder_is_found_in_the_cache(folders: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(IN_FOLDERS, subfolder="models/small")
    assert folder.parts[-3:] == ("a" * 40, "models", "small")
    folders.requests.clear()
    assert fetch(IN_FOLDERS, subfolder="models/small", revision="a" * 40) == folder
    assert folders.requests == []
    assert fetch(IN_FOLDERS, subfolder="models/small") == folder
    assert folders.fetched() == set()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(IN_FOLDERS, subfolder="models/small") == folder
    with pytest.raises(RelayError, match=r"models/other/model_index\.json of someone/models-in-folders is not in this"):
        fetch(IN_FOLDERS, subfolder="models/other")


def test_a_new_commit_is_fetched_into_its_own_snapshot(folders: FakeHub) -> None:
    fetch(IN_FOLDERS, subfolder="models/small")
    folders.repos[IN_FOLDERS].commit = "b" * 40
    folders.repos[IN_FOLDERS].files["models/small/scheduler/scheduler_config.json"] += b"\n"
    folders.requests.clear()
    assert fetch(IN_FOLDERS, subfolder="models/small").parts[-3] == "b" * 40
    assert folders.fetched() == {"models/small/scheduler/scheduler_config.json"}


@pytest.mark.parametrize(
    ("repo_id", "subfolder", "message"),
    [
        (IN_FOLDERS, "", "entered as subfolder: models/other, models/small."),
        (IN_FOLDERS, "models", "someone/models-in-folders/models has no model_index.json"),
        (IN_FOLDERS, "models/small-2", "entered as subfolder: models/other, models/small."),
        (
            REPO,
            "nothing",
            "someone/small-model/nothing has no model_index.json. The repository has one at its top level: leave",
        ),
        ("someone/else", "x", "has no model someone/else, or it is private"),
    ],
)
def test_the_error_says_where_the_repository_has_models(
    repo_id: str, subfolder: str, message: str, folders: FakeHub
) -> None:
    assert message in refusal(repo_id=repo_id, subfolder=subfolder)
    assert folders.fetched() == set()


@pytest.mark.parametrize(
    "subfolder",
    [
        "..",
        "../x",
        "a/../b",
        "/etc",
        "a/",
        "a//b",
        "./a",
        "a\\b",
        "C:x",
        "a:b",
        "a\nb",
        "a\x00",
        "a.",
        "a /b",
        "x" * 201,
    ],
)
def test_a_wrong_subfolder_is_refused_before_any_request(subfolder: str, fake: FakeHub) -> None:
    assert "subfolder: " in refusal(subfolder=subfolder)
    assert fake.requests == []


def test_where_there_are_no_links_the_cache_holds_the_files(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *_: False)
    folder = fetch()
    assert not (folder / UNET).is_symlink()
    assert (folder / UNET).read_bytes() == fake.repos[REPO].files[UNET]
    assert not any(path.stat().st_size > 100_000 for path in (folder.parents[1] / "blobs").iterdir())
    fake.requests.clear()
    fetch()
    assert fake.fetched() == set()


def test_the_token_goes_to_the_hub_and_not_to_its_storage(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch()
    for request in fake.requests:
        expected = None if request.path.startswith("/storage/") else "Bearer hf_secret"
        assert request.authorization == expected, request


# --- stopped and resumed


def unet_blob(fake: FakeHub) -> tuple[str, int]:
    content = fake.repos[REPO].files[UNET]
    return hashlib.sha256(content).hexdigest(), len(content)


def kept_of(sha256: str, cache: Path) -> int:
    """Bytes of an unfinished file on disk."""
    return sum(path.stat().st_size for path in cache.rglob(f"{sha256}.relay.incomplete"))


def test_a_cancel_leaves_at_once_and_the_next_run_goes_on(fake: FakeHub, cache: Path) -> None:
    sha256, size = unet_blob(fake)
    fake.hold_after = size // 2
    monitor = Watching(lambda _: kept_of(sha256, cache) > size // 4)
    started = time.monotonic()
    with pytest.raises(Stop):
        fetch(monitor=monitor)
    assert time.monotonic() - started < 5  # the server delays its answer by 30 s
    assert [step for step in monitor.steps if step[0] == step[1]] == []
    fake.go_on.set()
    wait_for_threads()
    partial = next(cache.rglob("*.relay.incomplete"))
    kept = kept_of(sha256, cache)
    assert size // 4 < kept < size
    assert partial.read_bytes() == fake.repos[REPO].files[UNET][:kept]
    fake.hold_after = None
    fake.requests.clear()
    folder = fetch()
    assert (folder / UNET).read_bytes() == fake.repos[REPO].files[UNET]
    ranges = [request.range for request in fake.requests if request.path.endswith(sha256)]
    assert ranges == [f"bytes={kept}-"]
    assert list(cache.rglob("*.incomplete")) == []


def test_a_cancel_stops_the_transfer_within_a_chunk(fake: FakeHub, cache: Path) -> None:
    sha256, size = unet_blob(fake)
    fake.hold_after = size // 2
    with pytest.raises(Stop):
        fetch(monitor=Watching(lambda _: kept_of(sha256, cache) > size // 4))
    kept = kept_of(sha256, cache)
    fake.go_on.set()
    wait_for_threads()
    assert kept <= kept_of(sha256, cache) <= kept + 2 * CHUNK_BYTES


def test_a_cancel_reaches_a_hub_that_does_not_answer(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: fake.go_on.wait(30))
    started = time.monotonic()
    with pytest.raises(Stop):
        fetch(monitor=Watching(lambda _: time.monotonic() - started > 0.2))
    assert time.monotonic() - started < 5


def test_a_part_that_is_not_of_the_file_is_thrown_away(fake: FakeHub, cache: Path) -> None:
    sha256, _ = unet_blob(fake)
    blobs = cache / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256}.relay.incomplete").write_bytes(b"x" * 1000)
    with pytest.raises(RelayError, match="unet"):
        fetch()
    assert (fetch() / UNET).read_bytes() == fake.repos[REPO].files[UNET]


def test_a_broken_connection_is_named_and_continued(
    fake: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.http_get", without_retries())
    sha256, size = unet_blob(fake)
    fake.cut_after = size // 2
    text = refusal()
    assert REPO in text
    assert UNET in text
    assert "will continue where it stopped" in text
    fake.cut_after = None
    sent = fake.sent[sha256]
    assert (fetch() / UNET).read_bytes() == fake.repos[REPO].files[UNET]
    assert fake.sent[sha256] < sent + size


def without_retries() -> Callable[..., None]:
    from huggingface_hub.file_download import http_get

    def get(*arguments: object, **more: object) -> None:
        http_get(*arguments, **more, _nb_retries=0)  # type: ignore[arg-type]

    return get


def test_a_full_disk_is_named(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    text = refusal()
    assert "disk is full" in text
    assert "HF_HOME" in text
    assert REPO in text


def test_a_disk_with_too_little_room_is_named_before_the_download(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    assert "MB free" in refusal()
    assert fake.fetched() == {"model_index.json"}


# --- no hub


def test_offline_the_cache_serves(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()
    fake.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monitor = Watching()
    assert fetch(monitor=monitor) == folder
    assert (fake.requests, monitor.said) == ([], [])


def test_without_a_connection_the_cache_serves_and_says_so(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()
    point_to(monkeypatch, "http://127.0.0.1:9")
    monitor = Watching()
    assert fetch(monitor=monitor) == folder
    assert len(monitor.said) == 1
    assert "Using the copy in this machine's cache" in monitor.said[0]


def test_a_model_that_has_left_the_hub_is_still_there(fake: FakeHub) -> None:
    folder = fetch()
    del fake.repos[REPO]
    monitor = Watching()
    assert fetch(monitor=monitor) == folder
    assert "has no model" in monitor.said[0]


def test_offline_and_not_in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = refusal()
    assert all(word in text for word in (REPO, "model_index.json", "HF_HUB_OFFLINE", "models/diffusers", str(cache)))


def test_offline_and_not_all_in_the_cache(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch()
    (folder / UNET).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = refusal()
    assert all(word in text for word in (REPO, UNET, "HF_HUB_OFFLINE", "models/diffusers"))


def test_without_a_connection_and_not_in_the_cache(cache: Path) -> None:
    text = refusal()
    assert all(word in text for word in (REPO, "connection", "models/diffusers"))
    assert "HF_HUB_OFFLINE" not in text


def test_a_hub_cache_made_by_others_serves(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(models.hub_cache))
    repos = [folder.name.split("--", 1)[1].replace("--", "/") for folder in models.hub_cache.glob("models--*")]
    assert repos
    for repo_id in set(repos) - {*HUB_CONTROLNETS, *HUB_IP_ADAPTERS}:
        fetch(repo_id, dtype=torch.float16)


# --- refusals


@pytest.mark.parametrize(
    "repo_id",
    [
        "",
        " ",
        "a/b/c",
        "/etc/passwd",
        "../secrets",
        "owner/..",
        "owner/na..me",
        "owner/name.git",
        "C:\\models\\x",
        "owner\\name",
        "https://hub/owner/name",
        "owner/name?x",
        "owner/na me",
        "owner/name\n",
        "-owner/name",
        "owner/name-",
        "models--a--b",
        "o/" + "n" * 95,
        "über/name",
    ],
)
def test_a_wrong_id_is_refused_before_any_request(repo_id: str, fake: FakeHub) -> None:
    assert repr(repo_id) in refusal(repo_id=repo_id)
    assert fake.requests == []


@pytest.mark.parametrize(
    "repo_id", ["gpt2", "owner/name", "O_1.x-y/n.A-m_e", "kandinsky-community/kandinsky-2-2-prior"]
)
def test_good_ids_pass(repo_id: str) -> None:
    check_repo_id(repo_id)


@pytest.mark.parametrize("revision", ["../x", "/x", "a b", "a?b", "x\\y", "a//b", "main\n"])
def test_a_wrong_revision_is_refused_before_any_request(revision: str, fake: FakeHub) -> None:
    assert repr(revision) in refusal(revision=revision)
    assert fake.requests == []


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "a" * 40])
def test_good_revisions_pass(revision: str) -> None:
    check_revision(revision)


def test_no_such_model(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = refusal(repo_id="someone/else")
    assert "has no model someone/else" in text
    assert "hf_secret" not in text


def test_no_such_revision(fake: FakeHub) -> None:
    text = refusal(revision="fp32")
    assert f"{REPO} at revision fp32" in text
    assert "Leave revision empty" in text


def test_a_gated_model(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fake.repos[REPO].gated = True
    text = refusal()
    assert "is gated" in text
    assert "Accept its terms" in text
    assert "hf_secret" not in text


def test_a_repo_of_a_single_file(fake: FakeHub) -> None:
    fake.repos[REPO] = FakeRepo({"model.safetensors": b"0" * 100})
    assert "has no model_index.json" in refusal()


def test_pickles_are_refused_before_any_weights(fake: FakeHub, models: SmallModels) -> None:
    fake.repos[REPO] = FakeRepo.of_folder(models.named["sd15_pickle"])
    assert "only has weights as pickles" in refusal()
    assert fake.fetched() == {"model_index.json"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PixArtAlphaPipeline", "is a PixArtAlphaPipeline, which Diffusers Relay does not run. It runs: "),
        ("StableDiffusionInstructPix2PixPipeline", "does not run: it edits a picture by an instruction, with an image"),
        (
            "StableDiffusionXLInstructPix2PixPipeline",
            "does not run: it edits a picture by an instruction, with an image",
        ),
    ],
)
def test_an_unknown_pipeline_is_refused_before_any_weights(fake: FakeHub, name: str, reason: str) -> None:
    index = json.dumps({"_class_name": name}).encode()
    fake.repos[REPO].files["model_index.json"] = index
    assert reason in refusal()
    assert fake.fetched() == {"model_index.json"}


@pytest.mark.parametrize(
    "name",
    [
        "unet/..\\..\\..\\..\\evil.json",
        "unet\\config.json",
        "C:\\Windows\\evil.json",
        "unet/C:evil.json",
        "c:/evil.json",
        "unet/../../../evil.json",
        "../evil.json",
        "/etc/evil.json",
        "unet//evil.json",
        "unet/./evil.json",
        "unet/con\nfig.json",
        "unet/config\x00.json",
        "unet/\x1b[31m.json",
    ],
)
def test_a_name_that_leads_out_of_the_repository_is_refused_before_anything_is_fetched(
    name: str, fake: FakeHub, cache: Path
) -> None:
    fake.repos[REPO].files[name] = b"{}"
    assert "whose name leads outside the repository" in refusal()
    assert fake.fetched() == set()
    assert list(cache.rglob("*.json")) == []


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "tokenizer/vocab.json"])
def test_a_config_of_many_mb_is_not_fetched(name: str, fake: FakeHub) -> None:
    fake.repos[REPO].files[name] += b" " * (33 * 2**20)
    assert f"{name} has 3" in refusal()
    assert fake.fetched() <= {"model_index.json"} - {name}


def test_a_checksum_that_is_none_names_no_file(fake: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub_transfer.RemoteFile(REPO, "a" * 40, UNET, 10, "../../../evil")
    with pytest.raises(OSError, match="checksum"):
        hub_transfer.fetch_file(file, watched.Transfer(), cache)
    assert list(cache.rglob("*evil*")) == []


@pytest.mark.parametrize(
    "entry", [["diffusers", "DiffusionPipeline"], ["evil", "Evil"], ["diffusers", "UNet2DConditionModel"]]
)
def test_a_class_that_is_not_in_the_table_is_refused_before_any_weights(entry: list[str], fake: FakeHub) -> None:
    index = json.loads(fake.repos[REPO].files["model_index.json"])
    fake.repos[REPO].files["model_index.json"] = json.dumps({**index, "scheduler": entry}).encode()
    assert f"its scheduler is declared as {entry[1]!r} of {entry[0]!r}" in refusal()
    assert fake.fetched() == {"model_index.json"}


def test_a_missing_variant_is_refused_before_any_weights(fake: FakeHub) -> None:
    assert "no fp16 files" in refusal(variant="fp16")
    assert fake.fetched() == {"model_index.json"}
