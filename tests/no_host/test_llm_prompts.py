"""Prompts of LLM text encoders: the scripts' own embeddings, and weights that follow their words through the template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.components import PipelineComponents
from diffusers_relay.pipelines.model.embeds import check_prompt_fits
from diffusers_relay.pipelines.model.mixing import mix
from diffusers_relay.weighting import llm_recipe
from diffusers_relay.weighting.compel_encoder import encode_prompt
from diffusers_relay.weighting.conditioning import to_conditioning
from diffusers_relay.weighting.prompt_text import Fragment, Passage
from diffusers_relay.weighting.token_weights import weighed_tokens
from reference.scripts import loaded
from relay_dev.model_folders import SmallModels
from support.without_host import load

pytestmark = pytest.mark.usefixtures("inference_mode")
PROMPT = "a red cat, on the\nmoon; it's old!"
LONG = "a cat on the moon, an oil painting. " * 60
"""More than the 512 tokens at which Z-Image's script cuts."""


def z_image_script(models: SmallModels) -> Callable[[str], torch.Tensor]:
    from diffusers import ZImagePipeline

    pipeline = loaded(ZImagePipeline, models.named["z_image"], {"vae": None, "transformer": None})
    return lambda text: pipeline.encode_prompt(text, "cpu", False, max_sequence_length=1024)[0][0][None]


def qwen_image_script(models: SmallModels) -> Callable[[str], torch.Tensor]:
    from diffusers import QwenImagePipeline

    pipeline = loaded(QwenImagePipeline, models.named["qwen_image"], {"vae": None, "transformer": None})
    return lambda text: pipeline.encode_prompt(text, "cpu", max_sequence_length=1024)[0]


SCRIPTS = {"z_image": z_image_script, "qwen_image": qwen_image_script}
MODELS = list(SCRIPTS)


def hidden(model: PipelineComponents, prompt: str, syntax: str = "compel", **arguments: Any) -> torch.Tensor:
    runtime = Runtime(PlainOffload(), SilentMonitor())
    return encode_prompt(model, prompt, "", runtime, syntax=syntax, **arguments).positive.hidden


@pytest.mark.parametrize("name", MODELS)
def test_weight_one_is_the_script(models: SmallModels, name: str) -> None:
    model, script = load(name), SCRIPTS[name](models)
    for text in (PROMPT, "", " two  spaces, and\ta tab", "\nc++ (a) <|im_end|> Ünï", LONG):
        assert torch.equal(hidden(model, text, "plain"), script(text)), text
    for syntax, text in (("compel", "a (red)1.0 cat"), ("a1111", "a (red:1.0) cat")):
        assert torch.equal(hidden(model, text, syntax), script("a red cat"))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("syntax", "text"), [("compel", "a (red)1.5 cat (on)0.5 a ball"), ("a1111", "a (red:1.5) cat (on:0.5) a ball")]
)
def test_a_weight_moves_its_own_token_from_the_empty_text(name: str, syntax: str, text: str) -> None:
    """The empty text has padding in place of each token of the prompt, in the same template."""
    model = load(name)
    tokenizer, template = model["tokenizer"], llm_recipe.TEMPLATES[model.family.text]
    encoder = model["text_encoder"]
    ids = tokenizer(template.before + "a red cat on a ball" + template.after).input_ids
    first = len(tokenizer(template.before).input_ids)
    words = tokenizer.convert_ids_to_tokens(ids)[first : first + 6]
    assert words == ["a", "Ġred", "Ġcat", "Ġon", "Ġa", "Ġball"]
    blank = [tokenizer.pad_token_id if first <= at < first + 6 else one for at, one in enumerate(ids)]
    states, empty = (
        encoder(input_ids=torch.tensor([one]), output_hidden_states=True).hidden_states[template.layer][0]
        for one in (ids, blank)
    )
    expected = states.clone()
    for at, weight in ((first + 1, 1.5), (first + 3, 0.5)):
        expected[at] = empty[at] + weight * (states[at] - empty[at])
        assert (expected[at] - states[at]).abs().max() > 0.1
    ours = hidden(model, text, syntax)[0]
    assert torch.allclose(ours, expected[template.dropped :], atol=1e-5)


TOKENS = [
    (("a", "cat"), (1.0, 1.5), [("a", 1.0), ("Ġcat", 1.5)]),
    (("cat", ", dog"), (1.5, 1.0), [("cat", 1.5), (",", 1.0), ("Ġdog", 1.0)]),
    (("a red", "cat"), (0.5, 1.0), [("a", 0.5), ("Ġred", 0.5), ("Ġcat", 1.0)]),
    (("\na",), (2.0,), [("a", 2.0)]),
    (("",), (2.0,), []),
]


@pytest.mark.parametrize(("texts", "weights", "expected"), TOKENS)
def test_the_templates_tokens_belong_to_no_fragment(texts: Any, weights: Any, expected: Any) -> None:
    tokenizer = load("z_image")["tokenizer"]
    passage = Passage(tuple(Fragment(text, weight) for text, weight in zip(texts, weights)))
    ids, owners = weighed_tokens(tokenizer, passage, "<|im_start|>user\n", "<|im_end|>\n")
    tokens = tokenizer.convert_ids_to_tokens(ids)
    found = [(token, weights[owner]) for token, owner in zip(tokens, owners) if owner is not None]
    assert [one for one in found if one[0] not in ("Ċ", "ĊĊ")] == expected
    assert tokens[:2] == ["<|im_start|>", "user"]
    assert owners[:2] == [None, None]
    assert (tokens[-2:], owners[-2:]) == (["<|im_end|>", "Ċ"], [None, None])


