"""The pack's only interface to the host: folders, dtypes, devices, cancel, and messages for the user."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from relay_dev.model_folders import SmallModels


@pytest.fixture
def comfy_host() -> Any:
    from diffusers_relay.nodes import comfy_host

    return comfy_host


@pytest.fixture
def two_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two diffusers folders, as added by extra_model_paths.yaml."""
    import folder_paths

    roots = [tmp_path / "first", tmp_path / "second"]
    for root in roots:
        root.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusers", ([str(r) for r in roots], ["folder"]))
    return roots


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def test_models_are_found_in_every_path_of_the_host(comfy_host: Any, two_roots: list[Path]) -> None:
    first, second = two_roots
    make_model(first / "a")
    make_model(first / "style" / "comic")
    make_model(second / "b")
    other_a = make_model(second / "a")
    (first / "no model").mkdir()
    found = comfy_host.diffusers_folders()
    assert list(found) == ["a", "b", "style/comic"]
    assert Path(found["a"]) != other_a, "the first path wins, as in the host's own folders"
    assert comfy_host.pick_folder("model", "b", found) == str(second / "b")


def test_extra_model_paths_yaml_is_followed(comfy_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from utils.extra_config import load_extra_path_config

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusers", ([], ["folder"]))
    make_model(tmp_path / "elsewhere" / "diffusers" / "mine")
    config = tmp_path / "extra.yaml"
    config.write_text(f"other:\n  base_path: {(tmp_path / 'elsewhere').as_posix()}\n  diffusers: diffusers\n")
    load_extra_path_config(str(config))
    assert list(comfy_host.diffusers_folders()) == ["mine"]


def link_folder(link: Path, target: Path) -> None:
    if os.name == "nt":
        import _winapi  # a junction needs no special rights

        _winapi.CreateJunction(str(target), str(link))
    else:
        link.symlink_to(target, target_is_directory=True)


def test_a_link_in_a_circle_does_not_hang(comfy_host: Any, two_roots: list[Path]) -> None:
    make_model(two_roots[0] / "a")
    link_folder(two_roots[0] / "round", two_roots[0])
    make_model(two_roots[1] / "real")
    link_folder(two_roots[0] / "linked", two_roots[1] / "real")
    assert list(comfy_host.diffusers_folders()) == ["a", "linked", "real"]


def test_a_stray_file_hides_no_folder(comfy_host: Any, two_roots: list[Path]) -> None:
    make_model(two_roots[0] / "a")
    make_model(two_roots[0] / "style" / "comic")
    for folder in (two_roots[0], two_roots[0] / "style"):
        (folder / "model_index.json").write_text("{}")
    assert list(comfy_host.diffusers_folders()) == [".", "a", "style", "style/comic"]


def test_a_stray_config_hides_no_file_of_a_folder(comfy_host: Any) -> None:
    from diffusers_relay.nodes.model_choices import without_insides

    names = ["sub/canny.safetensors", "sub/diffusion_pytorch_model.fp16.safetensors", "sub/model.safetensors"]
    names += ["other/diffusion_pytorch_model.safetensors", "sub/deeper/canny.safetensors", "canny.safetensors"]
    shown = without_insides(dict.fromkeys(names, ""), {"sub": "", ".": ""})
    assert list(shown) == [names[0], *names[3:]]


def test_another_state_whenever_a_file_is_another(comfy_host: Any, two_roots: list[Path]) -> None:
    folder, parts = two_roots[0] / "model", [two_roots[1] / "one", two_roots[1] / "two"]
    make_model(folder)
    for part in parts:
        part.mkdir()
        (part / "config.json").write_text("{}")
        os.utime(part / "config.json", ns=(10**18, 10**18))
    link_folder(folder / "unet", parts[0])
    link_folder(folder / "round", folder)
    states = [comfy_host.state_of_files(str(folder))]

    def changed() -> bool:
        states.append(comfy_host.state_of_files(str(folder)))
        return len(set(states)) == len(states)

    assert comfy_host.state_of_files(str(folder)) == states[0]
    os.utime(parts[0] / "config.json", ns=(10**18, 10**18 + 1000))
    assert changed(), "a file in a linked folder was written"
    os.utime(parts[0] / "config.json", ns=(10**18, 10**18))
    os.rmdir(folder / "unet") if os.name == "nt" else (folder / "unet").unlink()
    link_folder(folder / "unet", parts[1])
    assert changed(), "the link now leads to another file of the same size and time"
    (two_roots[1] / "new").write_text("{}")
    os.utime(two_roots[1] / "new", ns=(10**18, 10**18))
    os.replace(two_roots[1] / "new", parts[1] / "config.json")
    assert changed(), "another file took its place"
    (parts[1] / "more.json").write_text("{}")
    assert changed(), "a file was added"
    (parts[1] / "more.json").unlink()
    (parts[1] / "config.json").unlink()
    assert changed(), "a file was removed"


def test_a_link_to_another_disk_is_a_choice(comfy_host: Any, two_roots: list[Path], tmp_path: Path) -> None:
    """The user made the link; see SECURITY.md."""
    outside = make_model(tmp_path / "another disk" / "model")
    link_folder(two_roots[0] / "linked", outside)
    assert comfy_host.diffusers_folders() == {"linked": str(two_roots[0] / "linked")}


@pytest.mark.parametrize("name", ["../first/a", "/etc", "a/../a", "A", "", "a\0", "a" * 5000])
def test_nothing_but_a_listed_name_is_a_choice(comfy_host: Any, two_roots: list[Path], name: str) -> None:
    make_model(two_roots[0] / "a")
    with pytest.raises(RelayError, match="model: "):
        comfy_host.pick_folder("model", name, comfy_host.diffusers_folders())


def test_auto_is_the_host_s_own_choice(comfy_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.cli_args import args

    assert comfy_host.pick_dtype("auto") is torch.float32, "on a CPU"
    for flag, dtype in (
        ("bf16_unet", torch.bfloat16),
        ("fp16_unet", torch.float16),
        ("fp8_e4m3fn_unet", torch.float32),
        ("fp64_unet", torch.float32),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(args, flag, True)
            assert comfy_host.pick_dtype("auto") is dtype, flag
            assert comfy_host.pick_dtype("float16") is torch.float16, "an explicit choice is used"
    with pytest.raises(RelayError, match="dtype: 'int8'"):
        comfy_host.pick_dtype("int8")


def test_the_host_s_interrupt_passes_through_unchanged(comfy_host: Any) -> None:
    import comfy.model_management as memory

    monitor = comfy_host.HostMonitor("1", lambda: None)
    monitor.check()
    memory.interrupt_current_processing(True)
    with pytest.raises(memory.InterruptProcessingException):
        monitor.progress(1, 10)
    monitor.check()


class RisingBar:
    """Like the progress bar of newer hosts: between its first and its last report, it only sends those above the last one sent."""

    sent: list[tuple[int, int]] = []

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total, self.current, self.last = total, 0, -1

    def update_absolute(self, value: int, total: int, preview: Any = None) -> None:
        self.current, self.total = value, total
        if self.last < 0 or value >= total or value > self.last:
            self.last = value
            self.sent.append((value, total))


def test_a_second_count_in_one_node_is_reported_on_newer_hosts_too(
    comfy_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader counts bytes and then files; a run that is tried again begins with its first step."""
    import comfy.utils

    reports = [(0, 900), (500, 900), (900, 900), (1, 3), (2, 3), (3, 3), (1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr(comfy.utils, "ProgressBar", RisingBar)
    monkeypatch.setattr(RisingBar, "sent", [])
    monitor = comfy_host.HostMonitor("1", lambda: None)
    for done, total in reports:
        monitor.progress(done, total)
    assert RisingBar.sent == reports


def test_previews_are_off_where_the_host_has_them_off(comfy_host: Any, models: SmallModels) -> None:
    from comfy.cli_args import LatentPreviewMethod, args

    from diffusers_relay.nodes.loaders import RelayLoadModel
    from support.without_host import load

    assert args.preview_method == LatentPreviewMethod.NoPreviews
    for name in ("sd15", "kandinsky_decoder"):
        runtime = comfy_host.runtime_for(RelayLoadModel, load(name))
        runtime.monitor.expect_latents()
        assert runtime.monitor._previewer is None


def test_a_missing_name_is_answered_with_the_list_or_with_what_to_add(comfy_host: Any) -> None:
    with pytest.raises(RelayError, match=r"^model: 'b' is not among the models .* It has: a\. Choose one of these"):
        comfy_host.pick_folder("model", "b", {"a": "/a"})
    with pytest.raises(RelayError, match=r"It has none\. Put a diffusers model in models/diffusers\.$"):
        comfy_host.pick_folder("model", "b", {})


def test_a_folder_that_is_removed_while_the_host_runs_has_no_files(
    comfy_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's own list raises FileNotFoundError then, because it remembers the folder."""
    import folder_paths

    folder = tmp_path / "diffusion_models"
    folder.mkdir()
    (folder / "unet.safetensors").touch()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "relay_test", ([str(folder)], {".safetensors"}))
    assert list(comfy_host.model_files("relay_test")) == ["unet.safetensors"]
    shutil.rmtree(folder)
    assert comfy_host.model_files("relay_test") == {}
    assert comfy_host.safetensors_files("relay_test") == []


def test_a_folder_that_only_this_pack_knows_is_registered_once(
    comfy_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import folder_paths

    known = dict(folder_paths.folder_names_and_paths)
    known.pop("ipadapter", None)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    comfy_host.register_folder("ipadapter")
    (tmp_path / "ipadapter" / "more").mkdir(parents=True)
    for name in ("a.safetensors", "more/b.safetensors", "c.bin", "notes.txt"):
        (tmp_path / "ipadapter" / name).write_bytes(b"")
    assert set(comfy_host.model_files("ipadapter")) == {"a.safetensors", "more/b.safetensors", "c.bin"}
    known["ipadapter"] = ([str(tmp_path / "others")], {".safetensors"})
    comfy_host.register_folder("ipadapter")
    assert known["ipadapter"] == ([str(tmp_path / "others")], {".safetensors"}), "another pack's folder stays"
