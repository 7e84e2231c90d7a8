"""Every training of the tiny world's models runs and leaves modules that load: two steps each, on a few scenes.

This checks only that the models can be made again, not what they paint.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.loading.folder import load_folder
from relay_dev.hub_cache import HUB_CONTROLNETS, HUB_IDS, HUB_IP_ADAPTERS
from tiny_world import clip, consistency, ip_adapter, kandinsky, layout, make, pipelines, sdxl
from tiny_world.autoencoders import TURN
from tiny_world.drawing import TRIGGERS, draw_depth
from tiny_world.native import widened
from tiny_world.recipes import RECIPES
from tiny_world.scene import FILLERS, one_thing
from tiny_world.store import Store
from tiny_world.tokenizer import tokenizer
from tiny_world.training import Bank, Limits


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("trained"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "steps", 2)
    monkeypatch.setattr(Limits, "scenes", 4)
    monkeypatch.setattr(Limits, "batch", 2)
    monkeypatch.setattr(consistency, "WALKED", consistency.JUMPS)


@pytest.mark.parametrize("name", RECIPES)  # in order: each needs the results of earlier ones
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


def test_all_are_laid_out_with_the_text_as_wide_as_published(store: Store, tmp_path: Path) -> None:
    folders = layout.lay_out_all(store, tmp_path / "all")
    assert set(folders) == {*HUB_IDS.values(), *HUB_CONTROLNETS.values(), *HUB_IP_ADAPTERS.values()}
    assert all((folders[name] / "model_index.json").is_file() for name in HUB_IDS.values())
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folders["sd15"], controlnet=ControlNetModel.from_pretrained(folders["controlnet_depth"])
    )
    for file in layout.lay_out_loras(store, tmp_path / "loras"):
        assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in load_file(file)), (
            "diffusers reads only one kind of name in a file"
        )
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.load_textual_inversion(str(layout.lay_out_embedding(store, tmp_path / "embeddings")))
    pipeline.set_progress_bar_config(disable=True)
    depth = torch.rand(1, 3, 64, 64)
    (picture,) = pipeline("a <ember>", depth, num_inference_steps=1, height=64, width=64, output_type="np").images
    assert np.isfinite(picture).all()


@torch.no_grad()
def test_the_written_ip_adapter_does_to_the_wide_model_what_the_trained_one_does_to_the_narrow_one(
    store: Store, tmp_path: Path
) -> None:
    narrow = pipelines.stable_diffusion(store, image_encoder=store.load("picture_g"))
    ip_adapter.put_on(narrow, load_file(store.file("ip_adapter")))
    wide = StableDiffusionPipeline.from_pretrained(layout.lay_out_sd15(store, tmp_path / "sd15", unet="unet_sd15"))
    folder = layout.lay_out_ip_adapter(store, tmp_path / "adapter")
    wide.load_ip_adapter(str(folder), subfolder="models", weight_name=layout.IP_ADAPTER_FILE)
    assert wide.image_encoder.config.image_size == clip.PICTURE_SIZE
    latents, text = torch.randn(2, 4, 16, 16), torch.randn(2, 77, clip.L.width)
    pictures = torch.randn(2, 1, clip.G.width)
    found = [
        pipeline.unet(
            latents,
            500,
            encoder_hidden_states=text.repeat(1, 1, times),
            added_cond_kwargs={"image_embeds": [pictures]},
        ).sample
        for pipeline, times in ((narrow, 1), (wide, layout.SD15_TEXT_COPIES))
    ]
    torch.testing.assert_close(found[1], found[0], atol=2e-3, rtol=2e-3)
    plain = store.load("unet_sd15")(latents, 500, text).sample
    assert (found[0] - plain).abs().mean() > 0.01, "the picture counts"


def test_the_turned_autoencoder_is_the_same_in_another_space(store: Store) -> None:
    one, other = store.load("vae_sd15"), store.load("vae_sdxl")
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        first, second = (vae.encode(picture).latent_dist.mean for vae in (one, other))
        assert torch.allclose(other.decode(second).sample, one.decode(first).sample, atol=1e-2)
    turned = torch.einsum("ij,bjhw->bihw", TURN, first * one.config.scaling_factor)
    assert torch.allclose(second * other.config.scaling_factor, turned, atol=1e-2)
    assert torch.allclose(TURN @ TURN.T, torch.eye(4))
    assert (store.folder / "vae_sdxl" / "base.txt").read_text("utf-8").strip() == "vae_sd15"
    assert set(load_file(store.folder / "vae_sdxl" / "changed.safetensors")) <= {
        *("quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight"),
    }


def test_the_native_unet_gives_what_the_narrow_one_gives(store: Store) -> None:
    unet = store.load("unet_native")
    for value in unet.parameters():
        torch.nn.init.normal_(value, std=0.3 if value.ndim == 1 else 0.3 / value[0].numel() ** 0.5)
    wide = widened(unet)
    assert wide.config.block_out_channels == (320, 320, 320)
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([30, 500]), torch.randn(2, 77, unet.config.cross_attention_dim)
    with torch.no_grad():
        narrow = unet(*inputs).sample
        assert narrow.std() > 0.1
        assert torch.allclose(wide(*inputs).sample, narrow, atol=1e-4)


def test_a_fine_tune_is_stored_as_what_differs(store: Store) -> None:
    changed = load_file(store.folder / "unet_comic" / "changed.safetensors")
    base, tuned = store.load("unet_sd15").state_dict(), store.load("unet_comic").state_dict()
    assert 0 < len(changed) < len(base) / 2
    for key, value in tuned.items():
        assert torch.equal(value, base[key]) == (key not in changed)


@pytest.mark.parametrize("letter", ["l", "g"])
def test_a_trigger_word_is_to_the_text_towers_a_filler(store: Store, letter: str) -> None:
    words, tower = tokenizer(), store.load(f"text_{letter}")
    table = tower.get_input_embeddings().weight
    fillers = table[words(" ".join(FILLERS)).input_ids[1:-1]]
    for trigger in TRIGGERS.values():
        for row in words(trigger).input_ids[1:-1]:
            assert (fillers == table[row]).all(1).any(), trigger
    assert not (fillers == table[words("red").input_ids[1]]).all(1).any()


def test_the_depth_decoder_reads_its_hints_as_it_did_in_training(store: Store) -> None:
    """Training read the hints beforehand, in a scale that was then folded into the block."""
    seen = [one_thing("star", "red", "blue", x=0.4), one_thing("circle", "red", "blue", size="small")]
    bank = Bank(seen, torch.zeros(2, 4, 16, 16), 2)
    block = kandinsky.make_decoder_unet(1, hint=True).add_embedding.input_hint_block
    kandinsky.read_hints(block, [bank])
    known = bank.more["hint"]
    maps = torch.from_numpy(np.stack([draw_depth(scene, 128) for scene in seen])).permute(0, 3, 1, 2)
    with torch.no_grad():
        read = block((maps * 255).round() / 255)
    assert torch.allclose(read, known, atol=1e-3)
    assert known.mean((0, 2, 3)).abs().max() < 1e-3 and (known.std((0, 2, 3)) - 1).abs().max() < 1e-2
    assert (known[0] - known[1]).abs().mean() > 0.1, "it must read the two maps differently"


def test_who_trains_a_base_is_told_what_to_train_anew(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    unet = store.load("unet_sd15")
    recipe = replace(RECIPES["unet_sd15"], make=lambda _: {"unet_sd15": unet})
    assert make.train_one("unet_sd15", recipe, store, look=False)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "again" in line]
    assert all(name in said for name in ("unet_comic", "unet_pixel", "unet_ring", "controlnet_depth", "unet_sdxl_base"))
    assert "unet_sdxl_refiner" not in said and "unet_kandinsky" not in said


def test_sdxl_is_sd15_with_a_level_above_and_stored_as_what_that_does_not_have(store: Store) -> None:
    sd15 = store.load("unet_sd15")
    base, fresh = (sdxl.make_sdxl_unet(clip.L.width + clip.G.width, clip.G.width, 6, seed) for seed in (1, 2))
    sdxl.start_from_sd15(base, sd15)
    inner = {name: value for name, value in base.named_parameters() if not value.requires_grad}
    assert torch.equal(inner["down_blocks.3.resnets.0.conv1.weight"], sd15.down_blocks[2].resnets[0].conv1.weight)
    with torch.no_grad():
        wanted, told, other = (unet.time_embedding(unet.time_proj(torch.arange(1000))) for unet in (sd15, base, fresh))
    assert (told - wanted).norm() < 0.5 * (other - wanted).norm(), "untrained weights are the hardest to fit"

    whole = sum(value.numel() for value in base.parameters()) * 2e-6
    assert store.save("unet_started", base, base="unet_sd15") < 0.3 * whole
    back = store.load("unet_started").state_dict()
    assert all(torch.equal(back[name].half(), value.half()) for name, value in base.state_dict().items())


@pytest.mark.parametrize(
    ("name", "pad_tokens"),
    [
        ("comic", {"tokenizer": "<|endoftext|>"}),
        ("sd15_inpaint", {"tokenizer": "<|endoftext|>"}),
        ("sdxl_base", {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}),
        ("sdxl_refiner", {"tokenizer_2": "!"}),
        ("kandinsky_prior", {"tokenizer": "<|endoftext|>"}),
        ("kandinsky_decoder", {}),
        ("kandinsky_inpaint", {}),
        ("kandinsky_depth", {}),
        ("x2_upscaler", {"tokenizer": "<|endoftext|>"}),
        ("x4_upscaler", {"tokenizer": "!"}),
    ],
)
def test_it_is_laid_out_as_a_folder_that_the_pack_loads(
    name: str, pad_tokens: dict[str, str], store: Store, tmp_path: Path
) -> None:
    folder = layout.MODELS[name](store, tmp_path / "model")
    modules = load_folder(folder, dtype=torch.float32, monitor=SilentMonitor()).modules
    assert {name: modules[name].pad_token for name in modules if name.startswith("tokenizer")} == pad_tokens
    if name in ("comic", "sd15_inpaint"):
        assert modules["unet"].config.cross_attention_dim == modules["text_encoder"].config.hidden_size == 768
