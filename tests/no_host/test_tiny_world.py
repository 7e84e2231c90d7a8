"""The tiny world: its pictures, captions and judge, and the steps from training to files."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tiny_world import consistency, drawing, ip_adapter, make, pipelines
from tiny_world.additions import make_controlnet, random_boxes
from tiny_world.autoencoders import fold_scale, make_autoencoder_kl
from tiny_world.clip import G, L, make_text_tower
from tiny_world.drawing import STYLES, TRIGGERS, cover_of, draw, draw_depth
from tiny_world.judge import agrees, edge_strength, look, nearest_color, towards
from tiny_world.kandinsky import INPAINT_CHANNELS, going_on, make_decoder_unet
from tiny_world.noise import IN_MIDDLE, MIDDLE, noise_levels
from tiny_world.recipes import RECIPES
from tiny_world.scene import (
    COLORS,
    FILLERS,
    SHAPES,
    SIZES,
    Scene,
    caption,
    moved,
    one_thing,
    plain_caption,
    random_scene,
    shape_caption,
    vocabulary,
)
from tiny_world.stable_diffusion import Captions, encode, make_unet, token_ids
from tiny_world.store import MODELS, Store
from tiny_world.tokenizer import tokenizer
from tiny_world.training import (
    DEPTH,
    FEW,
    WEIGHT_DECAY,
    Bank,
    Batch,
    Limits,
    Muon,
    Plan,
    Start,
    as_seen,
    drawn,
    pictures,
    scenes,
    train,
)
from tiny_world.widening import text_model, widen_cross_attention, widen_text_encoder

PAIRS = [(thing, ground) for thing, ground in product(COLORS, COLORS) if thing != ground]


def test_the_judge_names_every_shape_in_every_two_colours_at_both_sizes() -> None:
    """On drawings at 64 and 128 pixels, the judge must make no error, or its verdicts on models mean little."""
    wrong = []
    for (color, ground), shape, size, side in product(PAIRS, SHAPES, SIZES, (64, 128)):
        scene = one_thing(shape, color, ground, size=size)
        if not agrees(look(draw(scene, side)), scene):
            wrong.append((color, ground, shape, size, side))
    assert wrong == []


def test_an_outline_is_not_a_thing_s_colour_even_if_most_of_a_thin_thing_is_outline() -> None:
    scene = one_thing("star", "yellow", "purple")
    picture = draw(scene, 256, "comic")
    picture[ndimage.binary_dilation(picture.max(2) < 0.3, iterations=8)] = 0
    assert agrees(look(picture), scene)


def test_a_thing_ends_half_way_between_its_colour_and_the_ground_s() -> None:
    """A faint halo around the thing, as models paint it, isn't part of it."""
    scene = one_thing("star", "yellow", "purple")
    plain = draw(scene, 256)
    halo = ndimage.binary_dilation(cover_of(scene.things[0], 256) > 0.5, iterations=24) & (plain[..., 2] > 0.6)
    picture = plain.copy()
    picture[halo] += 0.3 * (np.array(COLORS["yellow"]) - picture[halo])
    found, wanted = look(picture), look(plain)
    assert agrees(found, scene)
    assert found.things[0].area == pytest.approx(wanted.things[0].area, rel=0.02)


def test_the_judge_sees_where_things_are_and_how_large() -> None:
    rng = random.Random(3)
    for _ in range(40):
        scene = random_scene(rng, two=0, empty=0, anywhere=1)
        thing, seen = scene.things[0], look(draw(scene, 128)).largest
        assert seen is not None
        middle = np.argwhere(cover_of(thing, 128) > 0.5).mean(0) / 128
        assert abs(seen.y - middle[0]) < 0.02 and abs(seen.x - middle[1]) < 0.02
        assert seen.area == pytest.approx(cover_of(thing, 128).mean(), rel=0.2)


def test_the_judge_sees_two_things_and_none() -> None:
    rng = random.Random(5)
    both = [random_scene(rng, two=1, empty=0) for _ in range(60)]
    found = [look(draw(scene, 128)) for scene in both]
    assert all(len(seen.things) == 2 for seen in found)
    for scene, seen in zip(both, found):
        left, right = sorted(seen.things, key=lambda thing: thing.x)
        assert (left.color, right.color) == tuple(thing.color for thing in scene.things)
    assert look(draw(random_scene(rng, empty=1), 64)).things == ()


