"""Compares translations with the English texts: locales/<language>/nodeDefs.json and the help pages web/docs/<node id>/<language>.md.

    python -m relay_dev.translations LANGUAGE ...       prints what is wrong (with devtools on PYTHONPATH)

Wrong is: a text that is missing, stale or not translated; a number, a name or code that differs from the English; the title of a
node that is not the one that the page shows; a help page with other sections, tables, lists or scripts than the English page.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from relay_host.paths import ROOT

LOCALES = ROOT / "locales"
DOCS = ROOT / "web" / "docs"
SCRIPTS = {
    "zh": "[\u4e00-\u9fff]",
    "zh-TW": "[\u4e00-\u9fff]",
    "ja": "[\u3040-\u30ff\u4e00-\u9fff]",
    "ko": "[\uac00-\ud7a3]",
    "ru": "[\u0400-\u04ff]",
    "ar": "[\u0600-\u06ff]",
}
"""The letters of languages that are not written in Latin ones."""
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])-?\d+(?:\.\d+)*(?![A-Za-z0-9_])")
CODE = re.compile(
    r"""
    `[^`]+`                                     # as in Markdown
    | https?://
    | (?<![\w/])[A-Za-z][\w.-]*/[\w./-]*\w      # paths and repositories
    | (?<![\w.])\.[a-z]{3,}\b                   # file suffixes
    | \b[A-Za-z]\w*(?:\.[A-Za-z]\w*)*\.(?:json|yaml|safetensors|py|compile)\b
    | \b[A-Za-z]+\w*_\w+                        # identifiers
    | \b[A-Za-z]+[\d.]*\d\w*                    # float16, x4, SD1.5
    """,
    re.VERBOSE | re.ASCII,
)
NAME = re.compile(r"\b(?:[A-Za-z]+[A-Z]\w*?|CUDA|Kandinsky|Compel|Triton)(?=s?\b)", re.ASCII)
"""Names of models, libraries and formats: SDXL, ControlNet, LoRA, PyTorch. A plural's s is not part of them."""
NUMBER_WORDS = {
    "1": re.compile(r"\b(?:an?|one|once|first|single|each|another|either)\b", re.IGNORECASE),
    "2": re.compile(r"\b(?:two|twice|both|doubles?|second)\b", re.IGNORECASE),
    "3": re.compile(r"\b(?:three|third)\b", re.IGNORECASE),
    "4": re.compile(r"\b(?:four|quarter)\b", re.IGNORECASE),
}
"""Words that other languages write as numbers."""
MESSAGE_SYNTAX = re.compile(r"[@{}|\\]")
"""The page reads these characters as the syntax of its messages."""
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

Texts = Mapping[str, Any]


def languages() -> list[str]:
    return sorted(file.parent.name for file in LOCALES.glob("*/nodeDefs.json"))


def help_languages() -> list[str]:
    return sorted({file.stem for file in DOCS.glob("*/*.md")})


def node_texts(language: str) -> dict[str, Any]:
    return dict(json.loads((LOCALES / language / "nodeDefs.json").read_text("utf-8")))


def problems_of_nodes(language: str, english: Texts) -> list[str]:
    """One line for each text of locales/<language>/nodeDefs.json that is wrong."""
    theirs, ours = dict(flat(english)), dict(flat(node_texts(language)))
    titles = {english[node]["display_name"]: ours.get(f"{node}.display_name", "") for node in english}
    found = [f"{key}: missing" for key in theirs.keys() - ours.keys()]
    found += [f"{key}: stale, there is no such text" for key in ours.keys() - theirs.keys()]
    for key in theirs.keys() & ours.keys():
        sentence = key.endswith((".tooltip", ".description"))
        said = list(differences(theirs[key], ours[key], titles)) if sentence else []
        if not ours[key].strip():
            said.append("empty")
        if MESSAGE_SYNTAX.search(ours[key]):
            said.append("has one of the characters @ { } | \\")
        if sentence and not is_translated(theirs[key], ours[key], language):
            said.append("not translated")
        found += [f"{key}: {what}" for what in said]
    return sorted(found)


def flat(texts: Texts, above: str = "") -> Iterator[tuple[str, str]]:
    """("RelayEncode.inputs.seed.name", the text) for each text."""
    for key, value in texts.items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from flat(value, name)
        else:
            yield name, value


def is_translated(english: str, text: str, language: str) -> bool:
    return text != english and re.search(SCRIPTS.get(language, "."), text) is not None


def differences(english: str, text: str, titles: Mapping[str, str]) -> Iterator[str]:
    """How the numbers, code, names and titles of nodes in a text differ from those in the English text.

    Args:
        titles: {a node's English title: its translation}.
    """
    english, text, mentioned = _without_titles(english, text, titles)
    yield from mentioned
    for what, pattern in (("the code", CODE), ("the numbers", NUMBER)):
        wanted, got = Counter(pattern.findall(english)), Counter(pattern.findall(text))
        more, lost = got - wanted, wanted - got
        for number, words in NUMBER_WORDS.items():
            if words.search(english):
                del more[number]
        if more or lost:
            yield f"{what} {_listed(more)} instead of {_listed(lost)}"
        english, text = pattern.sub(" ", english), pattern.sub(" ", text)
    if names := set(NAME.findall(english)) - set(NAME.findall(text)):
        yield f"without {', '.join(sorted(names))}"


def _without_titles(english: str, text: str, titles: Mapping[str, str]) -> tuple[str, str, list[str]]:
    found = []
    for title in sorted(titles, key=len, reverse=True):
        if count := len(re.findall(rf"\b{re.escape(title)}(?!\w)", english)):
            if text.count(titles[title]) < count:
                found.append(f"the node {title} must be called {titles[title]} {count} times")
            english, text = re.sub(rf"\b{re.escape(title)}(?!\w)", " ", english), text.replace(titles[title], " ")
    return english, text, found


def _listed(counter: Counter[str]) -> str:
    return ", ".join(sorted(counter.elements())) or "none"


def problems_of_all_help(language: str, english: Texts) -> list[str]:
    """One line for each part of the help pages in a language that is wrong."""
    titles = titles_in(language, english)
    pages = {file.parent.name for file in DOCS.glob(f"*/{language}.md")}
    found = [f"{name}: stale, there is no such node" for name in sorted(pages - english.keys())]
    return found + [what for node in english for what in problems_of_help(node, language, titles)]


def problems_of_help(node: str, language: str, titles: Mapping[str, str]) -> list[str]:
    """One line for each part of web/docs/<node>/<language>.md that is wrong."""
    english = (DOCS / f"{node}.md").read_text("utf-8")
    file = DOCS / node / f"{language}.md"
    if not file.is_file():
        return [f"{node}: no page"]
    text = file.read_text("utf-8")
    found = []
    if FENCED.findall(english) != FENCED.findall(text):
        found.append("the script differs")
    theirs, ours = (re.split(r"^(#+) .*$", FENCED.sub("", page), flags=re.MULTILINE) for page in (english, text))
    if theirs[1::2] != ours[1::2]:
        return [f"{node}: {what}" for what in [*found, f"the headings are {ours[1::2]} instead of {theirs[1::2]}"]]
    for number, (their_part, our_part) in enumerate(zip(theirs[::2], ours[::2])):
        found += [f"section {number}: {what}" for what in _problems_of_section(their_part, our_part, language, titles)]
    return [f"{node}: {what}" for what in found]


def _problems_of_section(english: str, text: str, language: str, titles: Mapping[str, str]) -> Iterator[str]:
    (their_blocks, their_rows), (our_blocks, our_rows) = blocks(english), blocks(text)
    if len(their_blocks) != len(our_blocks):
        yield f"{len(our_blocks)} paragraphs and list entries instead of {len(their_blocks)}"
        return
    if len(their_rows) != len(our_rows):
        yield f"{len(our_rows)} rows of tables instead of {len(their_rows)}"
        return
    for their, our in zip(their_blocks, our_blocks):
        yield from (f"{our[:30]!r}: {what}" for what in differences(their, our, titles))
        if our.startswith("- ") != their.startswith("- "):
            yield f"{our[:30]!r}: a paragraph and a list entry differ"
        if not is_translated(their, our, language):
            yield f"{our[:30]!r}: not translated"
        yield from (f"{our[:30]!r}: **{what}** is not shown in bold" for what in _not_bold(our))
    headings = [set("".join(below)) <= {"-"} for below in [*their_rows[1:], ["end"]]]
    for is_heading, their_row, our_row in zip(headings, their_rows, our_rows):
        if len(their_row) != len(our_row):
            yield f"row {our_row[0]}: {len(our_row)} columns instead of {len(their_row)}"
            continue
        if len(their_row) == 2 and not is_heading and their_row[0] != our_row[0]:
            yield f"row {our_row[0]}: the message must be {their_row[0]}, as the node says it"
        yield from (f"row {our_row[0]}: {what}" for what in differences(" ".join(their_row), " ".join(our_row), titles))


def _not_bold(text: str) -> Iterator[str]:
    """Markdown takes no ** for bold between a letter on the outer side and a space or punctuation on the inner one."""
    parts = text.split("**")
    for before, inside, after in zip(parts[::2], parts[1::2], parts[2::2]):
        if (before[-1:].isalnum() and not inside[:1].isalnum()) or (after[:1].isalnum() and not inside[-1:].isalnum()):
            yield inside


def blocks(section: str) -> tuple[list[str], list[list[str]]]:
    """The paragraphs and list entries of a section, each on one line, and the cells of its tables."""
    texts: list[str] = []
    rows: list[list[str]] = []
    open_block = False
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
            open_block = False
        elif not line.strip():
            open_block = False
        elif open_block and not line.startswith("- "):
            texts[-1] += " " + line.strip()
        else:
            texts.append(line.strip())
            open_block = True
    return texts, rows


def titles_in(language: str, english: Texts) -> dict[str, str]:
    """{a node's English title: its translation}."""
    ours = node_texts(language)
    return {english[node]["display_name"]: ours[node]["display_name"] for node in english}


def main(chosen: list[str]) -> int:
    from .node_texts import ask_for_texts

    english = ask_for_texts()
    found = []
    for language in chosen or languages():
        problems = problems_of_nodes(language, english)
        if language in help_languages():
            problems += problems_of_all_help(language, english)
        found += [f"{language}: {what}" for what in problems]
    print("\n".join(found) or "no problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
