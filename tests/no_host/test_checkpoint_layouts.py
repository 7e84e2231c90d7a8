"""The table of checkpoint layouts: every row is complete, and a new one is enough to load a new kind of file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.loading import checkpoint_kinds, checkpoint_place
from diffusers_relay.pipelines.loading.checkpoint_layout import CONFIGS, CheckpointLayout
from diffusers_relay.pipelines.loading.checkpoint_table import LAYOUTS
from diffusers_relay.pipelines.model.family_lookup import recognise
from support.checkpoints import SmallCheckpoints, open_checkpoint, write_file


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.configs)
def test_a_row_has_everything_that_its_family_needs(layout: CheckpointLayout) -> None:
    folder = CONFIGS / layout.configs
    family = recognise(json.loads((folder / "model_index.json").read_text("utf-8")), layout.title)
    kinds = {name: classes.kind for name, classes in family.components.items()}
    assert set(layout.components) == {name for name, kind in kinds.items() if kind == "model"}
    assert set(layout.vocabularies) == {name for name, kind in kinds.items() if kind == "tokenizer"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {"controlnet"} == set(kinds)


RENAMED = {
    "model.diffusion_model.": "my_unet.",
    "cond_stage_model.transformer.": "my_text.",
}


def test_a_new_layout_is_one_row(small: SmallCheckpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = load_file(small.file("sd15"))
    for old, new in RENAMED.items():
        weights = {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in weights.items()}
    file = write_file(tmp_path / "mine.safetensors", weights)

    def load(path: Path) -> dict[str, object]:
        return dict(open_checkpoint(small, path).modules)

    with pytest.raises(RelayError, match="is only a VAE"):
        load(file)

    (sd15,) = (layout for layout in LAYOUTS if layout.configs == "sd15")
    places = {
        "unet": ("model.diffusion_model.", "my_unet."),
        "text_encoder": (*sd15.components["text_encoder"].places, "my_text."),
    }
    mine = replace(
        sd15,
        denoiser=replace(sd15.denoiser, place="my_unet."),
        signs=(("my_text.",),),
        components=sd15.components | {name: replace(sd15.components[name], places=of) for name, of in places.items()},
    )
    monkeypatch.setattr(checkpoint_kinds, "LAYOUTS", (*LAYOUTS, mine))
    for module in (checkpoint_kinds, checkpoint_place):
        monkeypatch.setattr(module, "DENOISER_LAYOUTS", (sd15.denoiser, mine.denoiser))
    theirs = load(small.file("sd15"))
    for name, module in load(file).items():
        if isinstance(module, torch.nn.Module):
            state, expected = module.state_dict(), theirs[name].state_dict()  # type: ignore[attr-defined]
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], expected[key]) for key in expected)
