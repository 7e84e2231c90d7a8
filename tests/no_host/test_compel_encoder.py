"""Text to embeddings, against diffusers' own encode_prompt, on small random models of the real classes."""

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from packaging.version import Version

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload, Stage
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.model import family_table as families
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import mark_of
from diffusers_relay.weighting import compel_encoder, prior_encoder

FAMILIES = {
    "sd15": families.STABLE_DIFFUSION,
    "sdxl_base": families.SDXL_BASE,
    "sdxl_refiner": families.SDXL_REFINER,
    "kandinsky_prior": families.KANDINSKY22_PRIOR,
    "kandinsky_decoder": families.KANDINSKY22_DECODER,
}
TEXT_MODELS = ("sd15", "sdxl_base", "sdxl_refiner")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PROMPT = "a photo of a cat, playing in the forest; well-known cat's hat!"
NEGATIVE = "ugly, deformed"
LONG = "a cat sitting on the moon, an oil painting. " * 14
WORDS = "cat dog ball river lake sea moon sun star hat " * 8


@pytest.fixture(scope="module")
def pipelines(models):
    from diffusers import DiffusionPipeline

    return {name: DiffusionPipeline.from_pretrained(models.named[name], safety_checker=None) for name in FAMILIES}


@pytest.fixture
def load(pipelines):
    """(name, dtype) -> the script's pipeline and our components, with the same modules, which no other test uses."""

    def load(name, dtype=torch.float32, **config):
        original = pipelines[name]
        parts = {part: copy.deepcopy(module) for part, module in original.components.items() if module is not None}
        for module in parts.values():
            if isinstance(module, torch.nn.Module):
                module.to(dtype)
        pipe = type(original)(
            **{**dict.fromkeys(original.components), **parts},
            **({"requires_safety_checker": False} if name == "sd15" else {}),
        )
        flags = {flag: original.config[flag] for flag in FAMILIES[name].config_flags} | config
        pipe.register_to_config(**flags)
        return pipe, PipelineComponents(FAMILIES[name], f"small/{name}", parts, dtype, flags)

    return load


def encode(components, prompt, negative_prompt="", syntax="compel", policy=None, monitor=None, **arguments):
    ENCODED.clear()  # each call must run the encoders
    return compel_encoder.encode_prompt(
        components,
        prompt,
        negative_prompt,
        syntax=syntax,
        runtime=Runtime(policy or PlainOffload(), monitor or SilentMonitor()),
        **arguments,
    )


def script(pipe, prompt, negative_prompt=None, clip_skip=None):
    """diffusers' own (hidden, negative hidden, pooled, negative pooled); SD has no pooled embeddings."""
    arguments = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    with torch.no_grad():
        result = pipe.encode_prompt(prompt, negative_prompt=negative_prompt, clip_skip=clip_skip, **arguments)
    return (*result, None, None)[:4]


def ours(embeds):
    return embeds.positive.hidden, embeds.negative.hidden, embeds.positive.pooled, embeds.negative.pooled


def assert_same(embeds, expected):
    for name, mine, theirs in zip(("hidden", "negative hidden", "pooled", "negative pooled"), ours(embeds), expected):
        if theirs is None:
            assert mine is None, name
        else:
            assert mine.dtype == theirs.dtype, name
            assert torch.equal(mine, theirs), f"{name}: {(mine - theirs).abs().max()}"


def token_count(pipe, text):
    return len((pipe.tokenizer or pipe.tokenizer_2)(text).input_ids)


