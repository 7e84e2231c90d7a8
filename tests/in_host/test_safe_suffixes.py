"""Both safetensors suffixes are accepted in every host folder; any other file is reported as a pickle, with the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusers_relay.pipelines.base.errors import RelayError

KINDS = {
    "loras": "lora",
    "embeddings": "embedding",
    "vae": "vae_file",
    "checkpoints": "model",
    "controlnet": "controlnet",
}
SAFE = ("a.safetensors", "b.sft", "sub/C.SFT")
PICKLES = ("d.pt", "e.ckpt", "f.bin")


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import folder_paths

    kind = request.param
    extensions = folder_paths.folder_names_and_paths[kind][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path)], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    (tmp_path / "sub").mkdir()
    for name in (*SAFE, *PICKLES):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(("folder", "kind"), [(kind, kind) for kind in KINDS], indirect=["folder"])
def test_every_folder_lists_both_names(folder: Path, kind: str) -> None:
    from diffusers_relay.nodes import comfy_host, model_choices

    if kind in ("checkpoints", "controlnet"):
        files = comfy_host.model_files(kind)
        assert set(model_choices.shown({}, files)) == set(SAFE)
        for name in SAFE:
            picked = model_choices.pick("model", name, {}, files, "models", "none")
            assert picked == folder / name
        return
    assert {name.replace("\\", "/") for name in comfy_host.safetensors_files(kind)} == set(SAFE)
    for name in comfy_host.safetensors_files(kind):
        assert Path(comfy_host.pick_file(KINDS[kind], name, kind)).is_file()
        assert comfy_host.state_of_file(kind, name) != "missing"
    for name in PICKLES:
        says = rf"^{KINDS[kind]}: '{name}' is a pickle.*convert_pickle\.py"
        with pytest.raises(RelayError, match=says):
            comfy_host.pick_file(KINDS[kind], name, kind)


def test_the_list_is_declared_once() -> None:
    from diffusers_relay.pipelines.files import safetensors as safetensors_file

    pack = Path(safetensors_file.__file__).parents[2]
    sources = [path for part in ("nodes", "pipelines", "weighting") for path in (pack / part).rglob("*.py")]
    named: list[Any] = [path.name for path in sources if '".sft"' in path.read_text(encoding="utf-8")]
    assert named == ["safetensors.py"]
