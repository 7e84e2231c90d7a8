"""Prompt syntaxes: what each one reads and rejects, and that no text makes it hang."""

import json
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.weighting import a1111, compel_syntax, foreign, limits
from diffusers_relay.weighting import shortened as shortened_texts
from diffusers_relay.weighting.foreign import notes_on
from diffusers_relay.weighting.prompt_text import Blend, Fragment, Passage, Prompt
from diffusers_relay.weighting.shortened import restored, shortened
from diffusers_relay.weighting.syntax import SYNTAXES, parse
from relay_host.paths import ROOT


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
    "((cat))++": [("cat", 1.21)],
    "((a)1.2 (b)1.1)1.5": [("a", 1.8), ("b", 1.65)],
    "(x)0": [("x", 0)],
    "(red)1.5cat": [("red", 1.5), ("cat", 1)],
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
    "(a " * 10 + "cat" + ")" * 10: [("a " * 10 + "cat", 1)],
    'he said "hello, you", and (a \'big\' "red" cat)1.3': [
        ('he said "hello, you", and', 1),
        ("a 'big' \"red\" cat", 1.3),
    ],
    'a "(red)1.2 cat" here': [('a "', 1), ("red", 1.2), ('cat" here', 1)],
    '"good++ cat" "a dog"--': [('"', 1), ("good", 1.21), ('cat"', 1), ("a dog", 0.81)],
    'a sign that says "open': [('a sign that says "open', 1)],
    "\u202eشمس \U0001f63a a\0b \x01 (été)1.2": [("\u202eشمس \U0001f63a a\0b \x01", 1), ("été", 1.2)],
    "[16:9] a <3 b, {x} band AND android": [("[16:9] a <3 b, {x} band AND android", 1)],
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
    "((masterpiece)), a cat": r"\(\(masterpiece\)\).* at character 1 .*1\.21 in the a1111 syntax.*masterpiece\+\+ ",
    "a (((very good)))": r"character 3 .*1\.33.*\(very good\)\+\+\+",
    "(a ((x)) b)1.3": "character 4 .*1\\.21",
    "a cat <lora:detail:0.8>": r"<lora:\.\.\.> at character 7 .*Load LoRA \(Diffusers\)",
    "<hypernet:x:1>": "loads nothing",
    "a cat, embedding:EasyNegative": r"character 8 .*Load Textual Inversion",
    "a cat BREAK a dog": r"BREAK at character 7 .*a1111.*lowercase",
    "[cat:dog:0.5] in a field": r"character 1 .*changes the text",
    "[cat:0.5]": "character 1 ",
    "[cat|dog]": "character 1 ",
    "(x)1e309": r'"1e309" at character 4 .*not a weight',
    "(x)1.5.5": '"1.5.5" at character 4 ',
    "(x)-0.5": '"-0.5" at character 4 ',
    "(x)+2": '"\\+2" at character 4 ',
    "(x)nan": '"nan" at character 4 ',
    '"a cat"-1': '"-1" at character 8 ',
    "(x)" + "9" * 400 + ".0": "too large",
    '("a", "b").blend(nan, 1)': "too large or not a number",
    '("a", "b").and(inf, 1)': "too large or not a number",
    "a\ud800": "character 2 is half of a character",
    "a" * 1001: "1,001 characters, and at most 1,000",
    "猫" * 1001: "1,001 characters",
    "!" * 1001: "1,001 characters",
    "a " * 10_001: "20,002 characters, and at most 20,000",
    "(a)1.1" * 2000: r"12,000 characters of weights.*at most 8,000",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    with pytest.raises(RelayError, match=f"(?s){REFUSED[text]}"):
        parse(text, "compel")


@pytest.mark.parametrize(
    ("text", "syntax", "says"),
    [
        ("a man AND a dog", "compel", [r'AND at character 7 .*\("one", "another"\)\.and\(\)']),
        ("[bad], cat", "compel", [r"\[bad\].* has no weight in Compel's syntax.*a1111"]),
        ("{red|blue} __hair/colour__", "compel", ["wildcard", r"\{red\|blue\}"]),
        ("{red|blue}", "a1111", ["choice"]),
        ("(cat)1.3 dog", "a1111", [r"1\.3.* read as text.*\(words:1\.3\)"]),
        ("[bad] AND {a|b} __x__ (a)1.3", "plain", []),
        ("a [1], well_known__ {x} cat, (a)1.3", "compel", []),
        ("[bad] (cat:1.3) f/1.8", "a1111", []),
    ],
)
def test_what_may_be_prose_is_said(text, syntax, says):
    notes = list(notes_on(text, syntax))
    assert len(notes) == len(says)
    assert all(re.search(one, note) for one, note in zip(says, notes))


def test_the_word_of_a_loaded_embedding_is_named():
    with pytest.raises(RelayError, match=r"write only easynegative"):
        parse("a cat, embedding:EasyNegative.safetensors", "compel", words=["other", "easynegative"])
    with pytest.raises(RelayError, match="Load Textual Inversion"):
        parse("a cat, embedding:EasyNegative", "compel", words=["other"])


@pytest.mark.parametrize("text", [text for text in REFUSED if text.isprintable() and len(text) < 500])
def test_plain_refuses_nothing_of_it(text):
    assert parse(text, "plain").text == text


def example_prompts():
    for file in sorted((ROOT / "example_workflows").glob("*.json")):
        for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]:
            if node["type"] in ("RelayEncodePrompt", "RelayKandinskyPrior"):
                prompt, negative, syntax = node["widgets_values"][:3]
                yield from ((file.name, text, syntax) for text in (prompt, negative))