def test_the_judge_does_not_agree_with_another_scene() -> None:
    scene = one_thing("circle", "red", "blue")
    for changed in (moved(scene, color="orange"), moved(scene, shape="square"), one_thing("circle", "red", "purple")):
        assert not agrees(look(draw(changed, 128)), scene)
    assert agrees(look(draw(moved(scene, shape="square"), 128)), scene, colors_only=True)
    assert not agrees(look(np.zeros((64, 64, 3), np.float32)), scene)


def test_a_scene_is_the_same_picture_at_every_size() -> None:
    for shape, style in product(SHAPES, ("plain", "comic", "ring")):
        scene = one_thing(shape, "red", "green", x=0.4, y=0.55)
        large = draw(scene, 512, style).reshape(64, 8, 64, 8, 3).mean((1, 3))
        assert np.abs(large - draw(scene, 64, style)).mean() < 0.01


def test_styles_differ_and_depth_is_nearer_where_things_are() -> None:
    scene = one_thing("square", "yellow", "purple")
    shown = {style: draw(scene, 64, style) for style in STYLES}
    for one, other in product(STYLES, STYLES):
        assert (one == other) == (np.abs(shown[one] - shown[other]).mean() < 0.01)
    assert set(TRIGGERS) | {"plain"} == set(STYLES)
    depth = draw_depth(scene, 64)
    assert depth[32, 32, 0] > 0.8 and depth[0, 0, 0] < 0.2
    assert draw_depth(moved(scene, size="small"), 64)[32, 32, 0] < depth[32, 32, 0]


def test_colours_lean_and_edges_count() -> None:
    red, blue = draw(one_thing("circle", "red", "white"), 64), draw(one_thing("circle", "blue", "white"), 64)
    assert towards(red, "red") > 2 * towards(blue, "red")
    assert nearest_color(np.array(COLORS["orange"]) * 0.85) == "orange"
    soft = red.reshape(16, 4, 16, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1)
    soft = np.stack([np.convolve(row, np.ones(9) / 9, "same") for row in soft.mean(2)])[..., None].repeat(3, 2)
    assert edge_strength(soft) < edge_strength(red)


def test_captions_say_what_is_there_in_words_that_are_one_token_each() -> None:
    reads = tokenizer()
    words = vocabulary(tuple(TRIGGERS.values()))
    for word in words:
        assert len(reads(word).input_ids) == 3, word
    scene = one_thing("star", "orange", "black", size="small")
    assert plain_caption(scene) == "a small orange star on a black background"
    rng = random.Random(1)
    texts = [caption(scene, rng, "pixelartstyle") for _ in range(300)]
    assert all("pixelartstyle" in text for text in texts)
    assert sum("orange" in text and "black" in text for text in texts) > 200
    assert any("flower" in text for text in texts) and not any("a orange" in text for text in texts)
    for text in texts:
        assert set(text.replace(",", " ").split()) <= set(words), text
    assert any(filler in text for text in texts for filler in FILLERS)


def test_a_widened_encoder_and_its_unet_give_the_same() -> None:
    encoder, unet = make_text_tower(L, 300, 1).eval(), make_unet(L.width, 2).eval()
    ids = torch.randint(0, 299, (2, 77), generator=torch.Generator().manual_seed(3))
    ids[:, -1] = 299
    wide_encoder, wide_unet = widen_text_encoder(encoder, 8), widen_cross_attention(unet, 8)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        narrow, wide = encoder(ids).last_hidden_state, wide_encoder(ids).last_hidden_state
        assert wide.shape == (2, 77, 768)
        torch.testing.assert_close(wide, narrow.repeat(1, 1, 8), atol=1e-5, rtol=1e-5)
        one = unet(latents, 500, narrow).sample
        torch.testing.assert_close(wide_unet(latents, 500, wide).sample, one, atol=1e-5, rtol=1e-5)
        other = unet(latents, 500, narrow.flip(0)).sample
    assert (other - one).abs().max() > 1e-4, "the text counts"


def test_folding_the_scale_changes_latents_and_no_picture() -> None:
    vae = make_autoencoder_kl((8, 8, 8, 8), 0.18215, 5).eval().requires_grad_(False)
    shown = pictures(scenes(1, 2), 64)
    before = vae.encode(shown).latent_dist
    back = vae.decode(before.mean).sample
    fold_scale(vae, 0.18215)
    after = vae.encode(shown).latent_dist
    torch.testing.assert_close(after.mean * 0.18215, before.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.std * 0.18215, before.std, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.decode(after.mean).sample, back, atol=1e-4, rtol=1e-4)