# --- the script's numbers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("syntax", ["compel", "plain"])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_weight_one_is_the_script(load, name, syntax, dtype):
    pipe, components = load(name, dtype)
    exactly_full = " ".join(WORDS.split()[:75])
    assert token_count(pipe, exactly_full) == 77
    for prompt in (PROMPT, "", exactly_full):
        for negative in ("", NEGATIVE):
            assert_same(encode(components, prompt, negative, syntax), script(pipe, prompt, negative or None))


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize(
    "prompt",
    [
        'c++ (a "cat") and("dog", 1.3)++',
        r"\(a\) (b:1.3)",
        "(((",
        ' " ',
        "a--",
        "a cat.swap(dog)",
        "<|endoftext|> cat",
        "a,,b\n!",
    ],
)
def test_plain_reads_syntax_as_text(load, name, prompt):
    pipe, components = load(name)
    assert_same(encode(components, prompt, prompt, "plain"), script(pipe, prompt, prompt))


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("name", ["sdxl_base", "sdxl_refiner"])
@pytest.mark.parametrize(("syntax", "negative"), [("compel", ""), ("plain", ""), ("compel", "()"), ("plain", " \n")])
def test_empty_negative_is_none(load, name, zeros, syntax, negative):
    pipe, components = load(name, force_zeros_for_empty_prompt=zeros)
    embeds = encode(components, PROMPT, negative, syntax)
    assert_same(embeds, script(pipe, PROMPT))
    assert bool((embeds.negative.hidden == 0).all()) == bool((embeds.negative.pooled == 0).all()) == zeros


def test_model_without_the_flag_takes_the_default(load):
    pipe, components = load("sdxl_base")
    assert_same(encode(components.with_changes(config={}), PROMPT), script(pipe, PROMPT))
    assert pipe.config.force_zeros_for_empty_prompt


# --- weights


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_weight_moves_only_its_word(load, name):
    _, components = load(name)
    text, place = "a big {} on the moon", 3
    base = encode(components, text.format("cat")).positive
    empty = encode(components, "").positive.hidden
    distances = []
    for weight in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2):
        weighted = encode(components, text.format(f"(cat){weight}")).positive
        others = [i for i in range(77) if i != place] if weight >= 1 else range(place)
        assert torch.allclose(weighted.hidden[:, others], base.hidden[:, others], atol=1e-5)
        distances.append((weighted.hidden - empty)[0, place].norm().item())
        assert base.pooled is None or torch.equal(weighted.pooled, base.pooled)
    assert distances == sorted(distances)
    assert distances[4] / distances[3] == pytest.approx(1.25, rel=1e-4)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_weight_signs(load, name):
    _, components = load(name)
    for sign, number in (("++", "1.21"), ("-", "0.9")):
        by_sign, by_number = encode(components, f"a cat{sign} here"), encode(components, f"a (cat){number} here")
        assert torch.allclose(by_sign.positive.hidden, by_number.positive.hidden, atol=1e-5)


@pytest.mark.parametrize("name", ["sdxl_base", "sdxl_refiner"])
def test_pooled_is_of_the_literal_text(load, name):
    pipe, components = load(name)
    weighted = encode(components, "a cat++ (in the (deep)1.2 forest)0.8", "(ugly)1.5 cat--")
    _, _, pooled, negative_pooled = script(pipe, "a cat in the deep forest", "ugly cat")
    assert torch.equal(weighted.positive.pooled, pooled)
    assert torch.equal(weighted.negative.pooled, negative_pooled)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_blend_and_conjunction(load, name):
    _, components = load(name)
    cat, dog = encode(components, "a cat").positive, encode(components, "a dog").positive
    only_cat = encode(components, '("a cat", "a dog").blend(1, 0)').positive
    assert torch.equal(only_cat.hidden, cat.hidden)
    blend = encode(components, '("a cat", "a dog").blend(3, 1)').positive
    assert torch.allclose(blend.hidden, 0.75 * cat.hidden + 0.25 * dog.hidden, atol=1e-5)
    both = encode(components, '("a cat", "a dog").and()')
    assert torch.equal(both.positive.hidden, torch.cat([cat.hidden, dog.hidden], dim=1))
    assert both.negative.hidden.shape == both.positive.hidden.shape
    if cat.pooled is not None:
        assert torch.equal(only_cat.pooled, cat.pooled)
        assert torch.allclose(blend.pooled, 0.75 * cat.pooled + 0.25 * dog.pooled, atol=1e-5)
        assert torch.equal(both.positive.pooled, encode(components, "a cat a dog").positive.pooled)


