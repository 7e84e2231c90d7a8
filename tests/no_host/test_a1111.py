"""The web UI's prompt syntax: what it reads, what it rejects, its speed on any text, and the embeddings that Compel makes from it."""

import math
import time
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.device.offload import PlainOffload
from diffusers_relay.pipelines.device.runtime import Runtime
from diffusers_relay.weighting.compel_encoder import encode_prompt
from diffusers_relay.weighting.prompt_text import Fragment, Passage, Prompt
from diffusers_relay.weighting.syntax import parse
from support.without_host import load


def fragments(*pairs):
    return tuple(Fragment(text, pytest.approx(weight)) for text, weight in pairs)


def passages(*parts):
    return Prompt(tuple(Passage(fragments(*part)) for part in parts), (1.0,) * len(parts))


WEIGHTS = {
    "a cat": [("a cat", 1)],
    "": [("", 1)],
    " \n ": [("", 1)],
    "()": [("", 1)],
    "([])": [("", 1)],
    "a (cat)": [("a", 1), ("cat", 1.1)],
    "((cat))": [("cat", 1.21)],
    "a [cat] here": [("a", 1), ("cat", 1 / 1.1), ("here", 1)],
    "[[cat]]": [("cat", 1 / 1.21)],
    "([cat])": [("cat", 1)],
    "(cat:1.3)": [("cat", 1.3)],
    "(cat: 1.3 ) dog": [("cat", 1.3), ("dog", 1)],
    "(cat :.5)": [("cat", 0.5)],
    "(cat:2.)": [("cat", 2)],
    "(cat:+2)": [("cat", 2)],
    "(cat:0)": [("cat", 0)],
    "((cat:1.3))": [("cat", 1.3)],
    "[(cat:1.32)]": [("cat", 1.32)],
    "((cat):1.3)": [("cat", 1.43)],
    "(a (big) [red] cat:1.5)": [("a", 1.5), ("big", 1.65), ("red", 1.5 / 1.1), ("cat", 1.5)],
    "(a (b (c:2):3) (d):4)": [("a", 4), ("b", 3), ("c", 2), ("d", 4.4)],
    "(a:1.2:1.3)": [("a:1.2", 1.3)],
    "(16:9)": [("16", 9)],
    "at 16:9, (a: b) cat:1.3": [("at 16:9,", 1), ("a: b", 1.1), ("cat:1.3", 1)],
    "(style: oil painting)": [("style: oil painting", 1.1)],
    "(at 10:30 in the morning)": [("at 10:30 in the morning", 1.1)],
    "(cat:1.3 and dog)": [("cat:1.3 and dog", 1.1)],
    "(:3)": [(":3", 1.1)],
    "(smile, :d)": [("smile, :d", 1.1)],
    "(:d:1.2)": [(":d", 1.2)],
    "[style: oil]": [("style: oil", 1 / 1.1)],
    "a | b (c | d)": [("a | b", 1), ("c | d", 1.1)],
    r"miku \(vocaloid\)": [("miku (vocaloid)", 1)],
    r"(miku \(vocaloid\):1.2)": [("miku (vocaloid)", 1.2)],
    r"\[x\] \\ \o/": [(r"[x] \ \o/", 1)],
    r"(cat\:1.3)": [("cat:1.3", 1.1)],
    r"[a\|b]": [("a|b", 1 / 1.1)],
    "cat++ <3 \"a\",'b' {x}": [("cat++ <3 \"a\",'b' {x}", 1)],
    "one\n two (three\tfour)": [("one two", 1), ("three four", 1.1)],
    "(red)cat": [("red", 1.1), ("cat", 1)],
    "band BREAKFAST and android": [("band BREAKFAST and android", 1)],
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_weights(text):
    assert parse(text, "a1111") == passages(WEIGHTS[text])


PARTS = {
    "a BREAK b": [[("a", 1)], [("b", 1)]],
    "a,\nBREAK\n(b:1.3) c": [[("a,", 1)], [("b", 1.3), ("c", 1)]],
    "(a BREAK b:1.3)": [[("a", 1.3)], [("b", 1.3)]],
    "a BREAK BREAK b": [[("a", 1)], [("", 1)], [("b", 1)]],
    "BREAK b": [[("", 1)], [("b", 1)]],
    "a BREAK ": [[("a", 1)]],
    "BREAK": [[("", 1)]],
}


@pytest.mark.parametrize("text", PARTS)
def test_break(text):
    assert parse(text, "a1111") == passages(*PARTS[text])


def test_literal_text():
    prompt = parse(r"(a (big:1.3) cat), [blue] \(sky\) BREAK (day:0.5)", "a1111")
    assert prompt.text == "a big cat , blue (sky) day"
    assert parse(" ( ) BREAK []", "a1111").is_empty
    assert not parse(r"\(", "a1111").is_empty


REFUSED = {
    "a (cat": r"'\(' at character 3 .*never closed.*\\\(",
    "a [cat": r"'\[' at character 3 .*never closed",
    "a (b (cat)": "character 3 ",
    "a cat) b": r"'\)' at character 6 .*closes no bracket.*\\\)",
    "a cat] b": r"'\]' at character 6 .*closes no bracket",
    ":)": "character 2 ",
    "(a]": r"'\]' at character 3 .*'\(' at character 1 is still open",
    "([a)]": r"'\)' at character 4 .*'\[' at character 2 is still open",
    "a (cat:abc)": r"':abc' at character 7 .*\(words:1\.3\)",
    "(cat:)": "':' at character 5 ",
    "(cat:1,3)": "':1,3' at character 5 ",
    "(cat:1.3.1)": "character 5 ",
    "(cat:l.3)": "character 5 ",
    "(cat:nan)": "character 5 ",
    "(cat:1e3)": "character 5 ",
    "(cat: -1)": "': -1' at character 5 .*0 or more",
    "((x):abc)": "character 5 ",
    "(cat:" + "9" * 400 + ")": "character 1 .*too large",
    "a [cat:dog:0.5]": r"character 3 .*changes the text at a step.*\(words:0\.8\)",
    "a [cat:5]": "character 3 .*changes the text",
    "[cat::0.5]": "character 1 .*changes the text",
    "[a (b:1.2):dog:.5]": "character 1 .*changes the text",
    "a [cat|dog]": r"character 3 .*from step to step",
    "[(cat:1.2)|dog]": "character 1 .*from step to step",
    "a AND b": r"AND at character 3 .*BREAK",
    "a cat <lora:style:0.8>": "<lora:...> at character 7 .*Load LoRA",
    "(embedding:EasyNegative:1.2), a cat": r'"embedding:EasyNegative" at character 2 .*Load Textual Inversion',
    '("a", "b").and(1, 0.5)': r"character 10 .*Compel's syntax",
    "(cat:" + "1" * 5000 + "x)": r"character 5 .*not a number",
    "<hypernet:x:1>": "<hypernet:...> at character 1 ",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    with pytest.raises(RelayError, match=f"(?s)^prompt: .*{REFUSED[text]}"):
        parse(text, "a1111")


PIECES = [*"()[]\\:|, 1a\n.-", "cat", ":1.2)", ":1.2]", "BREAK", " BREAK ", r"\(", r"\]", ":x)", "<", "AND"]


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_text_is_read_or_refused_with_a_place(text):
    try:
        prompt = parse(text, "a1111")
    except RelayError as error:
        refusal = str(error)
    else:
        refusal = None
        assert len(prompt.parts) == len(prompt.weights) >= 1
        for part in prompt.parts:
            assert isinstance(part, Passage)
            assert part.fragments
            assert all(math.isfinite(f.weight) and f.weight >= 0 for f in part.fragments)
    assert refusal is None or ("character" in refusal and len(refusal) < 1000)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.sampled_from(["cat", "a b", r"\(x\)", ":d"]).map(
            lambda text: (text, [(text.replace("\\", ""), 1.0, False)])
        ),
        lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from(["()", "[]", "(:1.5)"])).map(
            lambda pair: wrapped(*pair)
        ),
        max_leaves=12,
    )
)
def test_brackets_that_match_multiply_and_numbers_stand(made):
    text, expected = made
    assert parse(text, "a1111") == passages([(words, weight) for words, weight, _ in expected])


