"""Two CLIPs and T5, against StableDiffusion3Pipeline's own encode_prompt, on small random models of the real classes."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from diffusers_relay.pipelines.base.encoded_once import ENCODED
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.memory_size import module_bytes
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.device.streaming import resident_bytes, streamed
from diffusers_relay.pipelines.device.working_memory import text_bytes
from diffusers_relay.pipelines.model import family_table as families
from diffusers_relay.pipelines.model.component_classes import T5, T5_TOKENIZER
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import check_prompt_fits, mark_of
from diffusers_relay.pipelines.model.laws import TextLayer, TextRecipe
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.weighting import t5_encoder
from diffusers_relay.weighting.compel_encoder import encode_prompt
from diffusers_relay.weighting.conditioning import to_conditioning
from diffusers_relay.weighting.prompt_text import Fragment, Passage
from small_models.parts import make_text_encoder, make_tokenizer
from small_models.tokenizer import WORDS

FAMILY = dataclasses.replace(
    families.SDXL_BASE,
    name="two-clips-and-t5",
    title="Stable Diffusion 3",
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    text=TextRecipe.CLIP_AND_T5,
    text_layer=TextLayer.PENULTIMATE,
    has_pooled_embeds=True,
    takes_embeddings=False,
    optional=frozenset({"text_encoder_3", "tokenizer_3"}),
    denoiser="transformer",
    config_flags={},
)
PROMPT = "a photo of a cat, playing in the forest;well-known cat's hat!"
LONG = "a cat sitting on the moon, an oil painting. " * 30
T5_WIDTH = 80
DTYPES = (torch.float32, torch.bfloat16)


def t5_tokenizer():
    from transformers import T5TokenizerFast

    words = [f"▁{word}" for word in sorted(set(WORDS.split()))]
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(word, -3.0) for word in words] + [(letter, -6.0) for letter in letters] + [("▁etc.", -3.0)]
    return _fast(T5TokenizerFast, pieces)


def _fast(kind, pieces):
    """Makes it from a tokenizer of the tokenizers library, which works in transformers 4 and 5."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import Unigram

    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    made = kind(tokenizer_object=tokenizer, extra_ids=0)
    if made("a cat").input_ids[-1] != 1 or len(made) < len(pieces):  # transformers 5 builds it from a vocabulary
        made = kind(vocab=pieces, extra_ids=0)
    return made


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("tokenizers")
    tokenizer, size = make_tokenizer(folder / "one")
    tokenizer_2, _ = make_tokenizer(folder / "two", pad_token="!")
    tokenizer_3 = t5_tokenizer()
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=len(tokenizer_3),
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    t5 = T5EncoderModel(config).eval().requires_grad_(False)
    with torch.no_grad():
        for weight in t5.parameters():  # with the initial weights, the states hardly differ between tokens
            weight.copy_(torch.randn(weight.shape) / math.sqrt(weight.shape[-1]) if weight.dim() > 1 else weight)
    return {
        "text_encoder": make_text_encoder(1, size, act="quick_gelu", projected=32),
        "tokenizer": tokenizer,
        "text_encoder_2": make_text_encoder(2, size, width=40, projected=40),
        "tokenizer_2": tokenizer_2,
        "text_encoder_3": t5,
        "tokenizer_3": tokenizer_3,
    }


@pytest.fixture
def load(parts):
    """(dtype, t5) -> the script's pipeline and our components, with the same modules."""
    import copy

    from diffusers import StableDiffusion3Pipeline

    def load(dtype=torch.float32, t5=True):
        own = {
            name: copy.deepcopy(part).to(dtype) if isinstance(part, torch.nn.Module) else part
            for name, part in parts.items()
            if t5 or not name.endswith("_3")
        }
        transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=T5_WIDTH, sample_size=8, patch_size=2))
        missing = {"text_encoder_3": None, "tokenizer_3": None}
        pipe = StableDiffusion3Pipeline(transformer=None, scheduler=None, vae=None, **{**missing, **own})
        pipe.transformer = transformer
        return pipe, PipelineComponents(FAMILY, "small/sd3", {**own, "transformer": transformer}, dtype)

    return load