def test_half_precision_weights_are_summed_in_float32(load):
    """With two words at weight 0, the sum of the coefficients overflows float16."""
    _, components = load("sd15", torch.float16)
    _, exact = load("sd15")
    text = "a (cat)0 on the (moon)0"
    assert torch.allclose(
        encode(components, text).positive.hidden.float(), encode(exact, text).positive.hidden, atol=0.02
    )
    assert encode(components, text).positive.hidden.abs().max() > 0.5
    blended, exactly = (encode(c, '("a cat", "a dog").blend(0.8, 0.3)').positive.hidden for c in (components, exact))
    assert torch.allclose(blended.float(), exactly, atol=0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_is_applied_in_float32(load, dtype):
    _, components = load("sd15", dtype)
    plain, empty = (encode(components, text).positive.hidden[0, 2].float() for text in ("a cat", ""))
    assert torch.equal(
        encode(components, "a (cat)1.5").positive.hidden[0, 2], (empty + (plain - empty) * 1.5).to(dtype)
    )


def test_weights_out_of_range(load):
    _, components = load("sd15", torch.float16)
    with pytest.raises(RelayError, match=r"negative_prompt: .*too large for float16"):
        encode(components, "a cat", "a (cat)90000")


# --- long texts


@pytest.mark.parametrize("syntax", ["compel", "plain"])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_long_prompts(load, name, syntax, caplog):
    pipe, components = load(name)
    caplog.clear()
    encode(components, LONG, LONG, syntax)
    assert not caplog.records  # transformers would warn of an error that splitting prevents
    assert 77 < token_count(pipe, LONG) <= 3 * 75
    long_short, short_long = encode(components, LONG, NEGATIVE, syntax), encode(components, NEGATIVE, LONG, syntax)
    tokens = long_short.positive.hidden.shape[1]
    assert tokens in (2 * 77, 3 * 77)
    for embeds in (long_short, short_long):
        assert embeds.positive.hidden.shape == embeds.negative.hidden.shape
    assert torch.equal(long_short.positive.hidden, short_long.negative.hidden)
    short = encode(components, NEGATIVE).positive.hidden
    empty = encode(components, "").positive.hidden
    assert torch.equal(long_short.negative.hidden, torch.cat([short] + [empty] * (tokens // 77 - 1), dim=1))
    assert encode(components, LONG, "", syntax).negative.hidden.shape[1] == tokens
    # the tail changes the hidden state; the pooled embedding is the script's, which reads 77 tokens
    assert not torch.equal(encode(components, LONG + "dog", "", syntax).positive.hidden, long_short.positive.hidden)
    if components.family.has_pooled_embeds:
        assert torch.equal(long_short.positive.pooled, script(pipe, LONG)[2])


def test_long_sdxl_is_compels_own(load):
    from compel import CompelForSDXL

    pipe, components = load("sdxl_base")
    text = LONG + "and (a dog)1.3 with ball++. " + LONG
    with torch.no_grad():
        theirs = CompelForSDXL(pipe)(text, negative_prompt=NEGATIVE)
    embeds = encode(components, text, NEGATIVE)
    assert torch.allclose(embeds.positive.hidden, theirs.embeds, atol=1e-5)
    assert torch.allclose(embeds.negative.hidden, theirs.negative_embeds, atol=1e-5)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_too_many_runs_are_refused_before_the_first(load, name):
    _, components = load(name)
    for encoder in [components[part] for part in components.family.text_encoders]:
        encoder.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    text = "(cat dog:0.9) sofa " * 900  # encoded again 900 times
    with pytest.raises(RelayError, match=r"prompt: it needs \d+,\d+ runs .*4,096.* 900 .*Use fewer"):
        encode(components, text, syntax="a1111")


def test_many_weights_and_many_texts_take_a_run_for_each_77_tokens(load):
    _, components = load("sd15")
    runs = []
    components["text_encoder"].register_forward_hook(lambda *_: runs.append(1))
    encode(components, "(cat:1.1) " * 1000, syntax="a1111")
    assert len(runs) <= 1000 / 75 + 4
    runs.clear()
    texts = ", ".join(f'"a cat {number}"' for number in range(500))
    hidden = encode(components, f"({texts}).and()").positive.hidden
    assert hidden.shape[1] == 500 * 77
    assert len(runs) <= 500 + 3
    runs.clear()
    encode(components, "a (cat)0.5 on a (sofa)0.9 here")
    assert len(runs) == 4, "the text, the text without each of the two words, the empty negative"


def test_a_cancel_is_noticed_between_two_runs(load):
    _, components = load("sd15")
    runs, stopped = [], type("Stopped", (Exception,), {})
    components["text_encoder"].register_forward_hook(lambda *_: runs.append(1))

    def check():
        if len(runs) >= 3:
            raise stopped

    with pytest.raises(stopped):
        encode(components, WORDS * 10, monitor=SimpleNamespace(check=check))
    assert len(runs) == 3


def test_where_a_long_text_is_split_only_the_next_77_tokens_are_looked_at(load, monkeypatch):
    """`test_long_sdxl_is_compels_own` checks that the split points are Compel's own."""
    _, components = load("sd15")
    tokenizer, asked = components["tokenizer"], []
    real = tokenizer.convert_ids_to_tokens
    monkeypatch.setattr(tokenizer, "convert_ids_to_tokens", lambda ids: asked.append(len(ids)) or real(ids))
    encode(components, WORDS * 20)
    assert len(asked) > 10
    assert max(asked) <= 77


# --- pooled_output


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sd15_pooled_for_the_host_is_transformers_own(load, dtype):
    """`in_host/test_native_values.py` compares with the host's own encoder."""
    pipe, components = load("sd15", dtype)
    for text in (PROMPT, "", LONG):
        embeds = encode(components, text, NEGATIVE)
        for made, wanted in ((embeds.positive, text), (embeds.negative, NEGATIVE)):
            ids = pipe.tokenizer(wanted, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            with torch.no_grad():
                assert torch.equal(made.host_pooled, pipe.text_encoder(ids.input_ids).pooler_output)
            assert made.pooled is None
    skipped = encode(components, PROMPT, clip_skip=1).positive
    assert torch.equal(skipped.host_pooled, encode(components, PROMPT).positive.host_pooled)
    blend = encode(components, '("a cat", "a dog").blend(3, 1)').positive.host_pooled.float()
    cat, dog = (encode(components, text).positive.host_pooled.float() for text in ("a cat", "a dog"))
    assert torch.allclose(blend, 0.75 * cat + 0.25 * dog, atol=0.02)


def test_other_models_have_none_for_the_host(load):
    """SDXL's own pooled embedding is the host's. The host's for SD 2.x needs OpenCLIP's projection, which diffusers' model doesn't have."""
    for name in ("sdxl_base", "sdxl_refiner"):
        assert encode(load(name)[1], PROMPT).positive.host_pooled is None
    _, components = load("sd15")
    components["text_encoder"].config.hidden_act = "gelu"
    assert encode(components, PROMPT).positive.host_pooled is None


def test_what_may_be_prose_is_said_for_both_texts_each_time(load):
    _, components = load("sd15")
    for _ in range(2):
        monitor = Hearing()
        compel_encoder.encode_prompt(
            components, "a AND b", "[bad]", syntax="compel", runtime=Runtime(PlainOffload(), monitor)
        )
        assert [line.split(":")[0] for line in monitor.heard] == ["prompt", "negative_prompt"]
    monitor = Hearing()
    encode_prior(load("kandinsky_prior")[1], "a AND b", monitor=monitor)
    assert [line.split(":")[0] for line in monitor.heard] == ["prompt"]
    with pytest.raises(RelayError, match="BREAK"):
        encode_prior(load("kandinsky_prior")[1], "a BREAK b")


# --- clip_skip


@pytest.mark.parametrize("name", ["sdxl_base", "sdxl_refiner"])
@pytest.mark.parametrize("syntax", ["compel", "plain"])
@pytest.mark.parametrize("zeros", [True, False])
def test_clip_skip_sdxl_is_the_script(load, name, syntax, zeros):
    pipe, components = load(name, force_zeros_for_empty_prompt=zeros)
    for skip in (1, 2):
        for negative in ("", NEGATIVE):
            assert_same(
                encode(components, PROMPT, negative, syntax, clip_skip=skip),
                script(pipe, PROMPT, negative or None, skip),
            )


def test_clip_skip_sd15_is_the_layer_normalised(load):
    pipe, components = load("sd15")
    ids = pipe.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        layers = pipe.text_encoder(ids, output_hidden_states=True)
        norm = dict(pipe.text_encoder.named_modules())[
            next(n for n, _ in pipe.text_encoder.named_modules() if n.endswith("final_layer_norm"))
        ]
        assert torch.equal(norm(layers.hidden_states[-1]), layers.last_hidden_state)
        for skip in (1, 2, 3):
            embeds = encode(components, PROMPT, NEGATIVE, clip_skip=skip)
            assert torch.equal(embeds.positive.hidden, norm(layers.hidden_states[-1 - skip]))
            assert torch.equal(embeds.negative.hidden, script(pipe, PROMPT, NEGATIVE)[1])


def test_clip_skip_sd15_upstream(load):
    """diffusers' own code fails with transformers 5. When this test fails, compare with script(pipe, PROMPT, None, 1) in the test above."""
    pipe, components = load("sd15")
    if Version(transformers.__version__) < Version("5"):
        assert torch.equal(script(pipe, PROMPT, None, 1)[0], encode(components, PROMPT, clip_skip=1).positive.hidden)
        return
    with pytest.raises(AttributeError, match="text_model"):
        script(pipe, PROMPT, None, 1)


@pytest.mark.parametrize(
    ("name", "skip", "most"), [("sd15", 4, 3), ("sd15", -1, 3), ("sdxl_base", 3, 2), ("sdxl_refiner", 3, 2)]
)
def test_clip_skip_out_of_range(load, name, skip, most):
    _, components = load(name)
    with pytest.raises(RelayError, match=f"clip_skip: {skip} .*has 3 layers: use 0 to {most}"):
        encode(components, PROMPT, clip_skip=skip)


# --- use of the device


@pytest.mark.parametrize("name", [*TEXT_MODELS, "kandinsky_prior"])
@pytest.mark.parametrize("inference", [True, False])
def test_encoders_go_back_as_they_were(load, name, inference):
    _, components = load(name)
    encoders = [components[part] for part in components.family.text_encoders]
    for encoder in encoders:  # transformers adds its own hooks at the first call for hidden states
        encoder(torch.tensor([[0, 1]]), output_hidden_states=True)
    hooks = [[len(module._forward_hooks) for module in encoder.modules()] for encoder in encoders]
    before = [{key: value.clone() for key, value in encoder.state_dict().items()} for encoder in encoders]
    attributes = [set(vars(encoder)) for encoder in encoders]
    calls = []

    class Policy(PlainOffload):
        @contextlib.contextmanager
        def on_device(self, stage, modules, working_bytes=0):
            calls.append((stage, list(modules)))
            with super().on_device(stage, calls[-1][1], working_bytes) as device:
                yield device

    text = LONG + " (cat)1.3 (dog)0.5"
    with torch.inference_mode() if inference else contextlib.nullcontext():
        if name == "kandinsky_prior":
            result = prior_encoder.encode_for_prior(
                components, text, NEGATIVE, syntax="compel", runtime=Runtime(Policy(), SilentMonitor())
            )
            assert not result.prompt.hidden.requires_grad
        else:
            result = encode(components, text, NEGATIVE, policy=Policy(), clip_skip=1)
            assert not result.positive.hidden.requires_grad
    assert calls == [(Stage.TEXT, encoders)]
    for encoder, state, names, counts in zip(encoders, before, attributes, hooks):
        assert set(vars(encoder)) == names
        assert [len(module._forward_hooks) for module in encoder.modules()] == counts
        assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_same_text_runs_once(load, name):
    """Hidden state, pooled embedding, and the empty text that Compel's weights are relative to."""
    _, components = load(name, **({} if name == "sd15" else {"force_zeros_for_empty_prompt": False}))
    for encoder in [components[part] for part in components.family.text_encoders]:
        runs = []
        encoder.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        encode(components, "a cat", "")
        assert len(runs) == 2
        encode(components, "a (cat)1.5", "")
        assert len(runs) == 4


def test_cancel_reaches_the_host(load):
    _, components = load("sdxl_base")

    class Cancelled(Exception):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        encode(components, PROMPT, monitor=SimpleNamespace(check=cancel))


@pytest.mark.parametrize("name", ["kandinsky_prior", "kandinsky_decoder"])
def test_kandinsky_is_sent_to_its_prior(load, name):
    _, components = load(name)
    with pytest.raises(RelayError, match="Kandinsky Prior"):
        encode(components, PROMPT)


# --- Kandinsky's prior


class Hearing(SilentMonitor):
    def __init__(self):
        self.heard = []

    def say(self, message):
        self.heard.append(message)


def encode_prior(components, prompt, negative_prompt="", syntax="compel", monitor=None):
    return prior_encoder.encode_for_prior(
        components, prompt, negative_prompt, syntax=syntax, runtime=Runtime(PlainOffload(), monitor or SilentMonitor())
    )


def prior_script(pipe, prompt):
    """The pipeline's own row for a single text, without guidance."""
    with torch.no_grad():
        return pipe._encode_prompt([prompt], torch.device("cpu"), 1, False)


def assert_row(row, expected):
    for mine, theirs in zip((row.pooled, row.hidden, row.mask), expected):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("syntax", ["compel", "plain"])
def test_prior_at_weight_one_is_the_script(load, syntax, dtype):
    pipe, components = load("kandinsky_prior", dtype)
    for prompt in (PROMPT, "", " ".join(WORDS.split()[:75])):
        text = encode_prior(components, prompt, NEGATIVE, syntax)
        with torch.no_grad():  # as the pipeline does for a negative prompt
            both = pipe._encode_prompt([prompt, NEGATIVE], torch.device("cpu"), 1, False)
        assert_row(text.prompt, [values[:1] for values in both])
        assert_row(text.negative, [values[1:] for values in both])
        if prompt:
            assert_row(text.empty, prior_script(pipe, ""))
            assert_row(encode_prior(components, prompt, "", syntax).prompt, prior_script(pipe, prompt))
    assert encode_prior(components, PROMPT, " ", syntax).negative is None


def test_prior_rows_are_the_scripts_batch(load):
    """The script encodes prompt and negative in one batch, and the batch size affects the last bits of the sums."""
    pipe, components = load("kandinsky_prior")
    text = encode_prior(components, PROMPT, NEGATIVE)
    with torch.no_grad():
        batch = pipe._encode_prompt([PROMPT, NEGATIVE], torch.device("cpu"), 1, True, [NEGATIVE, NEGATIVE])
    rows = [text.negative, text.negative, text.prompt, text.negative]
    for mine, theirs in zip(("pooled", "hidden", "mask"), batch):
        assert torch.equal(torch.cat([getattr(row, mine) for row in rows]), theirs)


def test_prior_weights(load):
    _, components = load("kandinsky_prior")
    base, weighted = (
        encode_prior(components, "a big cat on the moon").prompt,
        encode_prior(components, "a big (cat)1.5 on the moon").prompt,
    )
    assert torch.equal(weighted.pooled, base.pooled)
    assert torch.equal(weighted.mask, base.mask)
    moved = (weighted.hidden - base.hidden).abs().amax(-1)[0] > 1e-5
    assert moved.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("syntax", ["compel", "plain"])
def test_prior_long_text_is_laid_over(load, syntax):
    pipe, components = load("kandinsky_prior")
    monitor = Hearing()
    first, second = " ".join(WORDS.split()[:74]) + ".", "a cat on the moon"
    text = encode_prior(components, f"{first} {second}", "", syntax, monitor)
    assert len(monitor.heard) == 1
    assert "77 tokens" in monitor.heard[0]
    one, two = prior_script(pipe, first), prior_script(pipe, second)
    assert torch.equal(text.prompt.pooled, one[0])
    assert text.prompt.mask.all()
    shared = int(two[2].sum())
    assert shared == 7
    expected = one[1].clone()
    expected[:, :shared] = (one[1] + two[1])[:, :shared] / 2
    assert torch.allclose(text.prompt.hidden, expected, atol=1e-6)


def test_prior_combined_texts(load):
    pipe, components = load("kandinsky_prior")
    cat, dog = prior_script(pipe, "a cat"), prior_script(pipe, "a big dog on the moon")
    joined = encode_prior(components, '("a cat", "a big dog on the moon").and()').prompt
    assert torch.equal(joined.mask, dog[2])
    assert torch.allclose(joined.hidden[:, :4], (cat[1] + dog[1])[:, :4] / 2, atol=1e-6)
    assert (cat[2].sum(), dog[2].sum()) == (4, 8)
    assert torch.allclose(joined.hidden[:, 4:8], dog[1][:, 4:8], atol=1e-6)
    assert torch.allclose(joined.hidden[:, 8:], cat[1][:, 8:], atol=1e-6)
    blend = encode_prior(components, '("a cat", "a big dog on the moon").blend(3, 1)').prompt
    assert torch.equal(blend.mask, dog[2])
    assert torch.allclose(blend.hidden, 0.75 * cat[1] + 0.25 * dog[1], atol=1e-5)
    assert torch.allclose(blend.pooled, 0.75 * cat[0] + 0.25 * dog[0], atol=1e-5)


def test_prior_mask_where_the_padding_is_not_the_end(load):
    pipe, components = load("kandinsky_prior")
    components["tokenizer"].pad_token = "!"
    assert pipe.tokenizer.pad_token_id != pipe.tokenizer.eos_token_id
    for prompt in (PROMPT, "", "cat !"):
        assert_row(encode_prior(components, prompt, syntax="plain").prompt, prior_script(pipe, prompt))


def test_prior_refuses_another_family(load):
    _, components = load("sd15")
    with pytest.raises(RelayError, match=r"small/sd15 .*not a prior"):
        encode_prior(components, PROMPT)


# --- marks


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_mark_knows_copies(load, name):
    _, components = load(name)
    for dtype in (torch.float16, torch.bfloat16):
        _, copied = load(name, dtype)
        assert mark_of(components).is_same(mark_of(copied))
        assert mark_of(copied).is_same(mark_of(components))


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_mark_knows_others(load, name):
    _, components = load(name)
    for part in components.family.text_encoders:
        _, moved = load(name)
        for layer in [layer for layer in moved[part].modules() if type(layer).__name__ == "CLIPEncoderLayer"][-1:]:
            for weight in layer.parameters():
                weight.data += (
                    0.01
                    * weight.data.square().mean().sqrt()
                    * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
                )
        assert not mark_of(components).is_same(mark_of(moved))
        _, other = load(name)
        for weight in other[part].parameters():
            weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)) * weight.data.std()
        assert not mark_of(components).is_same(mark_of(other))
    others = [mark_of(load(other)[1]) for other in TEXT_MODELS if other != name]
    assert not any(mark_of(components).is_same(other) for other in others)


def test_mark_of_an_encoder_with_a_lora(load):
    from peft import LoraConfig, inject_adapter_in_model

    _, components = load("sd15")
    before = mark_of(components)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), components["text_encoder"])
    assert before.is_same(mark_of(components))