def test_training_lowers_the_loss_and_is_the_same_again() -> None:
    def trained() -> tuple[torch.nn.Module, list[float]]:
        torch.manual_seed(0)
        module, seen = torch.nn.Linear(4, 1), []
        rows = torch.randn(64, 4)

        def loss_of(step: int) -> torch.Tensor:
            loss = ((module(rows) - rows.sum(1, keepdim=True)) ** 2).mean()
            seen.append(loss.item())
            return loss

        return train("a line", module, loss_of, Plan(200, 0.05, 1, warmup=5)), seen

    (one, losses), (other, _) = trained(), trained()
    assert losses[-1] < 0.01 * losses[0]
    assert torch.equal(one.weight, other.weight)
    assert torch.allclose(one.weight, torch.ones(1, 4), atol=0.05), "the average also has the learned weights"


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    module = torch.nn.Linear(1, 1)

    def loss_of(step: int) -> torch.Tensor:
        return module(torch.ones(1, 1)).sum() * (float("nan") if step == 1 else 1.0)

    with pytest.raises(RuntimeError, match="broken: the loss is nan at step 1"):
        train("broken", module, loss_of, Plan(3, 0.1, 1))


def test_a_training_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    module, steps = torch.nn.Linear(1, 1), []

    def loss_of(step: int) -> torch.Tensor:
        steps.append(step)
        time.sleep(0.02)
        return module(torch.ones(1, 1)).sum()

    monkeypatch.setattr(Limits, "seconds", 0.3)
    train("short", module, loss_of, Plan(300, 0.1, 1))
    assert 2 < len(steps) < 100


def test_muon_does_what_torchs_does_but_for_half_precision() -> None:
    torch.manual_seed(2)
    shapes = [(12, 40), (40, 12), (12, 40)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(value.detach().clone()) for value in ours]
    before = [value.detach().clone() for value in ours]
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    muon = Muon(ours)
    for _ in range(5):
        for one, other in zip(ours, theirs):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        muon.step(0.01)
        reference.step()
    for one, other, first in zip(ours, theirs, before):
        assert (one - first).abs().mean() > 20 * (one - other).abs().mean()


def test_many_pictures_are_drawn_as_few_are() -> None:
    of = scenes(FEW + 6, 4, two=0.5)
    for style in (*STYLES, DEPTH):
        many = torch.cat(list(drawn(of, 32, style)))
        assert many.shape == (FEW + 6, 32, 32, 3) and many.dtype == torch.uint8
        assert torch.equal(many[-6:], torch.cat(list(drawn(of[-6:], 32, style))))
    one = draw(of[0], 32)
    assert np.abs(as_seen(next(drawn(of[:1], 32)))[0].permute(1, 2, 0).numpy() / 2 + 0.5 - one).max() < 0.5 / 255 + 1e-6


def test_only_where_a_thing_is_is_worked_on_and_nothing_of_it_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    of, size = scenes(150, 8, two=0.4, anywhere=0.6), 96

    def all_of_them() -> dict[str, np.ndarray]:
        found = {style: np.stack([draw(scene, size, style) for scene in of]) for style in STYLES}
        return {**found, DEPTH: np.stack([draw_depth(scene, size) for scene in of])}

    boxed = all_of_them()
    monkeypatch.setattr(drawing, "_box", lambda thing, size: drawing.EVERYWHERE)
    for style, pictures_of_all in all_of_them().items():
        assert np.abs(pictures_of_all - boxed[style]).max() < 1e-5, style


def test_a_sentence_of_each_scene_is_picked_and_some_are_left_out() -> None:
    reads = tokenizer()
    of = scenes(30, 6, two=0.3, empty=0)
    bank = Bank(of, torch.zeros(30, 4, 8, 8), 400)
    captions = Captions(reads, 1, partial(caption, style="pixelartstyle"))
    batch = bank.pick()
    ids, kept = captions.pick(batch)
    assert ids.shape == (400, 77) and 0.75 < kept.float().mean() < 0.98
    texts = reads.batch_decode(ids, skip_special_tokens=True)
    for text, stays, row in zip(texts, kept.tolist(), batch.rows.tolist()):
        assert ("pixelartstyle" in text) == stays
        assert not stays or any(
            word in text for word in (of[row].background, of[row].things[0].color, *_words(of[row]))
        )
    assert torch.equal(ids[~kept], token_ids(reads, [""]).expand(int((~kept).sum()), -1))