def wrapped(inner, brackets):
    """Puts the texts in another pair of brackets. The third item says that a number around the text has fixed its weight."""
    factor = {"()": 1.1, "[]": 1 / 1.1, "(:1.5)": 1.5}[brackets]
    body = "()".join(text for text, _ in inner)  # an empty pair separates neighbours
    weights = [
        (text, weight if fixed else weight * factor, fixed or brackets == "(:1.5)")
        for _, entries in inner
        for text, weight, fixed in entries
    ]
    return brackets[0] + "()" + body + "()" + brackets[1:], weights


LONG = {
    "round": "(" * 5000 + ")" * 5000,
    "deep text": "(a" * 3333 + ")" * 3333,
    "open": "(" * 10000,
    "square": "[" * 10000,
    "colons": ":" * 10000,
    "weights": "(a:1.1)" * 1428,
    "open weights": "(a:1.1" * 1666,
    "a long number": "(a:" + "1" * 9990 + "x)",
    "a long number with a point": "(a:" + "1" * 5000 + "." + "1" * 4990 + "x)",
    "backslashes": "\\" * 10000,
    "networks": "<a:" * 3333,
    "breaks": "BREAK " * 1666,
    "words": "word " * 2000,
    "word": "a" * 10000,
}


@pytest.mark.parametrize("name", LONG)
def test_ten_thousand_characters_are_read_in_a_moment(name):
    parse("warm (up:1.1)", "a1111")
    taken = []
    for _ in range(3):  # take the fastest: other processes can only slow it down
        started = time.process_time()
        with suppress(RelayError):
            parse(LONG[name], "a1111")
        taken.append(time.process_time() - started)
    assert min(taken) < 0.1


