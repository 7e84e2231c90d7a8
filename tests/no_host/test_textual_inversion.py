"""Textual inversions: the script's numbers in the branch that has the word, and no effect in other branches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_relay.pipelines.adapters import textual_inversion
from diffusers_relay.pipelines.adapters.lora import with_lora
from diffusers_relay.pipelines.adapters.textual_inversion import with_textual_inversion
from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.files.registry import REGISTRY
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import PromptEmbeds, check_prompt_fits, mark_of
from diffusers_relay.weighting.compel_encoder import encode_prompt
from diffusers_relay.weighting.syntax import SYNTAXES
from reference import adapter_scripts as scripts
from relay_dev.model_folders import SmallModels, small_models
from support.without_host import Stopped, load

LONG = "a cat sitting on the moon, an oil painting. " * 12


def path_of(name: str) -> Path:
    return small_models().models / "embeddings" / f"{name}.safetensors"


def taught(model: PipelineComponents, name: str, token: str = "") -> PipelineComponents:
    return with_textual_inversion(model, path_of(name), title=name, token=token)


def encode(model: PipelineComponents, prompt: str, negative: str = "", syntax: str = "compel", **how) -> PromptEmbeds:
    ENCODED.clear()  # each call must run the encoder in its current state
    return encode_prompt(
        model,
        prompt,
        negative,
        syntax=syntax,
        runtime=Runtime(PlainOffload(), how.pop("monitor", SilentMonitor())),
        **how,
    )


def assert_same(embeds: PromptEmbeds, expected: list[torch.Tensor]) -> None:
    ours = [embeds.positive.hidden, embeds.negative.hidden, embeds.positive.pooled, embeds.negative.pooled]
    for mine, theirs in zip(ours, expected):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a photo of badhands cat, well-known cat's hat!", "ugly"),
        ("a cat", "badhands, ugly"),
        ("badhands", "badhands badhands <small-cat>"),
        ("<small-cat> in badhands", "dog"),
        ("a cat", "dog"),
    ],
)
def test_sd15_is_the_script(inference_mode: None, syntax: str, prompt: str, negative: str) -> None:
    view = taught(taught(load("sd15"), "badhands"), "learned")
    pipe = scripts.pipeline(small_models().named["sd15"])
    pipe.load_textual_inversion(path_of("badhands").parent, weight_name="badhands.safetensors", token="badhands")
    pipe.load_textual_inversion(path_of("learned").parent, weight_name="learned.safetensors")
    assert_same(encode(view, prompt, negative, syntax), scripts.embeds(pipe, prompt, negative))
    if "badhands" in prompt or "<" in prompt:
        plain = encode(load("sd15"), prompt, negative, syntax)
        assert (encode(view, prompt, negative, syntax).positive.hidden - plain.positive.hidden).abs().max() > 0.1


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_sdxl_is_the_script(inference_mode: None, syntax: str) -> None:
    view = taught(load("sdxl_base"), "sdxl_style", "mystyle")
    pipe = scripts.with_sdxl_embedding(
        scripts.pipeline(small_models().named["sdxl_base"]), path_of("sdxl_style"), "mystyle"
    )
    for prompt, negative in (("a cat in mystyle, oil", "ugly"), ("a cat", "mystyle")):
        assert_same(encode(view, prompt, negative, syntax), scripts.embeds(pipe, prompt, negative))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(inference_mode: None, dtype: torch.dtype) -> None:
    view = taught(load("sd15", dtype), "badhands")
    pipe = scripts.pipeline(small_models().named["sd15"], dtype=dtype)
    pipe.load_textual_inversion(path_of("badhands").parent, weight_name="badhands.safetensors", token="badhands")
    assert_same(encode(view, "a badhands", "dog"), scripts.embeds(pipe, "a badhands", "dog"))


def test_a_weight_is_on_all_its_vectors(inference_mode: None) -> None:
    view = taught(load("sd15"), "badhands")
    base, weighted, empty = (encode(view, p).positive.hidden for p in ("a badhands cat", "a (badhands)1.5 cat", ""))
    moved = (weighted - empty).norm(dim=-1) / (base - empty).norm(dim=-1)
    assert torch.allclose(moved[0, 2:5], torch.full((3,), 1.5), atol=1e-4)
    assert torch.allclose(weighted[:, 5:], base[:, 5:], atol=1e-5)


def test_in_a_text_of_more_than_77_tokens(inference_mode: None) -> None:
    view = taught(load("sd15"), "badhands")
    assert encode(view, LONG + "badhands").positive.hidden.shape[1] > 77


@pytest.mark.parametrize(("model", "name"), [("sd15", "badhands"), ("sdxl_base", "sdxl_style")])
def test_other_branches_are_not_touched(inference_mode: None, model: str, name: str) -> None:
    base = load(model)
    prompt = f"a {name} cat"
    before, mark = encode(base, prompt), mark_of(base)
    tables = [base[encoder].get_input_embeddings() for encoder in base.family.text_encoders]
    counts = [len(base[part]) for part in base.modules if part.startswith("tokenizer")]
    view = taught(base, name)
    inside, between, again = encode(view, prompt), encode(base, prompt), encode(view, prompt)
    assert torch.equal(inside.positive.hidden, again.positive.hidden)
    assert not torch.equal(inside.positive.hidden, before.positive.hidden)
    for one in (between, encode(base, prompt)):
        assert torch.equal(one.positive.hidden, before.positive.hidden)
    assert [base[encoder].get_input_embeddings() for encoder in base.family.text_encoders] == tables
    assert [len(base[part]) for part in base.modules if part.startswith("tokenizer")] == counts
    assert mark_of(base).is_same(mark)
    assert base.embeddings == ()
    assert view["unet"] is base["unet"]
    assert view[base.family.text_encoders[0]] is base[base.family.text_encoders[0]]


def test_the_mark_tells_it(inference_mode: None) -> None:
    base = load("sd15")
    view = taught(base, "badhands")
    with pytest.raises(RelayError, match=r"^prompt: it was encoded with embedding badhands as badhands .*again"):
        check_prompt_fits(encode(view, "a badhands"), base)
    with pytest.raises(RelayError, match=r"^prompt: it was encoded with no LoRA or embedding"):
        check_prompt_fits(encode(base, "a cat"), view)
    check_prompt_fits(encode(view, "a cat"), taught(base, "badhands"))


def test_a_cancel_leaves_nothing() -> None:
    class Impatient(SilentMonitor):
        def check(self) -> None:
            raise Stopped

    base = load("sd15")
    table = base["text_encoder"].get_input_embeddings()
    with pytest.raises(Stopped):
        encode(taught(base, "badhands"), "badhands", monitor=Impatient())
    assert base["text_encoder"].get_input_embeddings() is table


def test_together_with_a_lora(inference_mode: None) -> None:
    path = small_models().models / "loras" / "sd15_kohya.safetensors"
    base = load("sd15")
    one = taught(with_lora(base, path, title="x", strength=1.0, text_strength=0.5), "badhands")
    other = with_lora(taught(base, "badhands"), path, title="x", strength=1.0, text_strength=0.5)
    pipe = scripts.pipeline(small_models().named["sd15"], [scripts.LoraFile(path, 1.0, 0.5)])
    pipe.load_textual_inversion(path_of("badhands").parent, weight_name="badhands.safetensors", token="badhands")
    for view in (one, other):
        assert_same(encode(view, "a badhands cat", "dog"), scripts.embeds(pipe, "a badhands cat", "dog"))
    assert mark_of(one).is_same(mark_of(other))


# --- words


@pytest.mark.parametrize(
    ("name", "token", "word"),
    [
        ("badhands", "", "badhands"),
        ("badhands", " other ", "other"),
        ("learned", "", "<small-cat>"),
        ("learned", "kitty", "kitty"),
    ],
)
def test_the_word(name: str, token: str, word: str) -> None:
    assert taught(load("sd15"), name, token).embeddings[0].token == word


def test_a_word_that_is_known_already() -> None:
    base = load("sd15")
    for view, token in (
        (base, "cat</w>"),
        (taught(base, "badhands"), "badhands"),
        (taught(base, "badhands"), "badhands_1"),
    ):
        with pytest.raises(RelayError, match=r"^token: .* already knows .* Enter another word"):
            taught(view, "learned", token)


@pytest.mark.parametrize(
    ("word", "apart"),
    [("(x)1.5", ("compel", "a1111")), ("x++", ("compel",)), ("[x] v1", ("a1111",)), ("x-v1.2", ()), ("<x>", ())],
)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_word_that_a_syntax_takes_apart_is_no_silence(
    inference_mode: None, syntax: str, word: str, apart: tuple[str, ...]
) -> None:
    view = taught(load("sd15"), "badhands", word)
    if syntax in apart:
        with pytest.raises(
            RelayError, match=r"is the word of an embedding.*Enter another word in token of Load Textual Inversion"
        ):
            encode(view, f"a {word} cat", syntax=syntax)
    else:
        told = encode(view, f"a {word} cat", syntax=syntax)
        plain = encode(taught(load("sd15"), "badhands"), "a badhands cat", syntax=syntax)
        assert torch.equal(told.positive.hidden, plain.positive.hidden)
    encode(view, "a cat", syntax=syntax)


def test_a_file_is_read_once() -> None:
    base = load("sd15")
    first = taught(base, "badhands")
    loads = REGISTRY.loads
    assert (
        taught(base, "badhands", "other").embeddings[0].vectors["text_encoder"]
        is first.embeddings[0].vectors["text_encoder"]
    )
    assert REGISTRY.loads == loads


def test_the_refiner_takes_the_half_that_it_reads(inference_mode: None) -> None:
    view = taught(load("sdxl_refiner"), "sdxl_style")
    assert list(view.embeddings[0].vectors) == ["text_encoder_2"]
    plain = encode(load("sdxl_refiner"), "sdxl_style")
    assert not torch.equal(encode(view, "sdxl_style").positive.hidden, plain.positive.hidden)


# --- rejected


@pytest.mark.parametrize(
    ("model", "name", "says"),
    [
        ("sd15", "too_wide", r"embedding: too_wide has vectors of width 64.* read 32"),
        ("sdxl_base", "badhands", r"embedding: badhands has vectors of width 32, .*sdxl_base"),
        ("kandinsky_decoder", "badhands", r"can't use an embedding.*Stable Diffusion XL"),
        ("kandinsky_prior", "badhands", r"can't use an embedding"),
    ],
)
def test_another_family_s_is_refused(model: str, name: str, says: str) -> None:
    with pytest.raises(RelayError, match=says):
        taught(load(model), name)


@pytest.mark.parametrize("width", [32, 768])
def test_sdxl_s_is_refused_by_what_it_is(tmp_path: Path, width: int) -> None:
    """Even if its first half would fit."""
    save_file({"clip_l": torch.zeros(2, width), "clip_g": torch.zeros(2, 1280)}, tmp_path / "x.safetensors")
    with pytest.raises(RelayError, match=r"for SDXL, but the text encoders of sd15"):
        with_textual_inversion(load("sd15"), tmp_path / "x.safetensors", title="x", token="")


def test_damaged_files(tmp_path: Path, models: SmallModels) -> None:
    path = tmp_path / "x.safetensors"
    lora = load_file(models.models / "loras" / "sd15_kohya.safetensors")
    for tensors, says in (
        (lora, r"is .*models/loras"),
        ({}, "is not a textual inversion"),
        ({"emb_params": torch.zeros(2, 3, 32)}, r"is not a textual inversion.*\[2, 3, 32\]"),
        ({"emb_params": torch.zeros(())}, "is not a textual inversion"),
        ({"emb_params": torch.zeros(0, 32)}, "is not a textual inversion"),
        ({"emb_params": torch.zeros(2, 9000)}, "is not a textual inversion"),
        (
            {"a": torch.zeros(2, 32), "b": torch.zeros(2, 32)},
            "is not a textual inversion: it has 2 tensors, instead of one",
        ),
        ({"clip_l": torch.zeros(2, 32), "t5xxl": torch.zeros(2, 64)}, "vectors for t5xxl, .*another kind of model"),
        (
            {f"text_encoders_{n}": torch.zeros(2, 32) for n in range(3)},
            "vectors for text_encoders_2, .*another kind of",
        ),
        ({"<a>": torch.zeros(2, 32), "b": torch.zeros(2, 32)}, "it has 2 tensors, instead of one"),
        ({"<a>": torch.zeros(2, 32), "<b>": torch.zeros(2, 48)}, "has vectors of different widths: 32 and 48"),
        ({"gemma2_2b": torch.zeros(2, 32)}, "vectors for gemma2_2b, .*another kind of model"),
        ({"clip_l": torch.zeros(2, 32), "clip_l_out": torch.zeros(2, 32)}, "vectors for clip_l_out"),
        (
            {"clip_l": torch.zeros(2, 32), f"t5.\n\x1b{5000 * 'x'}": torch.zeros(2, 64)},
            r"vectors for t5\.\\n\\x1bx{1,50}\.\.\.x{1,40},",
        ),
        ({"emb_params": torch.zeros(76, 32)}, "has 76 vectors, but a prompt only has 75 tokens"),
        ({f"w_{index}" if index else "w": torch.zeros(1, 32) for index in range(76)}, "has 76 vectors"),
        ({"emb_params": torch.full((2, 32), float("nan"))}, "NaN or infinite"),
        ({"emb_params": torch.zeros(2, 32, dtype=torch.int32)}, "has torch.int32 tensors"),
        ({"emb_params": torch.ones(2, 32, dtype=torch.complex64)}, "has torch.complex64 tensors"),
        ({"emb_params": torch.full((2, 32), 1e300, dtype=torch.float64)}, "NaN or infinite"),
        ({"proj_out.weight": torch.zeros(2, 32), "x": torch.zeros(2, 32)}, "it has 2 tensors, instead of one"),
        ({"clip_l": torch.zeros(2, 32), "clip_g": torch.zeros(3, 32)}, "different numbers of vectors"),
    ):
        save_file(tensors, path)
        with pytest.raises(RelayError, match=f"embedding: x .*{says}"):
            with_textual_inversion(load("sd15"), path, title="x", token="")
    path.write_bytes(path_of("badhands").read_bytes()[:-10])
    with pytest.raises(RelayError, match="embedding: x is damaged or cut short"):
        with_textual_inversion(load("sd15"), path, title="x", token="")
    torch.save({"emb_params": torch.zeros(2, 32)}, path)
    with pytest.raises(RelayError, match="embedding: x is a pickle"):
        with_textual_inversion(load("sd15"), path, title="x", token="")


def test_values_that_the_model_s_type_can_not_hold(tmp_path: Path) -> None:
    save_file({"emb_params": torch.full((2, 32), 7e4)}, tmp_path / "x.safetensors")
    with_textual_inversion(load("sd15"), tmp_path / "x.safetensors", title="x", token="bad")
    with pytest.raises(
        RelayError, match=r"^embedding: x has values up to 7e\+04, but sd15 in float16 only reaches 65504"
    ):
        with_textual_inversion(load("sd15", torch.float16), tmp_path / "x.safetensors", title="x", token="bad")


def test_thousands_of_vectors_are_refused_before_any_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"emb_params": torch.zeros(50_000, 32)}, tmp_path / "x.safetensors")
    monkeypatch.setattr(torch, "cat", lambda *_, **__: pytest.fail("it was read"))
    monkeypatch.setattr(textual_inversion, "_with_tokens", lambda *_: pytest.fail("a tokenizer was copied"))
    with pytest.raises(RelayError, match=r"^embedding: x has 50,000 vectors, but a prompt only has 75 tokens"):
        with_textual_inversion(load("sd15"), tmp_path / "x.safetensors", title="x", token="")


# --- formats that trainers write

ROWS = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
TRAINERS = {
    "A1111": ({"emb_params": ROWS}, "BadDream"),
    "A1111's pickle, converted": ({"*": ROWS}, "BadDream"),
    "its dict, flattened": ({"string_to_param.*": ROWS, "string_to_token.*": torch.tensor(265)}, "BadDream"),
    "its dict with a word": ({"string_to_param.baddy": ROWS}, "baddy"),
    "ComfyUI's name for SD2": ({"clip_h": ROWS}, "BadDream"),
    "no name": ({"": ROWS}, "BadDream"),
    "a name that nobody can write": ({"bad\n\x1b[31m": ROWS}, "BadDream"),
    "a name of 5,000 letters": ({5000 * "x": ROWS}, "BadDream"),
    "a general name, one tensor a vector": ({"emb": ROWS[0], "emb_1": ROWS[1]}, "BadDream"),
    "a general name": ({"learned_embeds": ROWS}, "BadDream"),
    "diffusers": ({"<bad-dream>": ROWS}, "<bad-dream>"),
    "diffusers, one tensor a vector": (
        {"<bad>": ROWS[0], "<bad>_1": ROWS[1], "<bad>_2": ROWS[2]},
        "<bad>",
    ),
    "three dimensions": ({"emb_params": ROWS[None]}, "BadDream"),
    "one encoder of SDXL's": ({"clip_l": ROWS}, "BadDream"),
    "float16": ({"emb_params": ROWS.half()}, "BadDream"),
    "bfloat16": ({"emb_params": ROWS.bfloat16()}, "BadDream"),
    "float64": ({"emb_params": ROWS.double()}, "BadDream"),
    "float8": ({"emb_params": ROWS.to(torch.float8_e4m3fn)}, "BadDream"),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_what_trainers_write_is_read(inference_mode: None, tmp_path: Path, name: str) -> None:
    tensors, word = TRAINERS[name]
    path = tmp_path / "BadDream.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    view = with_textual_inversion(load("sd15"), path, title=path.name, token="")
    assert view.embeddings[0].token == word
    wanted = torch.cat([tensor.reshape(-1, 32).float() for tensor in tensors.values() if tensor.ndim])
    assert torch.equal(view.embeddings[0].vectors["text_encoder"].float(), wanted)
    save_file({"<x>": wanted.to(torch.float32)}, tmp_path / "other.safetensors")
    same = with_textual_inversion(load("sd15"), tmp_path / "other.safetensors", title="other", token="<x>")
    for syntax in SYNTAXES:
        mine, theirs = encode(view, f"a {word} cat", syntax=syntax), encode(same, "a <x> cat", syntax=syntax)
        assert torch.equal(mine.positive.hidden, theirs.positive.hidden)


def test_both_encoders_of_sdxl_by_their_other_names(inference_mode: None, tmp_path: Path) -> None:
    tensors = load_file(path_of("sdxl_style"))
    renamed = {"text_encoders_0": tensors["clip_l"], "text_encoders_1": tensors["clip_g"]}
    save_file(renamed, tmp_path / "x.safetensors")
    view = with_textual_inversion(load("sdxl_base"), tmp_path / "x.safetensors", title="x", token="sdxl_style")
    mine, theirs = (encode(one, "a sdxl_style cat") for one in (view, taught(load("sdxl_base"), "sdxl_style")))
    assert torch.equal(mine.positive.hidden, theirs.positive.hidden)


@pytest.mark.parametrize("keys", [("text_encoders_0", "text_encoders_1"), ("clip_l", "clip_g")])
def test_one_word_for_each_vector_is_the_script(inference_mode: None, tmp_path: Path, keys: tuple[str, str]) -> None:
    """Pivotal tuning: the documentation's script gives a list of tokens, one for each row."""
    base = load("sdxl_base")
    numbers = torch.Generator().manual_seed(7)
    encoders, tokenizers = ("text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2")
    tensors = {
        key: torch.randn(2, base[encoder].get_input_embeddings().weight.shape[1], generator=numbers)
        for key, encoder in zip(keys, encoders)
    }
    save_file(tensors, tmp_path / "x.safetensors")
    view = with_textual_inversion(base, tmp_path / "x.safetensors", title="x", token="<s0>, <s1>")
    pipe = scripts.pipeline(small_models().named["sdxl_base"])
    for key, encoder, tokenizer in zip(keys, encoders, tokenizers):
        pipe.load_textual_inversion(
            tensors[key].clone(),
            token=["<s0>", "<s1>"],
            text_encoder=getattr(pipe, encoder),
            tokenizer=getattr(pipe, tokenizer),
        )
    for prompt, negative in (("a <s0><s1> cat", "<s1>"), ("<s1> dog <s0>", "dog")):
        assert_same(encode(view, prompt, negative), scripts.embeds(pipe, prompt, negative))
    whole = with_textual_inversion(base, tmp_path / "x.safetensors", title="x", token="style")
    mine, theirs = encode(view, "a <s0><s1> cat"), encode(whole, "a style cat")
    assert torch.equal(mine.positive.hidden, theirs.positive.hidden)
    assert not torch.equal(encode(view, "a <s1><s0> cat").positive.hidden, mine.positive.hidden)