def test_a_mistaken_caption_speaks_of_another_picture() -> None:
    of = [one_thing(shape, color, "black") for shape in SHAPES for color in ("red", "green")]
    bank = Bank(of, torch.zeros(len(of), 4, 8, 8), len(of))
    rows = torch.arange(len(of))
    mistaken = rows % 2 == 0
    batch = Batch(bank, rows).mistaken(mistaken)
    assert torch.equal(batch.told[~mistaken], rows[~mistaken])
    assert not (batch.told[mistaken] == rows[mistaken]).any()
    alone = Batch(bank, rows[:1]).mistaken(mistaken[:1])
    assert alone.told != 0 and alone.rows == 0, "also in a batch of one picture"
    ids, kept = Captions(tokenizer(), 1).pick(batch)
    texts = tokenizer().batch_decode(ids, skip_special_tokens=True)
    assert any(kept)
    for text, stays, told in zip(texts, kept.tolist(), batch.told.tolist()):
        assert not stays or not ({"red", "green"} - {of[told].things[0].color}) & set(text.split())


def test_a_limit_is_of_fewer_pictures_where_they_are_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "batch", 8)
    of = scenes(30, 6)
    counts = [len(Bank(of, torch.zeros(30, 4, side, side), 20).pick().rows) for side in (16, 32, 64, 128)]
    assert counts == [8, 8, 2, 1]
    assert len(Bank(of, torch.zeros(30, 96), 20).pick().rows) == 8


def test_most_noise_levels_are_in_the_middle_and_none_beyond_the_end() -> None:
    torch.manual_seed(4)
    found = noise_levels((0, 600), 2000)
    assert 0 <= found.min() < 30 and 570 < found.max() <= 599
    low, high = MIDDLE
    assert ((found >= 600 * low) & (found < 600 * high)).float().mean() > IN_MIDDLE + 0.1


def _words(scene: Scene) -> list[str]:
    return [word for thing in scene.things for word in (thing.shape, *SHAPES[thing.shape])]


def test_boxes_are_boxes_and_a_quarter_of_them_everything() -> None:
    torch.manual_seed(3)
    masks = random_boxes(torch.zeros(400, 4, 16, 16))[:, 0]
    everything = masks.mean((1, 2)) == 1
    assert 0.15 < everything.float().mean() < 0.4
    for mask in masks[~everything][:50]:
        rows, columns = mask.amax(1), mask.amax(0)
        assert torch.equal(mask, rows[:, None] * columns[None])
        assert (rows.diff().abs().sum() <= 2) and (columns.diff().abs().sum() <= 2)
        assert 0.2 < rows.mean() < 1.01 and 0.2 < columns.mean() < 1.01


def test_a_decoder_for_inpainting_begins_as_the_plain_one() -> None:
    """At first it ignores everything except the noise."""
    plain = make_decoder_unet(1).eval()
    wide = going_on(make_decoder_unet(2, channels=INPAINT_CHANNELS), plain).eval()
    latents, extra = torch.randn(2, 4, 16, 16), torch.randn(2, INPAINT_CHANNELS - 4, 16, 16)
    given = {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": torch.randn(2, G.width)}}
    with torch.no_grad():
        one = plain(latents, 500, **given).sample
        other = wide(torch.cat([latents, extra], 1), 500, **given).sample
    assert one.std() > 0.01
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    learns = {name.split(".")[0] for name, value in wide.named_parameters() if value.requires_grad}
    assert "conv_in" in learns and "mid_block" not in learns


def test_what_is_trained_waits_for_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each runs in a separate process; models that depend on a failed one are skipped, and the others continue."""
    log = tmp_path / "log"
    program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' '); sys.exit(sys.argv[2] == 'prior')"
    real = subprocess.Popen

    def started(command: list[str]) -> subprocess.Popen[bytes]:
        assert command[1:3] == ["-m", "tiny_world.make"] and command[4:] == ["--steps", "5"]
        return real([sys.executable, "-c", program, str(log), command[3]])

    monkeypatch.setattr(make.subprocess, "Popen", started)
    names = ["unet_kandinsky", "prior", "unet_comic", "clip_g", "unet_sd15"]
    assert make.run_all(names, Store(tmp_path), 3, ["--steps", "5"]) == 1
    order = log.read_text("utf-8").split()
    assert sorted(order) == sorted(["prior", "clip_g", "unet_sd15", "unet_comic"])
    assert order.index("clip_g") < order.index("prior") and order.index("unet_sd15") < order.index("unet_comic")
    said = capfd.readouterr().err
    assert "prior FAILED" in said and "unet_kandinsky is skipped: prior failed" in said


def test_options_of_a_training_go_on_and_names_do_not() -> None:
    given = ["--seconds", "100", "prior", "clip_g", "--missing", "--seconds", "prior=7", "--jobs", "2"]
    assert make.passed_on(given, ["prior", "clip_g"]) == ["--seconds", "100", "--seconds", "prior=7", "--jobs", "2"]
    limits = [make.limit("100"), make.limit("prior=7")]
    assert [make.seconds_of(name, limits) for name in ("prior", "clip_g")] == [7, 100]
    assert make.seconds_of("prior", []) == math.inf
    with pytest.raises(SystemExit):
        make.main(["prior", "--seconds", "clip_g"])


def test_a_training_goes_on_from_what_there_is_once() -> None:
    """The second of a model's two trainings continues from the first."""
    layer, known = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3).state_dict()
    still = Plan(1, 0.0, 1)
    Start.weights = known
    first = train("first", layer, lambda step: layer(torch.ones(1, 2)).sum(), still).state_dict()
    assert all(torch.equal(first[name], value) for name, value in known.items())
    torch.nn.init.zeros_(layer.weight)
    assert not train("second", layer, lambda step: layer(torch.ones(1, 2)).sum(), still).weight.any()
    Start.weights = known
    with pytest.raises(RuntimeError, match="size mismatch"):
        train("another", torch.nn.Linear(5, 3), lambda step: torch.zeros(()), still)