def test_the_examples_prompts_are_read_with_nothing_to_say():
    examples = list(example_prompts())
    assert len({file for file, _, _ in examples}) > 10
    for file, text, syntax in examples:
        assert parse(text, syntax).is_empty == (not text.strip()), file
        assert list(notes_on(text, syntax)) == [], file


def test_the_help_page_s_quotes_and_weights_are_so():
    page = (ROOT / "web/docs/RelayEncodePrompt.md").read_text(encoding="utf-8")
    assert 'a sign that says "open"' in page
    assert parse('a sign that says "open"', "compel") == one_passage(('a sign that says "open"', 1))
    assert parse('"red cat"1.3', "compel") == one_passage(("red cat", 1.3))
    assert parse(r'("a \"big\" cat", "b").and()', "compel").text == 'a "big" cat b'
    assert f"{limits.MAX_CHARACTERS:,} characters" in page
    assert f"{compel_syntax.MAX_SYNTAX:,} characters of weights" in page
    assert parse("((cat:1.3))", "a1111") == one_passage(("cat", 1.3))
    assert "regardless of outer brackets" in page


def test_unknown_syntax_lists_the_known():
    with pytest.raises(RelayError, match=r"'a1112' is not a prompt syntax\. Choose one of: compel, a1111, plain"):
        parse("a cat", "a1112")
    assert list(SYNTAXES) == ["compel", "a1111", "plain"]


def test_the_process_keeps_its_pyparsing():
    from pyparsing import ParserElement

    ParserElement.disable_memoization()  # restores the default, whatever another library set
    before = ParserElement._parse
    parse("(cat)", "compel")
    with pytest.raises(RelayError):
        parse('("a", "b").and(1)', "compel")
    assert ParserElement._parse is before
    ParserElement.enable_packrat()
    try:
        parse("(cat)", "compel")
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


WORDS = [
    *'()()"+-., :1\n=',
    "cat",
    "a b",
    "well-known",
    "b-",
    "1girl",
    "é漢",
    "a_b's",
    " ",
    " ",
    ")1.2",
    ")++ ",
    ' "',
    '" ',
    r"\(",
    r" \(a\) ",
    r"\"",
    "x.y",
    ".attend(1.3)",
    '("a b", "c d-e, f").and(1, 0.5)',
    '("a one", "b").blend(1, -.5, no_normalize)',
]


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=16).map("".join))
def test_what_is_shortened_means_the_same_to_compel_s_parser(text):
    line = re.sub(r"\s+", " ", text).strip()
    short, runs = shortened(line)
    try:
        mine = restored(compel_syntax._by_compel(short), runs)
    except Exception:  # then the whole line is parsed
        return
    assert mine is None or mine == compel_syntax._by_compel(line)


def test_most_of_a_prompt_is_nothing_to_compel_s_parser():
    tags = r"masterpiece, best quality, 1girl, semi-realistic, miku \(vocaloid\), \"hi\", it's 16:9, "
    for text, most in (
        (tags * 50, 1),
        (f"{tags * 20}(blue eyes)1.2, {tags * 20}", 12),
        (f'("{"a cat " * 200}", "b").and()', 20),
    ):
        assert len(shortened(text.strip())[0]) <= most
    assert parse(tags * 50, "compel").text == re.sub(r"\\(.)", r"\1", tags * 50).strip()


PATTERNS = [one for one in vars(foreign).values() if isinstance(one, re.Pattern)] + [
    a1111.TOKEN,
    limits.WORDS,
    shortened_texts.PLAIN_RUN,
    shortened_texts.QUOTE,
]
PIECES = [
    "(a:1",
    "1",
    "1.",
    ":",
    "[a:",
    "[",
    "[a",
    "<a:",
    "<",
    "__a ",
    "__",
    "_",
    "{",
    "{a|",
    "|",
    "(",
    ")",
    ")-",
    ")1",
    ").",
    ') "',
    '"',
    "embedding:",
    " ",
    "a ",
    "a",
    "a b-",
    "-",
    "+",
    "e1",
    ".",
    ",",
    "\\",
    "AND ",
    "x :",
    "x:1",
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda one: one.pattern[:30])
def test_patterns_take_time_in_proportion_to_the_text(pattern):
    """Repeats three pieces many times: four times as many must take far less than sixteen times as long."""

    def taken(text):
        return min(_seconds(lambda: [None for _ in pattern.finditer(text)]) for _ in range(3))

    for start in ("", "(a:", "[a", '"'):
        for piece in PIECES:
            for end in ("", "x", ")x"):
                long = taken(start + piece * 4000 + end)
                assert long < 0.02 or long < 9 * taken(start + piece * 1000 + end) + 0.01, (start, piece, end)


def _seconds(call):
    started = time.process_time()
    call()
    return time.process_time() - started


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "piece",
    [
        "(a:1",
        "1",
        "masterpiece, a well-known cat. ",
        "(a (b)1.1)1.2 ",
        '("a b", ',
        "[a",
        "((a",
        '"a ',
        r"\(a\) ",
        "a++ ",
    ],
)
def test_no_prompt_holds_the_process(syntax, piece):
    for count in (400, 19_000 // len(piece), 40_000 // len(piece)):
        started = time.process_time()
        with suppress(RelayError):
            prompt = parse(piece * count, syntax)
            list(notes_on(prompt.text, syntax))
        assert time.process_time() - started < 8, count  # at most 2.5 s on an idle machine


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
    """Except for white space, which CLIP's tokenizer ignores."""
    prompt = parse(text, "compel")
    assert len(prompt.parts) == 1
    assert [fragment.weight for fragment in prompt.parts[0].fragments] == [1.0]
    assert "".join(prompt.text.split()) == "".join(text.split())