def encode(components, prompt, negative="", syntax="compel", **arguments):
    ENCODED.clear()
    runtime = Runtime(PlainOffload(), SilentMonitor())
    return encode_prompt(components, prompt, negative, runtime, syntax=syntax, **arguments)


def script(pipe, prompt, negative=None, **arguments):
    with torch.no_grad():
        return pipe.encode_prompt(prompt, None, None, device="cpu", negative_prompt=negative, **arguments)


def ours(embeds):
    return embeds.positive.hidden, embeds.negative.hidden, embeds.positive.pooled, embeds.negative.pooled


def assert_same(embeds, expected):
    for mine, theirs in zip(ours(embeds), expected):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert torch.equal(mine, theirs), (mine - theirs).abs().max()


def t5_part(embeds):
    return embeds.positive.hidden[:, 77:]


# --- the script's numbers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t5", [True, False], ids=["T5", "no T5"])
@pytest.mark.parametrize("syntax", ["compel", "a1111", "plain"])
def test_weight_one_is_the_script(load, syntax, t5, dtype):
    pipe, components = load(dtype, t5)
    for prompt, negative in ((PROMPT, ""), ("", "ugly,deformed"), (f"  {PROMPT}\n", "\t")):
        embeds = encode(components, prompt, negative, syntax)
        assert_same(embeds, script(pipe, prompt, negative.strip() or None))
        assert embeds.positive.hidden.shape == (1, 77 + 256, T5_WIDTH)
        assert embeds.positive.pooled.shape == (1, 32 + 40)


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_is_the_script(load, skip):
    pipe, components = load()
    assert_same(encode(components, PROMPT, clip_skip=skip), script(pipe, PROMPT, clip_skip=skip))
    assert not torch.equal(encode(components, PROMPT).positive.hidden, script(pipe, PROMPT, clip_skip=skip)[0])


def test_clip_skip_counts_the_clips_layers(load):
    _, components = load()
    with pytest.raises(RelayError, match=r"clip_skip: 3 .*has 3 layers: use 0 to 2"):
        encode(components, PROMPT, clip_skip=3)


# --- long texts


def test_a_long_text_is_the_scripts_with_a_longer_sequence(load):
    pipe, components = load()
    tokens = len(components["tokenizer_3"](LONG).input_ids)
    assert 256 < tokens <= 512
    embeds = encode(components, LONG, "ugly")
    clip = embeds.positive.hidden.shape[1] - 512
    assert (clip % 77, clip > 77) == (0, True)
    assert embeds.negative.hidden.shape == embeds.positive.hidden.shape
    positive, negative, *pooled = script(pipe, LONG, "ugly", max_sequence_length=512)
    assert torch.equal(embeds.positive.hidden[:, clip:], positive[:, 77:])
    assert torch.equal(embeds.negative.hidden[:, clip:], negative[:, 77:])
    assert torch.equal(embeds.negative.hidden[:, :77], negative[:, :77])
    for mine, theirs in zip(ours(embeds)[2:], pooled):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("words", "length"), [(255, 256), (256, 512)])
def test_t5_has_room_for_the_end_mark(load, words, length):
    _, components = load()
    encoder = t5_encoder.t5_length(components["tokenizer_3"], [plain("cat " * words)])
    assert encoder == length


def plain(text):
    from diffusers_relay.weighting.prompt_text import plain_prompt

    return plain_prompt(text)


def test_texts_of_and_follow_one_another(load):
    pipe, components = load()
    embeds = encode(components, '("a cat", "a dog").and()', "")
    assert embeds.positive.hidden.shape == (1, 2 * (77 + 256), T5_WIDTH)
    cat, dog, empty = (script(pipe, text)[0] for text in ("a cat", "a dog", ""))
    assert torch.equal(embeds.positive.hidden, torch.cat([cat[:, :77], dog[:, :77], cat[:, 77:], dog[:, 77:]], dim=1))
    assert torch.equal(embeds.negative.hidden, torch.cat([empty[:, :77]] * 2 + [empty[:, 77:]] * 2, dim=1))


