"""Prompt syntaxes: what each reads, what it refuses, and that no text makes it hang."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.weighting.prompt_text import Blend, Fragment, Passage, Prompt
from diffusers_relay.weighting.syntax import SYNTAXES, parse


def fragments(*pairs):
    return tuple(Fragment(text, pytest.approx(weight)) for text, weight in pairs)


def one_passage(*pairs):
    return Prompt(parts=(Passage(fragments(*pairs)),), weights=(1.0,))


WEIGHTS = {
    "a cat": [("a cat", 1)],
    "": [("", 1)],
    " \n ": [("", 1)],
    "()": [("", 1)],
    "cat++ playing": [("cat", 1.21), ("playing", 1)],
    "cat- playing": [("cat", 0.9), ("playing", 1)],
    "(a cat)1.3 playing": [("a cat", 1.3), ("playing", 1)],
    "(a cat)--": [("a cat", 0.81)],
    "(big (red)1.2 car)1.5": [("big", 1.5), ("red", 1.8), ("car", 1.5)],
    "cat.attend(1.3) playing": [("cat", 1.3), ("playing", 1)],
    "hands+, face": [("hands", 1.1), (", face", 1)],
    "hands,face+": [("hands,", 1), ("face", 1.1)],
    "((cat))": [("cat", 1)],
    "a (cat)": [("a cat", 1)],
    "one\ntwo (three\nfour)1.1": [("one two", 1), ("three four", 1.1)],
    r"miku \(vocaloid\)": [("miku (vocaloid)", 1)],
    r"(miku \(vocaloid\))1.2": [("miku (vocaloid)", 1.2)],
    r"c\+\+ code": [("c++ code", 1)],
    r"\"quoted\" sign": [('"quoted" sign', 1)],
    '"a cat"+ here': [("a cat", 1.1), ("here", 1)],
    'a 5" nail': [('a 5" nail', 1)],
    "cat(s) well-known, a,,b ratio 16:9 [x] --ar 3:2": [("cat(s) well-known, a,, b ratio 16:9 [x] --ar 3:2", 1)],
    "(16:9)": [("16:9", 1)],
    r"\(cat:1.3\)": [("(cat:1.3)", 1)],
    "(" * 10 + "cat" + ")" * 10: [("cat", 1)],
}


@pytest.mark.parametrize("text", WEIGHTS)
def test_compel_weights(text):
    assert parse(text, "compel") == one_passage(*WEIGHTS[text])


def test_compel_and():
    assert parse('("a (b)1.2 c", "d").and(1, .5)', "compel") == Prompt(
        parts=(Passage(fragments(("a", 1), ("b", 1.2), ("c", 1))), Passage(fragments(("d", 1)))), weights=(1.0, 0.5)
    )
    assert parse('("a","b").and()', "compel").weights == (1.0, 1.0)
    assert parse('("a\nsmall", "b").and()', "compel").parts[0] == Passage(fragments(("a small", 1)))


@pytest.mark.parametrize(
    ("options", "weights", "normalize"),
    [("1, 0.8", (1, 0.8), True), ("", (1, 1), True), ("1,-1,no_normalize", (1, -1), False)],
)
def test_compel_blend(options, weights, normalize):
    passages = (Passage(fragments(("a cat", 1))), Passage(fragments(("a", 1), ("dog", 1.1))))
    assert parse(f'("a cat", "a dog+").blend({options})', "compel") == Prompt(
        parts=(Blend(passages, weights, normalize),), weights=(1.0,)
    )


LITERAL = {
    "cat++ (in the (deep)1.2 forest)0.8, day": "cat in the deep forest , day",
    '("a cat", "a (big)+ dog").and(1,.5)': "a cat a big dog",
    '("a cat", "a dog").blend(1,.5)': "a cat a dog",
    r"miku \(vocaloid\)+": "miku (vocaloid)",
}


@pytest.mark.parametrize("text", LITERAL)
def test_literal_text(text):
    assert parse(text, "compel").text == LITERAL[text]


@pytest.mark.parametrize(
    "text", ['c++ (a) "b" ("a","b").and() (', r"\( \+", " spaced  out ", "cat.swap(dog)", "(cat:1.3)"]
)
def test_plain_is_literal(text):
    assert parse(text, "plain") == Prompt((Passage((Fragment(text, 1.0),)),), (1.0,))
    assert parse(text, "plain").text == text


@pytest.mark.parametrize(
    ("text", "syntax", "empty"),
    [
        ("", "compel", True),
        (" \n\t", "compel", True),
        ("()", "compel", True),
        ("", "plain", True),
        ("  ", "plain", True),
        ("()", "plain", False),
        ("a", "compel", False),
    ],
)
def test_empty(text, syntax, empty):
    assert parse(text, syntax).is_empty == empty


REFUSED = {
    "a (cat": r"'\(' at character 3 .*never closed.*\\\(",
    "a (b (cat)": r"character 3 ",
    "a cat) b": r"'\)' at character 6 .*closes no bracket",
    ":)": "character 2 ",
    "a cat.swap(dog)": r"\.swap\(\) at character 6 .*not supported",
    "withLora(x,0.5) cat": "Load LoRA",
    "a (cat:1.3) b": r"at character 6 .*\(words\)1\.3",
    "(cat : .8)": r"\(words\)1\.3",
    '("a", "b").and(1)': r"one number for each text",
    '("a", "b").and(foo)': r"one number for each text",
    '("a", "b").and() trailing': "the operator comes last",
    '("a", "b").blend(1, .5) trailing': r"the \.blend\(\.\.\.\) at character 11 .*whole prompt|the operator comes last",
    'before ("a", "b").and()': r"the \.and\(\.\.\.\) at character 18 .*whole prompt",
    '("a, "b").and()': r"\.and\(",
    "cat.attend(foo)": r"\.attend",
    '("a", "b").blend(1, -1)': "add up to 0.*no_normalize",
    "(" * 11 + "cat" + ")" * 11: "nested more than 10 deep at character 11 ",
    "cat" + "+" * 20000: "Compel cannot read",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    with pytest.raises(RelayError, match=f"(?s){REFUSED[text]}"):
        parse(text, "compel")


def test_unknown_syntax_lists_the_known():
    with pytest.raises(RelayError, match=r"'a1112' is not a prompt syntax\. There are: compel, a1111, plain"):
        parse("a cat", "a1112")
    assert list(SYNTAXES) == ["compel", "a1111", "plain"]


def test_the_process_keeps_its_pyparsing():
    from pyparsing import ParserElement

    ParserElement.disable_memoization()  # whatever another library wanted
    before = ParserElement._parse
    parse("((cat))", "compel")
    with pytest.raises(RelayError):
        parse('("a", "b").and(1)', "compel")
    assert ParserElement._parse is before
    ParserElement.enable_packrat()
    try:
        parse("((cat))", "compel")
        assert ParserElement._packratEnabled
    finally:
        ParserElement.disable_memoization()


SYNTAX_PIECES = [
    *'()()"\\+-., :1a\n',
    "cat",
    "1.2",
    ")++",
    ")1.3",
    ".and(",
    ".blend(",
    ".swap(",
    '("',
    '",',
    r"\(",
    "no_normalize",
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(SYNTAX_PIECES), max_size=24).map("".join))
def test_no_text_hangs_or_breaks_the_parser(text):
    started = time.perf_counter()
    try:
        prompt = parse(text, "compel")
    except RelayError:
        pass
    else:
        assert len(prompt.parts) == len(prompt.weights)
        assert all(isinstance(part, (Passage, Blend)) for part in prompt.parts)
    assert time.perf_counter() - started < 2


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["a", "cat", ",", ".", " ", "\n", "!", "'s", "-b", ":", "2", "é", ";"]), max_size=30).map(
        "".join
    )
)
def test_text_without_syntax_is_read_as_one_text(text):
    """But for white space, which CLIP's tokenizer does not see."""
    prompt = parse(text, "compel")
    assert len(prompt.parts) == 1
    assert [fragment.weight for fragment in prompt.parts[0].fragments] == [1.0]
    assert "".join(prompt.text.split()) == "".join(text.split())