@pytest.mark.parametrize("name", ["clip_g", "lora_pixel", "vae_sdxl"])
def test_what_is_not_one_trained_module_does_not_go_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make.main([name, "unet_sd15", "--go-on"])
    assert f"--go-on: {name} can't" in capsys.readouterr().err


def test_what_is_stored_is_half_as_large_and_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tower = make_text_tower(L, 300, 7).eval()
    assert not store.has("text_l")
    store.save("text_l", tower)
    assert store.has("text_l")
    back = store.load("text_l")
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value.half().float())
    assert {file.suffix for file in (tmp_path / "text_l").iterdir()} == {".json", ".safetensors"}
    plain = text_model(back)
    ids = torch.tensor([[298, 5, 6, 299] + [299] * 73])
    torch.testing.assert_close(encode_ids(plain, ids), encode_ids(back, ids))


def encode_ids(tower: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return tower(ids).last_hidden_state  # type: ignore[no-any-return]


def test_encoding_is_the_pipelines() -> None:
    reads = tokenizer()
    tower = make_text_tower(L, len(reads), 9).eval()
    with torch.no_grad():
        found = encode(reads, tower, ["a red circle", ""])
    assert found.shape == (2, 77, L.width)
    assert not torch.allclose(found[0], found[1])


@torch.no_grad()
def test_a_controlnet_reads_its_map_from_the_start_and_adds_nothing_yet() -> None:
    """As diffusers initialises it, it reads 0 from the map, and training takes long to find out that there is one."""
    controlnet = make_controlnet(make_unet(96, 1), 2)
    maps = [
        torch.from_numpy(draw_depth(one_thing("star", "red", "blue", x=x), 256)).permute(2, 0, 1)[None]
        for x in (0.3, 0.7)
    ]
    left, right = (controlnet.controlnet_cond_embedding(depth) for depth in maps)
    assert 0.5 < left.std() < 2
    assert (left - right).abs().mean() > 0.2
    down, middle = controlnet(torch.randn(1, 4, 32, 32), 500, torch.randn(1, 77, 96), maps[0], return_dict=False)
    assert not any(part.any() for part in (*down, middle))


@pytest.mark.parametrize("size", SIZES)
def test_an_edge_is_as_sharp_on_a_small_thing_as_on_a_large_one(size: str) -> None:
    """An edge is also sharper as drawn than scaled up, where it spans more pixels."""
    scene = one_thing("circle", "red", "blue", size=size)
    drawn = draw(scene, 256)
    half = Image.fromarray((draw(scene, 128) * 255).round().astype(np.uint8))
    scaled = np.asarray(half.resize((256, 256), Image.Resampling.BICUBIC)) / 255
    assert edge_strength(drawn) > 1.3 * edge_strength(scaled)
    assert edge_strength(drawn) == pytest.approx(edge_strength(draw(one_thing("circle", "red", "blue"), 256)), rel=0.1)


def test_a_caption_of_the_shape_says_no_colour() -> None:
    rng = random.Random(2)
    for scene in scenes(200, 3, two=0.3, empty=0):
        words = shape_caption(scene, rng).split()
        assert not {*COLORS} & set(words)
        assert all({thing.shape, *SHAPES[thing.shape]} & set(words) for thing in scene.things)


@torch.no_grad()
def test_an_ip_adapter_s_files_do_in_the_unet_what_its_layers_did_in_training() -> None:
    """The layers were trained outside of the UNet. Loaded by diffusers, they must add the same."""
    store = Store()
    pipeline = pipelines.stable_diffusion(store, image_encoder=store.load("picture_g"))
    adapter = ip_adapter.Adapter(pipeline, 3)
    torch.nn.init.normal_(adapter.norm.bias)
    assert adapter.numbers == [1, 3, 5, 7, 9, 11, 13], "the numbers in published files"
    asked = [torch.randn(1, 6, key.shape[0]) for key in adapter.keys]
    shown = torch.randn(1, G.width)
    ip_adapter.put_on(pipeline, adapter.tensors())
    tokens = pipeline.unet.encoder_hid_proj([shown[None]])
    for (_, layer), query, added in zip(ip_adapter.layers_of(pipeline.unet), asked, adapter(shown, asked)):
        layer.to_q, layer.to_out[0] = torch.nn.Identity(), torch.nn.Identity()
        text = torch.randn(1, 77, L.width)
        with_picture = layer(query, encoder_hidden_states=(text, tokens))
        alone = ip_adapter.attend(query, layer.to_k(text), layer.to_v(text), layer.heads)
        torch.testing.assert_close(with_picture - alone, added, atol=5e-3, rtol=5e-3)


@torch.no_grad()
def test_what_a_text_adds_is_noted_in_each_layer_and_the_unet_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "scenes", 3)
    monkeypatch.setattr(ip_adapter, "NOTHING", 1.0)
    store = Store()
    pipeline = pipelines.stable_diffusion(store, image_encoder=store.load("picture_g"))
    usual = {name: type(one) for name, one in pipeline.unet.attn_processors.items()}
    nothing = ip_adapter.watch(pipeline, 4)
    assert not nothing.pictures.any() and not any(added.any() for added in nothing.added)
    monkeypatch.setattr(ip_adapter, "NOTHING", 0.0)
    watched = ip_adapter.watch(pipeline, 4)
    assert [tuple(one.shape) for one in watched.asked] == [tuple(one.shape) for one in watched.added]
    assert all(added.square().mean() > 0.05 for added in watched.added)
    assert {name: type(one) for name, one in pipeline.unet.attn_processors.items()} == usual