def test_a_blend_is_the_mean(load):
    pipe, components = load()
    cat, dog = (script(pipe, text)[0] for text in ("a cat", "a dog"))
    blend = encode(components, '("a cat", "a dog").blend(3, 1)').positive.hidden
    assert torch.allclose(blend, 0.75 * cat + 0.25 * dog, atol=1e-5)


# --- weights


@pytest.mark.parametrize(
    ("syntax", "text"), [("compel", "a (cat)1.5, on the moon"), ("a1111", "a (cat:1.5), on the moon")]
)
def test_more_weight_leads_away_from_the_empty_text(load, syntax, text):
    pipe, components = load()
    base, empty = (script(pipe, one)[0][:, 77:] for one in ("a cat, on the moon", ""))
    expected = base.clone()
    expected[:, 1] = empty[:, 1] + 1.5 * (base[:, 1] - empty[:, 1])
    assert components["tokenizer_3"].convert_ids_to_tokens(components["tokenizer_3"]("a cat,").input_ids)[1] == "▁cat"
    assert torch.allclose(t5_part(encode(components, text, syntax=syntax)), expected, atol=1e-5)


@pytest.mark.parametrize("at", [0, 1], ids=["the first token", "another"])
def test_less_weight_leads_to_the_text_without_it(load, at):
    """As in Compel: scaled towards the empty text, and averaged with the states of the text with the word masked."""
    pipe, components = load()
    tokenizer, t5 = components["tokenizer_3"], components["text_encoder_3"]
    ids = tokenizer("cat dog", padding="max_length", max_length=256, return_tensors="pt").input_ids
    mask = torch.ones_like(ids)
    mask[0, at] = 0
    with torch.no_grad():
        base, without = t5(ids)[0], t5(ids, attention_mask=mask)[0]
    empty = script(pipe, "")[0][:, 77:]
    for states in (base, without):
        states[:, at] = empty[:, at] + 0.5 * (states[:, at] - empty[:, at])
    share = math.tan(0.25 * math.pi)
    text = "(cat)0.5 dog" if at == 0 else "cat (dog)0.5"
    assert torch.allclose(t5_part(encode(components, text)), (base + share * without) / (1 + share), atol=1e-5)


TOKENS = [
    (("a", "cat"), (1.0, 1.5), [(["▁a"], 1.0), (["▁cat"], 1.5)]),
    (("cat", "dog"), (1.5, 1.0), [(["▁cat"], 1.5), (["▁dog"], 1.0)]),
    (("a cat", ", dog"), (1.5, 1.0), [(["▁a", "▁cat"], 1.5), ([",", "▁dog"], 1.0)]),
    (("cat", "'s hat"), (1.5, 1.0), [(["▁cat"], 1.5), (["'", "s", "▁hat"], 1.0)]),
    (("etc", ". dog"), (0.5, 1.0), [(["▁etc."], 0.5), (["▁dog"], 1.0)]),
    (("etc", ". dog"), (1.0, 0.5), [(["▁etc.", "▁dog"], 0.5)]),
    (("", "cat", ""), (1.0, 2.0, 1.0), [(["▁cat"], 2.0)]),
    (("",), (1.0,), []),
]


@pytest.mark.parametrize("counts_spaces", [False, True])
@pytest.mark.parametrize(("texts", "weights", "expected"), TOKENS)
def test_tokens_of_fragments_are_those_of_the_whole_text(texts, weights, expected, counts_spaces):
    from tokenizers import pre_tokenizers

    tokenizer = t5_tokenizer()
    if counts_spaces:  # as in tokenizers made from a sentencepiece file
        metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
        tokenizer.backend_tokenizer.pre_tokenizer = metaspace
        assert tokenizer("a cat", return_offsets_mapping=True)["offset_mapping"][1] == (1, 5)
    passage = Passage(tuple(Fragment(text, weight) for text, weight in zip(texts, weights)))
    found = t5_encoder.weighted_tokens(tokenizer, passage)
    assert [(tokenizer.convert_ids_to_tokens(ids), weight) for ids, weight in found] == expected