def test_parts_follow_one_another_and_a_blend_is_the_mean(models: SmallModels) -> None:
    model, script = load("z_image"), z_image_script(models)
    cat, dog = script("a cat"), script("a dog")
    assert torch.equal(hidden(model, '("a cat", "a dog").and()'), torch.cat([cat, dog], dim=1))
    blend = hidden(model, '("a cat", "a dog").blend(3, 1)')
    assert torch.allclose(blend, 0.75 * cat + 0.25 * dog, atol=1e-5)
    assert hidden(model, '("a cat", "a red dog").blend(1, 1)').shape == script("a red dog").shape


def test_a_prompt_and_its_negative_have_their_own_lengths_and_are_host_conditioning() -> None:
    model = load("z_image")
    prompt = encode_prompt(model, "a cat", "", Runtime(PlainOffload(), SilentMonitor()), syntax="compel")
    assert prompt.positive.hidden.shape[1] == prompt.negative.hidden.shape[1] + 2
    [[states, extras]] = to_conditioning(prompt.positive)
    assert torch.equal(states, prompt.positive.hidden)
    assert extras == {}
    other = encode_prompt(model, "a cat", "ugly", Runtime(PlainOffload(), SilentMonitor()), syntax="compel")
    with pytest.raises(RelayError, match="one negative prompt has 8 tokens and the other 9"):
        mix(prompt, other, 0.5)


@pytest.mark.parametrize("name", MODELS)
def test_a_text_without_a_position_is_refused(name: str) -> None:
    model = load(name)
    with pytest.raises(RelayError, match=r"prompt: it has [\d,]+ tokens .* reads at most [\d,]+\. Shorten it"):
        hidden(model, "cat " * 4500)


def test_clip_skip_and_a_prompt_of_another_model_are_refused() -> None:
    model, other = load("z_image"), load("sd15")
    with pytest.raises(
        RelayError, match=r"clip_skip: z_image \(Z-Image\) has no CLIP text encoder, so 1 can't be skipped"
    ):
        hidden(model, PROMPT, clip_skip=1)
    runtime = Runtime(PlainOffload(), SilentMonitor())
    prompt = encode_prompt(other, PROMPT, "", runtime, syntax="compel")
    with pytest.raises(
        RelayError, match=r"encoded for sd15 .*Z-Image\) uses an LLM that reads the prompt as a message"
    ):
        check_prompt_fits(prompt, model)


# --- files are data


@pytest.fixture
def folder(models: SmallModels, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models.named["z_image"], tmp_path / "model"))


def read(folder: Path) -> PipelineComponents:
    return load_folder(folder, dtype=torch.float32, source="model", monitor=SilentMonitor())


def edit(file: Path, **entries: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **entries}), "utf-8")


@pytest.mark.parametrize("left_out", ["tokenizer.json", "vocab.json"])
def test_a_tokenizer_is_built_from_either_form_and_its_template_is_not_read(folder: Path, left_out: str) -> None:
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ 1 / 0 }}", "utf-8")
    edit(folder / "tokenizer" / "tokenizer_config.json", chat_template="{{ 1 / 0 }}")
    (folder / "tokenizer" / left_out).unlink()
    if left_out == "tokenizer.json":
        edit(
            folder / "tokenizer" / "tokenizer_config.json",
            added_tokens_decoder={
                str(number): {"content": text, "special": True}
                for text, number in load("z_image")["tokenizer"].get_added_vocab().items()
            },
        )
    assert torch.equal(hidden(read(folder), PROMPT), hidden(load("z_image"), PROMPT))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_key_value_heads": 3}, r"num_attention_heads, num_key_value_heads and hidden_size are \[4, 3, 48\]"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "rope_scaling is .*yarn"),
        ({"rope_parameters": {"rope_theta": -1.0}}, "rope_theta is '?-1.0'?, but it must be 1 to 1e"),
        ({"rms_norm_eps": "0"}, "rms_norm_eps is"),
        ({"vocab_size": 10**9}, "vocab_size is 1000000000, which no model has"),
        ({"hidden_size": 4096}, "don't match its config"),
    ],
)
def test_a_config_that_no_model_has_is_refused(folder: Path, entries: dict[str, object], said: str) -> None:
    edit(folder / "text_encoder" / "config.json", **entries)
    with pytest.raises(RelayError, match=said):
        read(folder)


def test_a_tokenizer_without_the_templates_marks_is_refused(folder: Path) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    whole = json.loads(file.read_text("utf-8"))
    edit(file, added_tokens=[one for one in whole["added_tokens"] if one["content"] != "<|im_start|>"])
    with pytest.raises(RelayError, match=r"is not a Qwen tokenizer: it has no token <\|im_start\|>"):
        read(folder)
