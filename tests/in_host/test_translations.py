"""Translations have every text of every node, none that is stale, and the numbers, code and names of the English ones: see relay_dev.translations."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from relay_dev import node_texts, translations

LANGUAGES = ("zh", "zh-TW", "ja", "ko", "fr", "de", "es", "pt-BR", "ru", "tr", "ar")
WITH_HELP = ("zh", "ja", "ko", "fr", "de", "es", "ru")
DENOISING_END = (
    "Below 3, the run stops at that fraction of `steps` and leaves SDXL's noise for Set VAE (denoising_end)."
)

english = functools.cache(node_texts.english_texts)


def test_every_language_is_there() -> None:
    assert translations.languages() == sorted(LANGUAGES)
    assert translations.help_languages() == sorted(WITH_HELP)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_of_every_node_is_translated(language: str) -> None:
    assert translations.problems_of_nodes(language, english()) == []


@pytest.mark.parametrize("language", WITH_HELP)
def test_every_help_page_is_translated(language: str) -> None:
    assert translations.problems_of_all_help(language, english()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3 未満では、`steps` のその割合で止まり、SDXL のノイズを VAE設定 に残します（denoising_end）。", []),
        (
            "2 未満では、`steps` で止まり、SDXL のノイズを VAE設定 に残します（denoising_end）。",
            ["the numbers 2 instead of 3"],
        ),
        (
            "3 未満では、`step` で止まり、SDXL のノイズを VAE設定 に残します（denoising_end）。",
            ["the code `step` instead of `steps`"],
        ),
        ("3 未満では、`steps` で止まり、ノイズを VAE設定 に残します（denoising_end）。", ["without SDXL"]),
        (
            "3 未満では、`steps` で止まり、SDXL のノイズを残します（denoising_end）。",
            ["the node Set VAE must be called VAE設定 1 times"],
        ),
    ],
    ids=("same", "number", "code", "name", "title"),
)
def test_the_comparison_sees_a_difference(text: str, said: list[str]) -> None:
    assert list(translations.differences(DENOISING_END, text, {"Set VAE": "VAE設定"})) == said


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        ("- ", "", "a paragraph and a list entry differ"),
        ("## ", "### ", "the headings are"),
        ("import torch", "import numpy", "the script differs"),
        ("image embeddings ... wide", "图像嵌入", "the message must be image embeddings ... wide"),
        ("0.33", "0.3", "the numbers 0.3 instead of 0.33"),
        ("| 用同一个模型编码两者", "", "1 columns instead of 2"),
        ("- 负面提示词和", "- **负面提示词、**和", "is not shown in bold"),
    ],
)
def test_the_comparison_sees_a_difference_in_a_help_page(
    found: str, instead: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, language = "RelayMixPrompts", "zh"
    english_page, page = (translations.DOCS / f"{node}.md", translations.DOCS / node / f"{language}.md")
    text = page.read_text("utf-8")
    assert found in text
    monkeypatch.setattr(translations, "DOCS", tmp_path)
    (tmp_path / node).mkdir()
    (tmp_path / f"{node}.md").write_text(english_page.read_text("utf-8"), "utf-8")
    (tmp_path / node / f"{language}.md").write_text(text.replace(found, instead, 1), "utf-8")
    problems = translations.problems_of_help(node, language, translations.titles_in(language, english()))
    assert len(problems) == 1
    assert said in problems[0]