def test_points_for_the_lcm_are_on_the_path_and_half_where_four_steps_begin() -> None:
    torch.manual_seed(6)
    points = consistency.points_of(2000)
    assert set(points.tolist()) == set(range(consistency.WALKED))
    begin = torch.isin(points, torch.tensor([0, 5, 10, 15]))
    assert 0.5 < begin.float().mean() < 0.7


@torch.no_grad()
def test_a_path_ends_where_the_teacher_alone_would_have_ended() -> None:
    pipeline = pipelines.stable_diffusion(Store())
    paths = consistency.walk(pipeline, 64, 1, 1, 1.0, seed=5)
    assert paths.latents.shape == (1, consistency.WALKED + 1, 4, 8, 8)
    assert paths.times[0] == 999 and (paths.times.diff() < 0).all()
    again = pipeline(
        prompt_embeds=paths.states,
        negative_prompt_embeds=encode(pipeline.tokenizer, pipeline.text_encoder, [""]),
        latents=paths.latents[:, 0],
        num_inference_steps=consistency.WALKED,
        guidance_scale=consistency.GUIDANCE,
        output_type="latent",
    ).images
    torch.testing.assert_close(again, paths.latents[:, -1], atol=1e-5, rtol=1e-5)


MOST_MB = 26


def test_every_model_is_there_and_together_they_are_small() -> None:
    """They are in float16, and there are only safetensors files and configs."""
    lacking = [part for recipe in RECIPES.values() for part in recipe.makes if not Store().has(part)]
    assert not lacking
    files = [file for file in MODELS.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json", ".txt"}
    assert sum(file.stat().st_size for file in files) < MOST_MB * 1e6
