"""Equal pictures and prompts are encoded once, bit for bit; different ones are encoded again; the cache keeps no model in memory."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.adapters.textual_inversion import with_textual_inversion
from diffusers_relay.pipelines.base import encoded_once
from diffusers_relay.pipelines.base.encoded_once import ENCODED, EncodedOnce, EncodingKey, tensor_digest
from diffusers_relay.pipelines.base.images import Extent, to_pixels
from diffusers_relay.pipelines.control.kandinsky_hint import make_hint, take_hint
from diffusers_relay.pipelines.control.units import ControlNet, fit_picture, make_unit
from diffusers_relay.pipelines.device.offload import Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.families.kandinsky22_prior import PriorSettings, embed_image, run_prior
from diffusers_relay.pipelines.latents.autoencoder import Autoencoder, autoencoder_of
from diffusers_relay.pipelines.latents.encode_decode import decode
from diffusers_relay.pipelines.latents.encode_decode import encode as encode_image
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import PromptEmbeds
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.pipelines.runs.sampling import (
    ImageToImageSettings,
    TextToImageSettings,
    generators,
    image_to_image,
    text_to_image,
)
from diffusers_relay.weighting.compel_encoder import encode_prompt
from diffusers_relay.weighting.conditioning import to_conditioning
from diffusers_relay.weighting.prior_encoder import encode_for_prior
from reference.scripts import read_like_host, soft_picture
from relay_dev.model_folders import SmallModels
from support.without_host import ListeningMonitor, counting_runtime, load

pytestmark = pytest.mark.usefixtures("inference_mode")


def picture(seed: int = 271) -> torch.Tensor:
    return read_like_host(soft_picture(seed=seed))


def text(model: PipelineComponents, prompt: str, runtime: Runtime, negative: str = "", **how: Any) -> PromptEmbeds:
    how = {"syntax": "compel", **how}
    return encode_prompt(model, prompt, negative, runtime=runtime, **how)


# --- pictures


@pytest.mark.parametrize(
    ("name", "dtype"), [("sd15", "float32"), ("sdxl_base", "float16"), ("kandinsky_decoder", "float32")]
)
def test_a_strength_sweep_encodes_once_and_keeps_every_bit(name: str, dtype: str) -> None:
    from support.kandinsky import kandinsky_prompt

    model = load(name, getattr(torch, dtype))
    runtime = counting_runtime()
    prompt = kandinsky_prompt() if name.startswith("kandinsky") else text(model, "a red cat", runtime)

    def run(strength: float, seed: int) -> torch.Tensor:
        settings = ImageToImageSettings(strength, 5, 4.0, seed)
        return image_to_image(model, prompt, settings, runtime, image=picture()).samples

    wanted = [(0.4, 3), (0.6, 3), (0.8, 3), (0.8, 4)]
    swept = [run(*one) for one in wanted]
    assert runtime.policy.stages[Stage.VAE] == 1
    for one, before in zip(wanted, swept):
        ENCODED.clear()
        assert torch.equal(run(*one), before)
    assert runtime.policy.stages[Stage.VAE] == 1 + len(wanted)


def test_the_draw_is_the_seed_s() -> None:
    runtime = counting_runtime()
    first, same, other = (encode_image(load("sd15"), picture(), seed, runtime).samples for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert runtime.policy.stages[Stage.VAE] == 1


def encodes(autoencoder: Autoencoder, image: torch.Tensor) -> int:
    runtime = counting_runtime()
    autoencoder.encode(to_pixels(image, autoencoder.factor), runtime.policy, generators(0, range(image.shape[0])))
    return runtime.policy.stages[Stage.VAE]


def test_what_differs_is_encoded_anew() -> None:
    sd15 = autoencoder_of(load("sd15"))
    assert encodes(sd15, picture()) == 1
    assert encodes(sd15, picture()) == 0
    changed = picture()
    changed[0, 5, 7, 1] += 1 / 255
    assert encodes(sd15, changed) == 1, "one value of one pixel has changed"
    assert encodes(sd15, picture()[:, :, :32]) == 1, "a part of the picture"
    assert encodes(autoencoder_of(load("sd15_vae_moved")), picture()) == 1, "another VAE"
    assert encodes(Autoencoder(copy.deepcopy(sd15.module), "a copy", False), picture()) == 1
    assert encodes(autoencoder_of(load("sd15", torch.float16)), picture()) == 1, "another dtype"
    half = load("sdxl_base", torch.float16)["vae"]
    assert encodes(Autoencoder(half, "in float32", True), picture()) == 1
    assert encodes(Autoencoder(half, "in float16", False), picture()) == 1
    try:
        sd15.module.enable_tiling()
        assert encodes(sd15, picture()) == 1
    finally:
        sd15.module.disable_tiling()
    assert encodes(sd15, picture()) == 0


def test_each_picture_of_a_batch_is_one() -> None:
    sd15 = autoencoder_of(load("sd15"))
    calls: list[int] = []
    handle = sd15.module.encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        assert encodes(sd15, torch.cat([picture(1), picture(2), picture(1)])) == 1
        assert len(calls) == 2
        assert encodes(sd15, torch.cat([picture(2), picture(3)])) == 1
        assert len(calls) == 3
        assert encodes(sd15, torch.cat([picture(3), picture(1)])) == 0
    finally:
        handle.remove()
    runtime = counting_runtime()
    batch = torch.cat([picture(3), picture(1)])
    found = sd15.encode(to_pixels(batch, 8), runtime.policy, generators(5, range(2)))
    ENCODED.clear()
    assert torch.equal(found, sd15.encode(to_pixels(batch, 8), runtime.policy, generators(5, range(2))))


def test_who_changes_a_latent_changes_nobody_else_s() -> None:
    for name in ("sd15", "kandinsky_decoder"):
        autoencoder, pixels = autoencoder_of(load(name)), to_pixels(picture(), 8)
        first = autoencoder.encode(pixels, counting_runtime().policy)
        before = first.clone()
        first.zero_()
        again = autoencoder.encode(pixels, counting_runtime().policy)
        again.zero_()
        assert torch.equal(autoencoder.encode(pixels, counting_runtime().policy), before), name


# --- prompts


def test_a_prompt_is_encoded_once_with_the_same_bits() -> None:
    for name in ("sd15", "sdxl_base", "sdxl_refiner"):
        model, runtime = load(name), counting_runtime()
        first, again = (text(model, "a red cat", runtime, "dog") for _ in range(2))
        plain = text(model, "a red cat", runtime, "dog", syntax="plain")
        assert runtime.policy.stages[Stage.TEXT] == 1, "both syntaxes read the same text"
        ENCODED.clear()
        recomputed = text(model, "a red cat", runtime, "dog")
        for one in (again, plain, recomputed):
            for ours, theirs in ((one.positive, first.positive), (one.negative, first.negative)):
                assert torch.equal(ours.hidden, theirs.hidden)
                assert ours.pooled is theirs.pooled is None or torch.equal(ours.pooled, theirs.pooled)
            assert one.mark.is_same(first.mark)


def test_what_changes_a_prompt_is_encoded_anew(models: SmallModels) -> None:
    model, runtime = load("sd15"), counting_runtime()
    lora = models.models / "loras" / "sd15_kohya.safetensors"
    word = models.models / "embeddings" / "badhands.safetensors"

    def adapted(strength: float, text_strength: float) -> PipelineComponents:
        return with_lora(model, lora, title=lora.name, strength=strength, text_strength=text_strength)

    full, half = adapted(1, 1), adapted(1, 0.5)
    cases: list[Callable[[], PromptEmbeds]] = [
        lambda: text(model, "a badhands cat", runtime),
        lambda: text(model, "a badhands cat", runtime, "dog"),
        lambda: text(model, "a badhands++ cat", runtime),
        lambda: text(model, "a badhands cat", runtime, clip_skip=1),
        lambda: text(load("comic"), "a badhands cat", runtime),
        lambda: text(load("sd15", torch.float16), "a badhands cat", runtime),
        lambda: text(full, "a badhands cat", runtime),
        lambda: text(half, "a badhands cat", runtime),
        lambda: text(with_textual_inversion(model, word, title=word.name, token="badhands"), "a badhands cat", runtime),
    ]
    made = []
    for count, case in enumerate(cases):
        made.append(case())
        assert runtime.policy.stages[Stage.TEXT] == count + 1, count
    for one, case in list(zip(made, cases))[:-1]:  # the last one changes a tokenizer again
        assert torch.equal(case().positive.hidden, one.positive.hidden)
    text(adapted(0.3, 1), "a badhands cat", runtime)
    text(adapted(0.3, 0), "a badhands cat", runtime)
    assert runtime.policy.stages[Stage.TEXT] == len(cases), (
        "the LoRA's strength in the denoiser doesn't affect the text"
    )


def test_a_zeroed_negative_is_not_an_encoded_one() -> None:
    model, runtime = load("sdxl_base"), counting_runtime()
    other = model.with_changes(config={"force_zeros_for_empty_prompt": False})
    assert not text(model, "a", runtime).negative.hidden.any()
    assert text(other, "a", runtime).negative.hidden.any()


def test_the_prior_s_text_and_picture() -> None:
    prior, runtime = load("kandinsky_prior"), counting_runtime()

    def read(prompt: str) -> Any:
        return encode_for_prior(prior, prompt, "dog", syntax="compel", runtime=runtime)

    long = ", ".join(["a red cat on a blue sofa"] * 30)
    first, again = read(long), read(long)
    assert runtime.policy.stages[Stage.TEXT] == 1
    assert torch.equal(first.prompt.hidden, again.prompt.hidden)
    assert len(runtime.monitor.said) == 2, "the note about a long text is shown every time"
    embeds = [embed_image(prior, picture(seed), runtime) for seed in (1, 1, 2)]
    assert runtime.policy.stages[Stage.DENOISE] == 2
    assert torch.equal(embeds[0].positive, embeds[1].positive)
    assert not torch.equal(embeds[0].positive, embeds[2].positive)


# --- control pictures


def test_a_control_picture_is_fitted_once_for_a_size() -> None:
    unit, hits = make_unit(ControlNet("a", None), picture()), ENCODED.hits["control picture"]
    wide, again = fit_picture(unit, Extent(96, 64)), fit_picture(unit, Extent(96, 64))
    assert torch.equal(wide.image, again.image)
    assert fit_picture(unit, Extent(64, 96)).image.shape == (1, 96, 64, 3)
    hint = make_hint(picture())
    depth = load("kandinsky_depth")
    (one,), (two,) = (take_hint((hint,), depth, Extent(128, 64), batch)[0] for batch in (1, 2))
    assert torch.equal(one.depth.expand(2, -1, -1, -1), two.depth)
    assert ENCODED.hits["control picture"] - hits == 2
    assert len(ENCODED) == 3
    del unit, wide, again
    gc.collect()
    assert len(ENCODED) == 1, "they are stored with the unit"


# --- outputs


def decoded_image(runtime: Runtime) -> list[torch.Tensor]:
    model = load("sd15")
    settings = TextToImageSettings(64, 64, 2, 2, 4.0, 3)
    latents = text_to_image(model, text(model, "a red cat", runtime), settings, runtime)
    return [latents.samples, decode(model, latents, tiled=False, runtime=runtime)]


def conditioning(name: str, runtime: Runtime) -> list[torch.Tensor]:
    embeds = text(load(name), "a (red:1.2) cat", runtime, "dog", syntax="a1111")
    values = [to_conditioning(one)[0] for one in (embeds.positive, embeds.negative)]
    return [tensor for hidden, extras in values for tensor in (hidden, extras["pooled_output"])]


def prompt_values(name: str, runtime: Runtime) -> list[torch.Tensor]:
    embeds = text(load(name), "a red cat", runtime, "dog")
    return [
        one
        for side in (embeds.positive, embeds.negative)
        for one in vars(side).values()
        if isinstance(one, torch.Tensor)
    ]


def mixed(runtime: Runtime) -> list[torch.Tensor]:
    a, b = (text(load("sdxl_base"), prompt, runtime) for prompt in ("a cat", "a dog"))
    both = [mix(a, b, weight) for weight in (0.0, 1.0)]
    return [one for prompt in both for one in (prompt.positive.hidden, prompt.positive.pooled)]


def prior_values(runtime: Runtime) -> list[torch.Tensor]:
    prior = load("kandinsky_prior")
    read = encode_for_prior(prior, "a cat", "dog", syntax="compel", runtime=runtime)
    made = run_prior(prior, read, PriorSettings(2, 4.0, 1, 1.0), runtime)
    seen = embed_image(prior, picture(), runtime)
    return [made.positive, made.negative, seen.positive, seen.negative, read.prompt.hidden, read.empty.pooled]


UNIT, HINT = make_unit(ControlNet("a", None), picture()), make_hint(picture())


def control_pictures(runtime: Runtime) -> list[torch.Tensor]:
    (hint,), _ = take_hint((HINT,), load("kandinsky_depth"), Extent(128, 64), 1)
    return [fit_picture(UNIT, Extent(96, 64)).image, hint.depth]


OUTPUTS: dict[str, Callable[[Runtime], list[torch.Tensor]]] = {
    "CONDITIONING of SD1.5": lambda runtime: conditioning("sd15", runtime),
    "CONDITIONING of SDXL": lambda runtime: conditioning("sdxl_base", runtime),
    "DIFFUSERS_PROMPT": lambda runtime: prompt_values("sd15", runtime),
    "DIFFUSERS_PROMPT of SDXL": lambda runtime: prompt_values("sdxl_base", runtime),
    "mixed": mixed,
    "Kandinsky's prior": prior_values,
    "LATENT": lambda runtime: [encode_image(load("sd15"), picture(), 1, runtime).samples],
    "LATENT of MoVQ": lambda runtime: [encode_image(load("kandinsky_decoder"), picture(), 1, runtime).samples],
    "LATENT and IMAGE": decoded_image,
    "control pictures": control_pictures,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_who_writes_into_an_output_changes_no_later_one(name: str) -> None:
    runtime = counting_runtime()
    first = OUTPUTS[name](runtime)
    before = [tensor.clone() for tensor in first]
    for _ in range(2):  # the new value, and the cached one
        for tensor in first:
            tensor.fill_(7)
        first = OUTPUTS[name](runtime)
        assert all(torch.equal(now, then) for now, then in zip(first, before, strict=True))
    places = [tensor.data_ptr() for tensor in first]
    assert len(set(places)) == len(places), "two outputs share memory"


def test_conditioning_is_no_part_of_the_prompt_that_goes_beside_it() -> None:
    for dtype in (torch.float32, torch.float16):
        embeds = text(load("sdxl_base", dtype), "a cat", counting_runtime())
        before = [embeds.positive.hidden.clone(), embeds.positive.pooled.clone()]
        ((hidden, extras),) = to_conditioning(embeds.positive)
        hidden.fill_(7)
        extras["pooled_output"].fill_(7)
        assert torch.equal(embeds.positive.hidden, before[0])
        assert torch.equal(embeds.positive.pooled, before[1])


@pytest.mark.parametrize("name", ["sd15", "sdxl_base"])
def test_who_writes_into_a_preview_does_not_paint(name: str) -> None:
    class Scribbling(ListeningMonitor):
        def progress(self, done: int, total: int, latents: torch.Tensor | None = None) -> None:
            super().progress(done, total, latents)
            if latents is not None:
                latents.fill_(7)

    model = load(name)
    prompt, settings = text(model, "a cat", counting_runtime()), TextToImageSettings(64, 64, 1, 3, 4.0, 3)
    scribbled = Runtime(counting_runtime().policy, Scribbling(previews=True))
    plain = text_to_image(model, prompt, settings, counting_runtime()).samples
    assert torch.equal(text_to_image(model, prompt, settings, scribbled).samples, plain)
    assert scribbled.monitor.previewed


# --- lifetime of entries


def one(kind: str, owner: Any, content: Any = 0) -> EncodingKey:
    return EncodingKey(kind, (owner,), (content,))


def test_the_least_used_go_first_beyond_the_bound() -> None:
    kept, owner = EncodedOnce(most_bytes=100), torch.nn.Identity()
    for content in range(4):
        kept.keep(one("a", owner, content), content + 1, 25)
    assert kept.find(one("a", owner, 0)) == 1
    kept.keep(one("a", owner, 4), 5, 25)
    assert kept.find(one("a", owner, 1)) is None, "it is the least recently used"
    assert kept.find(one("a", owner, 0)) == 1
    assert (kept.bytes, len(kept)) == (100, 4)
    kept.keep(one("a", owner, 4), 6, 50)
    assert kept.find(one("a", owner, 4)) == 6
    assert kept.bytes <= 100
    kept.keep(one("a", owner, 5), 7, 101)
    assert kept.find(one("a", owner, 5)) is None
    assert kept.bytes == 0
    assert (kept.hits["a"], kept.misses["a"]) == (3, 2)


def test_entries_go_with_any_of_their_makers() -> None:
    kept = EncodedOnce()
    first, second = torch.nn.Identity(), torch.nn.Identity()
    kept.keep(EncodingKey("a", (first, second), ()), 1, 10)
    kept.keep(one("a", first), 2, 10)
    dead = weakref.ref(second)
    del second
    assert dead() is None, "nothing is held"
    assert (len(kept), kept.bytes) == (1, 10)
    del first
    assert (len(kept), kept.bytes) == (0, 0)


def test_a_maker_that_dies_while_the_store_is_busy_does_not_block_it() -> None:
    """The garbage collector can run inside the store, in the thread that holds its lock."""
    kept, owner, other = EncodedOnce(), torch.nn.Identity(), torch.nn.Identity()
    kept.keep(one("a", owner), 1, 10)
    with kept._lock:
        del owner
        assert len(kept) == 1
    assert kept.find(one("a", other)) is None
    assert len(kept) == 0


def test_a_dropped_model_takes_its_pictures_with_it() -> None:
    module = copy.deepcopy(load("sd15")["vae"])
    encodes(Autoencoder(module, "a copy", False), picture())
    assert len(ENCODED) == 1
    del module
    gc.collect()
    assert (len(ENCODED), ENCODED.bytes) == (0, 0)


def test_many_threads() -> None:
    kept, owners = EncodedOnce(most_bytes=500), [torch.nn.Identity() for _ in range(5)]
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for turn in range(300):
            content = (seed * 7 + turn) % 20
            owner = owners[content % 5]
            found = kept.find(one("a", owner, content))
            if found not in (None, content + 100):
                wrong.append(found)
            kept.keep(one("a", owner, content), content + 100, 50)
            passing = torch.nn.Identity()
            kept.keep(one("b", passing), 1, 10)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert kept.bytes == sum(size for _, size in kept._entries.values()) <= 500
    assert kept.hits["a"] + kept.misses["a"] == 1200


def test_the_digest_sees_every_value_the_shape_and_the_layout() -> None:
    pixels = torch.rand(1, 3, 8, 8)
    last = pixels.contiguous(memory_format=torch.channels_last)
    changed = pixels.clone()
    changed[0, 2, 7, 7] += 1e-6
    assert tensor_digest(pixels) == tensor_digest(pixels.clone())
    assert tensor_digest(last) == tensor_digest(last.clone())
    others = [last, changed, pixels.reshape(1, 3, 4, 16), pixels.double(), pixels[:, :, ::2]]
    assert len({tensor_digest(other) for other in (pixels, *others)}) == 6
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert tensor_digest(grey) != tensor_digest(grey.contiguous(memory_format=torch.channels_last))


def test_a_digest_costs_far_less_than_an_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts instead of timing: the picture's bytes are read once and never copied."""
    read: list[int] = []
    real = encoded_once.hashlib.sha256
    monkeypatch.setattr(encoded_once.hashlib, "sha256", lambda data: read.append(data.nbytes) or real(data))
    copies: list[int] = []
    contiguous = torch.Tensor.contiguous
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda self, **how: copies.append(1) or contiguous(self, **how))
    pixels = to_pixels(picture(), 8)
    tensor_digest(pixels)
    assert read == [pixels.nbytes]
    assert copies == []
