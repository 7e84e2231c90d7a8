"""Every training of the tiny world's models runs, and leaves modules that can be loaded: two steps each, on a few scenes.

What the trained models paint is another matter; that they can be made anew is what this holds.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tiny_world.recipes import RECIPES
from tiny_world.store import Store
from tiny_world.training import Limits


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("trained"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "steps", 2)
    monkeypatch.setattr(Limits, "scenes", 4)


@pytest.mark.parametrize("name", RECIPES)  # in their order: each needs what those before it made
def test_it_trains_and_is_stored(name: str, store: Store) -> None:
    recipe = RECIPES[name]
    assert all(store.has(need) for need in recipe.needs)
    made = recipe.make(store)
    assert tuple(made) == recipe.makes
    for part, result in made.items():
        if isinstance(result, dict):
            store.save_tensors(part, result)
            back = load_file(store.file(part))
        else:
            store.save(part, result, base=recipe.base)
            back = store.load(part).state_dict()
            assert set(back) == set(result.state_dict())
            json.loads((store.folder / part / "config.json").read_text("utf-8"))
        assert all(torch.isfinite(value).all() for value in back.values())


def test_a_fine_tune_is_stored_as_what_differs(store: Store) -> None:
    changed = load_file(store.folder / "unet_comic" / "changed.safetensors")
    base, tuned = store.load("unet_sd15").state_dict(), store.load("unet_comic").state_dict()
    assert 0 < len(changed) < len(base) / 2
    for key, value in tuned.items():
        assert torch.equal(value, base[key]) == (key not in changed)
