"""Rows from tables, lists, seeds and folders: zipped or multiplied, checked, and read as a stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from relay_batch.addresses import Settings
from relay_batch.bindings import read_bindings
from relay_batch.columns import PictureFile
from relay_batch.errors import BadAddress, BadTable, BatchError
from relay_batch.rows import Row, RowTable, prompt_of
from relay_batch.workflow_file import Workflow
from support.batch_nodes import api_workflow, recorded_nodes

PROMPTS = "What to paint.text=@prompts.csv:prompt"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("prompts.csv").write_text(
        '\ufeffprompt,steps,picture\n"a cat, red",5,in/b.png\n"two\nlines",6,in/a.jpg\n', "utf-8"
    )
    Path("in").mkdir()
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        Path("in", name).write_bytes(b"x")
    return tmp_path


def table(*sets: str, images: tuple[str, ...] = (), product: bool = False) -> RowTable:
    return read_bindings(Settings(Workflow(api_workflow()), recorded_nodes()), sets, images, product)


def values(*sets: str, images: tuple[str, ...] = (), product: bool = False) -> list[list[Any]]:
    return [list(row.values.values()) for row in table(*sets, images=images, product=product).rows()]


@pytest.mark.parametrize(
    ("sets", "rows"),
    [
        (["2.text=a dog"], [["a dog"]]),
        (["2.text=@@home = sweet"], [["@home = sweet"]]),
        ([PROMPTS], [["a cat, red"], ["two\nlines"]]),
        ([PROMPTS, "5.steps=@prompts.csv:steps"], [["a cat, red", 5], ["two\nlines", 6]]),
        ([PROMPTS, "5.seed=@seed:1000+i"], [["a cat, red", 1000], ["two\nlines", 1001]]),
        ([PROMPTS, "5.cfg=@[1, 2.5]", "6.steps=3"], [["a cat, red", 1.0, 3], ["two\nlines", 2.5, 3]]),
    ],
)
def test_side_by_side(sets: list[str], rows: list[list[Any]]) -> None:
    assert values(*sets) == rows


def test_multiplied_the_last_changes_fastest() -> None:
    sets = [PROMPTS, "5.steps=@prompts.csv:steps", "5.cfg=@[1, 2]", "5.seed=@seed:5+i"]
    assert values(*sets, product=True) == [
        ["a cat, red", 5, 1.0, 5],
        ["a cat, red", 5, 2.0, 6],
        ["two\nlines", 6, 1.0, 7],
        ["two\nlines", 6, 2.0, 8],
    ]


def test_three_multiplied() -> None:
    found = values("5.cfg=@[1, 2]", "5.steps=@[3, 4]", "6.steps=@[5, 6]", product=True)
    assert found == [[c, s, t] for c in (1.0, 2.0) for s in (3, 4) for t in (5, 6)]


def test_a_product_that_is_too_large_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_batch.rows.KEPT", 1)
    assert len(values("5.cfg=@[1, 2]", "5.steps=@[3, 4]", "6.steps=@[5, 6]", product=True)) == 8


def test_a_folder_of_pictures() -> None:
    assert values(images=("in",)) == [[PictureFile(Path("in"), "a.jpg")], [PictureFile(Path("in"), "b.png")]]
    assert values(images=("Start.image=in",)) == values(images=("in",))


def test_pictures_that_a_table_names() -> None:
    found = values("Start.image=@prompts.csv:picture")
    assert found == [[PictureFile(Path(), "in/b.png")], [PictureFile(Path(), "in/a.jpg")]]


def test_json_lines(folder: Path) -> None:
    rows = [{"prompt": "a", "seed": 2**63}, {"prompt": "b", "seed": 4}]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", "utf-8")
    assert values("2.text=@rows.jsonl:prompt", "5.seed=@rows.jsonl:seed") == [["a", 2**63], ["b", 4]]


def test_parquet_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadTable, match=r"needs pyarrow: pip install diffusers-relay-batch\[parquet\]"):
        values("2.text=@rows.parquet:prompt")


FAULTS: list[tuple[list[str], str]] = [
    (["5.steps=@[5, 6, 7]", PROMPTS], "the list of '5.steps' has 3, prompts.csv has 2. Or multiply it: --product"),
    (["5.steps=@[5, 0]"], "Row 2, 5.steps: 0 is not between 1 and 10000"),
    (["5.steps=2.5"], "Row 1, 5.steps: '2.5' is not a whole number"),
    (["5.steps=@[true]"], "True is not a whole number"),
    (["5.cfg=nan"], "'nan' is not a number"),
    (["5.sampler_name=eular"], "'eular' is none of its choices: euler"),
    (["2.text=@[3]"], "3 is not a text"),
    (["2.text=@prompts.csv:promt"], "prompts.csv has no column 'promt'; it has prompt, steps, picture"),
    (["2.text=@none.csv:prompt"], "The table none.csv can't be read"),
    (["2.text=@prompts.txt:prompt"], "none of .csv, .jsonl, .parquet"),
    (["2.text=@prompts.csv"], "write a value, @FILE:COLUMN"),
    (["5.steps=@[1,"], "no JSON list"),
    (["5.steps=@[]"], "the list is empty"),
    (["2.text"], "write ADDRESS=VALUE"),
    (["2.text=a", "What to paint.text=b"], "'2.text' and 'What to paint.text' set the same input"),
    (["Start.image=nobody.png"], "'nobody.png' is none of its choices: example.png"),
]


@pytest.mark.parametrize(("sets", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults(sets: list[str], message: str) -> None:
    with pytest.raises(BatchError) as refused:
        values(*sets)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("short.csv", "prompt,steps\na\n", "short.csv, line 2: 1 values, but the header has 2 columns"),
        ("quote.csv", 'prompt\n"a', "quote.csv can't be read"),
        ("twice.csv", "prompt,prompt\na,b\n", "several columns 'prompt'"),
        ("bad.jsonl", '{"prompt": "a"}\n{\n', "bad.jsonl, line 2: no JSON"),
        ("list.jsonl", "[1]\n", "list.jsonl, line 1: an object"),
        ("other.jsonl", '{"text": "a"}\n', "other.jsonl, line 1: no 'prompt'; it has text"),
    ],
)
def test_broken_tables(name: str, text: str, message: str) -> None:
    Path(name).write_text(text, "utf-8")
    with pytest.raises(BadTable) as refused:
        values(f"2.text=@{name}:prompt")
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_a_table_names_no_picture_outside_of_its_folder(name: str) -> None:
    Path("evil.csv").write_text(f"picture\n{name}\n", "utf-8")
    with pytest.raises(BadTable, match="outside of the table's folder"):
        values("Start.image=@evil.csv:picture")


def test_a_folder_must_be_bound_to_one_picture() -> None:
    workflow = api_workflow()
    workflow["7"] = workflow["1"] | {"_meta": {"title": "Second"}}
    settings = Settings(Workflow(workflow), recorded_nodes())
    with pytest.raises(BadAddress, match=r"several pictures: Start.image, Second.image. Name one"):
        read_bindings(settings, [], ["in"], False)
    with pytest.raises(BadAddress, match=r"'2\.text' is no picture, but STRING"):
        read_bindings(settings, [], ["2.text=in"], False)
    both = read_bindings(settings, [], ["Start.image=in", "Second.image=in"], False)
    assert [len(row.values) for row in both.rows()] == [2, 2]


def test_an_empty_folder(folder: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(BadTable, match="empty has no pictures"):
        values(images=("empty",))


def test_a_row_in_the_workflow() -> None:
    found = table("2.text=a dog", images=("in",))
    row = next(iter(found.rows()))
    prompt = prompt_of(api_workflow(), found.columns, row, {PictureFile(Path("in"), "a.jpg"): "sent_1.jpg"})
    wanted = api_workflow()
    wanted["1"]["inputs"]["image"], wanted["2"]["inputs"]["text"] = "sent_1.jpg", "a dog"
    assert prompt == wanted


def test_rows_are_read_when_they_are_asked_for() -> None:
    Path("late.csv").write_text("steps\n5\nmany\n", "utf-8")
    rows = table("5.steps=@late.csv:steps").rows()
    assert next(rows) == Row(0, {"5.steps": 5})
    with pytest.raises(BadTable, match="Row 2"):
        next(rows)
