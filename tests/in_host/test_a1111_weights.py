"""The a1111 syntax matches the host's own text boxes: the same text gives the same tokens with the same weights."""

from __future__ import annotations

from typing import Any

import pytest

from diffusers_relay.weighting.syntax import parse

SAME = [
    "a red cat on a blue sofa",
    "a (red) cat",
    "((red)) cat",
    "(((red))) cat, (blue) sofa",
    "a (red:1.3) cat",
    "(red cat: 0.7 ), blue",
    "(red :.5)cat",
    "((red):1.3)",
    "(a (big) red cat:1.5), blue",
    "(a (big (red)) cat)",
    "(16:9)",
    "(a:1.2:1.3)",
    "(:3) (smile, :d) (:d:1.2)",
    "(style: oil painting)",
    "(at 10:30 in the morning)",
    r"miku \(vocaloid\), (miku \(vocaloid\):1.2)",
    r"\o/ (\o/:1.2)",
    "one\ntwo (three\nfour:1.1)",
    "a () cat (red:0)",
    "cat:1.3, 16:9, a | b, {x}, cat++",
    "",
    "((red:1.3))",
    "(a (red:1.2) cat:1.5)",
    "((a) (red:0.5) cat)",
]

DIFFERENT = {
    "[red]": ([("red", 1 / 1.1)], [("[red]", 1.0)]),
    r"\[red\]": ([("[red]", 1.0)], [(r"\[red\]", 1.0)]),
}
"""{text: (ours, theirs)}: for the host, square brackets are plain text. `weighting/a1111.py` and the node's help page say so."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from comfy.sd1_clip import SDTokenizer

    return SDTokenizer()


@pytest.mark.parametrize("text", SAME)
def test_tokens_and_weights_are_the_host_s(tokenizer: Any, text: str) -> None:
    (theirs,) = tokenizer.tokenize_with_weights(text)
    (passage,) = parse(text, "a1111").parts
    mine = [
        (token, fragment.weight)
        for fragment in passage.fragments
        for token in tokenizer.tokenizer(fragment.text)["input_ids"][1:-1]
    ]
    end = [token for token, _ in theirs].index(tokenizer.end_token)
    assert [token for token, _ in mine] == [token for token, _ in theirs[1:end]]
    assert [weight for _, weight in mine] == pytest.approx([weight for _, weight in theirs[1:end]])


@pytest.mark.parametrize("text", DIFFERENT)
def test_where_the_two_differ(text: str) -> None:
    from comfy.sd1_clip import token_weights

    ours, theirs = DIFFERENT[text]
    (passage,) = parse(text, "a1111").parts
    assert [(fragment.text, pytest.approx(fragment.weight)) for fragment in passage.fragments] == ours
    assert token_weights(text, 1.0) == theirs