def test_too_many_weights_below_one_are_refused(load, monkeypatch):
    _, components = load()
    monkeypatch.setattr(t5_encoder, "MAX_STATES", 2 * 256 * T5_WIDTH)
    encode(components, "(cat)0.5 dog")
    with pytest.raises(RelayError, match="3 runs of the T5 text encoder over 256 tokens, and at most 2"):
        encode(components, "(cat)0.5 (dog)0.4")


# --- as conditioning


def test_conditioning_has_the_hosts_shapes(load):
    for t5, tokens in ((True, 77 + 256), (False, 77)):  # without a T5, the host adds no tokens for it
        ((hidden, extras),) = to_conditioning(encode(load(t5=t5)[1], PROMPT).positive)
        assert hidden.shape == (1, tokens, T5_WIDTH)
        assert extras["pooled_output"].shape == (1, 72)


def test_marks(load):
    _, components = load()
    _, without = load(t5=False)
    _, half = load(torch.bfloat16)
    prompt = encode(components, PROMPT)
    for same in (half, without):
        assert mark_of(components).is_same(mark_of(same))
        assert mark_of(same).is_same(mark_of(components))
        check_prompt_fits(prompt, same)
    mixed = mix(prompt, encode(without, PROMPT), 0.5)
    assert (mixed.positive.stand_ins, mixed.positive.hidden.shape[1]) == (0, 333)
    _, other = load()
    other["text_encoder_3"].encoder.block[-1].layer[0].SelfAttention.q.weight.mul_(-1)
    assert not mark_of(components).is_same(mark_of(other))
    # SDXL has the same two CLIPs and reads them at the same layer
    sdxl = PipelineComponents(families.SDXL_BASE, "small/sdxl", dict(without.modules), torch.float32)
    with pytest.raises(RelayError, match=r"small/sd3 \(two CLIP .* small/sdxl .* uses CLIP encoders"):
        check_prompt_fits(encode(without, PROMPT), sdxl)


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda one: one.name)
def test_embeddings_are_taken_where_diffusers_has_them(family):
    classes = [family.pipeline_class(task) for task in family.pipeline_classes]
    able = bool(family.text_encoders) and all(hasattr(one, "load_textual_inversion") for one in classes)
    assert family.takes_embeddings == able


def test_classes():
    import transformers

    assert T5.named("transformers", "T5EncoderModel") == "T5EncoderModel"
    for name in ("T5Tokenizer", "T5TokenizerFast"):
        assert hasattr(transformers, T5_TOKENIZER.named("transformers", name))


# --- on the device


def test_t5_streams_block_by_block(parts):
    import copy

    t5 = copy.deepcopy(parts["text_encoder_3"])
    blocks = [module_bytes([block]) for block in t5.encoder.block]
    assert resident_bytes(t5) == module_bytes([t5]) - min(blocks)
    ids = torch.tensor([[5, 6, 7, 1]])
    expected = t5(ids)[0]
    with streamed(t5, torch.device("cpu")):
        assert torch.equal(t5(ids)[0], expected)
        assert sum("_diffusers_hook" in vars(module) for module in t5.modules()) >= len(blocks)
    assert not any("_diffusers_hook" in vars(module) for module in t5.modules())


def test_working_memory_counts_the_whole_text(parts):
    t5, clip = parts["text_encoder_3"], parts["text_encoder"]
    short, long = text_bytes([t5], ["a cat", ""]), text_bytes([t5], ["cat " * 400, ""])
    heads_and_bias = 4 * 1792 * 1792 * 4
    assert long > heads_and_bias > short
    assert text_bytes([clip, t5], ["a cat", ""]) == text_bytes([clip], ["a cat", ""]) + short