def test_several_words_in_one_file(inference_mode: None, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"<s10>": ROWS[2], "<s2>": ROWS[:2].clone()}, path)
    save_file({"emb_params": ROWS[:2].clone()}, tmp_path / "two.safetensors")
    save_file({"emb_params": ROWS[2:].clone()}, tmp_path / "one.safetensors")
    base = load("sd15")
    apart = with_textual_inversion(base, tmp_path / "two.safetensors", title="x", token="<s2>")
    apart = with_textual_inversion(apart, tmp_path / "one.safetensors", title="x", token="<s10>")
    wanted = encode(apart, "a <s10> cat, <s2>", "<s2>")
    own = with_textual_inversion(base, path, title="x", token="")
    assert [one.token for one in own.embeddings] == ["<s2>", "<s10>"]
    renamed = with_textual_inversion(base, path, title="x", token="fur, paw,")
    for view, prompt, negative in ((own, "a <s10> cat, <s2>", "<s2>"), (renamed, "a paw cat, fur", "fur")):
        got = encode(view, prompt, negative)
        assert torch.equal(got.positive.hidden, wanted.positive.hidden)
        assert torch.equal(got.negative.hidden, wanted.negative.hidden)
    each = with_textual_inversion(base, path, title="x", token="q1,q2,q3")
    assert torch.equal(encode(each, "a q3 cat, q1 q2", "q1 q2").positive.hidden, wanted.positive.hidden)


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("a1, a2, a3, a4", r"^token: it has 4 words, but badhands has 3 vectors. Enter one word for all of them"),
        ("a1, a2", r"^token: it has 2 words, but badhands has 3 vectors"),
        ("a1, a2, a1", r"^token: sd15 already knows 'a1'"),
    ],
)
def test_words_that_do_not_go_with_the_vectors(token: str, says: str) -> None:
    with pytest.raises(RelayError, match=says):
        taught(load("sd15"), "badhands", token)


def test_embedding_and_its_word_are_named_in_a_prompt(inference_mode: None) -> None:
    view = taught(load("sd15"), "badhands")
    with pytest.raises(RelayError, match="write only badhands"):
        encode(view, "a cat, embedding:badhands")


def test_a_fresh_model_is_never_changed(inference_mode: None) -> None:
    base = load_folder(small_models().named["sdxl_base"], dtype=torch.float32, monitor=SilentMonitor())
    encode(taught(base, "sdxl_style"), "a sdxl_style cat")
    pipe = scripts.pipeline(small_models().named["sdxl_base"])
    assert_same(encode(base, "a sdxl_style cat", "dog"), scripts.embeds(pipe, "a sdxl_style cat", "dog"))