def encoded(prompt, syntax, model="sd15", negative=""):
    return encode_prompt(load(model), prompt, negative, syntax=syntax, runtime=Runtime(PlainOffload(), SilentMonitor()))


@pytest.mark.parametrize("model", ["sd15", "sdxl_base"])
@pytest.mark.parametrize(
    ("a1111", "compel"),
    [
        ("a red cat", "a red cat"),
        ("a (red:1.3) cat", "a (red)1.3 cat"),
        ("a ((red)) cat", "a (red)1.21 cat"),
        ("a (red:0.5) cat", "a (red)0.5 cat"),
        ("(a (red) cat:1.5)", "(a (red)1.1 cat)1.5"),
        ("a (red:1.3) cat BREAK a dog", '("a (red)1.3 cat", "a dog").and()'),
    ],
)
def test_the_embeddings_are_those_of_compel_s_own_syntax(model, a1111, compel):
    mine, theirs = encoded(a1111, "a1111", model), encoded(compel, "compel", model)
    assert torch.equal(mine.positive.hidden, theirs.positive.hidden)
    if model == "sdxl_base":
        assert torch.equal(mine.positive.pooled, theirs.positive.pooled)


def test_each_break_begins_77_tokens_of_its_own():
    whole = encoded("a cat BREAK a (dog:1.2) BREAK a cow", "a1111").positive.hidden
    assert whole.shape[1] == 3 * 77
    for index, text in enumerate(("a cat", "a (dog:1.2)", "a cow")):
        assert torch.equal(whole[:, index * 77 : (index + 1) * 77], encoded(text, "a1111").positive.hidden)


def test_the_pooled_embedding_is_of_the_literal_text():
    weighted = encoded(r"a ((red)) [cat] \(toy\)", "a1111", "sdxl_base").positive.pooled
    assert torch.equal(weighted, encoded("a red cat (toy)", "plain", "sdxl_base").positive.pooled)


def test_a_negative_prompt_of_brackets_alone_is_none():
    mine, none = (encoded("a cat", "a1111", "sdxl_base", negative).negative for negative in ("()", ""))
    assert torch.equal(mine.hidden, none.hidden)
