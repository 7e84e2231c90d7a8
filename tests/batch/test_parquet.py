"""Values of Parquet and JSONL columns: exact where a node can take them, and otherwise refused with row, address and value."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from relay_batch.addresses import Settings
from relay_batch.bindings import read_bindings
from relay_batch.errors import BadTable
from relay_batch.workflow_file import Workflow
from support.batch_nodes import api_workflow, recorded_nodes

pytestmark = pytest.mark.usefixtures("libraries")
BIG = 2**64 - 1
"""The largest seed: a float can't hold it."""
SOME_DAY = datetime.datetime(2026, 3, 9, 14, 5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(type: str, values: list[Any], name: str = "value", file: str = "rows.parquet") -> None:
    """A Parquet file with one column of an Arrow type, in row groups of two."""
    import pyarrow
    from pyarrow import parquet

    types = {
        "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "decimal": pyarrow.decimal128(10, 2),
        "ints": pyarrow.list_(pyarrow.int64()),
        "struct": pyarrow.struct([("a", pyarrow.int64())]),
        "time": pyarrow.timestamp("us"),
    }
    column = pyarrow.array(values, types.get(type) or pyarrow.type_for_alias(type))
    parquet.write_table(pyarrow.table({name: column, "other": [0] * len(values)}), file, row_group_size=2)


def values(address: str, column: str = "value", file: str = "rows.parquet") -> list[Any]:
    table = read_bindings(
        Settings(Workflow(api_workflow()), recorded_nodes()), [f"{address}=@{file}:{column}"], [], False
    )
    return [next(iter(row.values.values())) for row in table.rows()]


GOOD: list[tuple[str, str, list[Any], list[Any]]] = [
    ("string", "2.text", ["a", "", "ä 🐈\nb"], ["a", "", "ä 🐈\nb"]),
    ("large_string", "2.text", ["a"], ["a"]),
    ("dictionary", "2.text", ["a", "b", "a"], ["a", "b", "a"]),
    ("uint64", "5.seed", [0, BIG], [0, BIG]),
    ("int64", "5.seed", [2**53 + 1], [2**53 + 1]),
    ("int8", "5.steps", [5, 6], [5, 6]),
    ("string", "5.seed", [str(BIG)], [BIG]),
    ("double", "5.steps", [5.0], [5]),
    ("double", "5.cfg", [2.5, 3.0], [2.5, 3.0]),
    ("float", "5.cfg", [2.5], [2.5]),
    ("halffloat", "5.cfg", [2.5], [2.5]),
    ("int64", "5.cfg", [3], [3.0]),
    ("decimal", "5.cfg", [decimal.Decimal("2.50")], [2.5]),
    ("dictionary", "5.sampler_name", ["euler", "heun"], ["euler", "heun"]),
]


@pytest.mark.parametrize(("type", "address", "written", "wanted"), GOOD, ids=[f"{one[0]} {one[1]}" for one in GOOD])
def test_values_that_a_node_takes(type: str, address: str, written: list[Any], wanted: list[Any]) -> None:
    write(type, written)
    found = values(address)
    assert found == wanted
    assert [one.__class__ for one in found] == [one.__class__ for one in wanted]
    assert json.loads(json.dumps(found)) == wanted


BAD: list[tuple[str, str, list[Any], str]] = [
    ("string", "2.text", ["a", None, "b"], "Row 2, 2.text: there is no value (null)"),
    ("int64", "5.seed", [None], "Row 1, 5.seed: there is no value (null)"),
    ("int64", "2.text", [3], "Row 1, 2.text: 3 is not a text"),
    ("ints", "5.seed", [[1, 2]], "Row 1, 5.seed: [1, 2] is a list: a row has one value a column"),
    ("ints", "2.text", [[1]], "Row 1, 2.text: [1] is a list"),
    ("ints", "1.image", [[1]], "Row 1, 1.image: [1] is no picture's file name"),
    ("struct", "5.seed", [{"a": 1}], "Row 1, 5.seed: {'a': 1} is an object"),
    ("binary", "2.text", [b"a"], "Row 1, 2.text: b'a' is not a text"),
    ("time", "2.text", [SOME_DAY], "2026, 3, 9, 14, 5) is not a text"),
    ("time", "5.seed", [SOME_DAY], "is not a whole number"),
    ("bool", "5.steps", [True], "Row 1, 5.steps: True is not a whole number"),
    ("double", "5.seed", [0.5], "Row 1, 5.seed: 0.5 is not a whole number"),
    ("double", "5.cfg", [float("nan")], "nan is not a number"),
    ("double", "5.cfg", [float("inf")], "inf is not a number"),
    ("int64", "5.seed", [-1], f"-1 is not between 0 and {BIG}"),
]


@pytest.mark.parametrize(("type", "address", "written", "message"), BAD, ids=[f"{one[0]} {one[1]}" for one in BAD])
def test_values_that_are_refused(type: str, address: str, written: list[Any], message: str) -> None:
    write(type, written)
    with pytest.raises(BadTable) as refused:
        values(address)
    assert message in str(refused.value)


def test_a_column_with_a_dot_in_its_name() -> None:
    write("int64", [5, 6], name="a.b")
    assert values("5.steps", "a.b") == [5, 6]


def test_files_that_are_no_tables() -> None:
    write("int64", [5])
    whole = Path("rows.parquet").read_bytes()
    Path("short.parquet").write_bytes(whole[:-20])
    Path("text.parquet").write_text("value\n5\n")
    Path("empty.parquet").write_bytes(b"")
    for name in ("short", "text", "empty", "none"):
        with pytest.raises(BadTable, match=rf"The table {name}\.parquet can't be read"):
            values("5.steps", file=f"{name}.parquet")
    with pytest.raises(BadTable, match=r"rows\.parquet has no column 'nothing'; it has value, other"):
        values("5.steps", "nothing")


JSONL: list[tuple[str, str, str]] = [
    ("null", "2.text", "Row 1, 2.text: there is no value (null)"),
    ("[5]", "5.seed", "Row 1, 5.seed: [5] is a list"),
    ('{"a": 5}', "2.text", "is an object"),
    (str(BIG + 1), "5.seed", f"{BIG + 1} is not between"),
    ("1e400", "5.cfg", "inf is not a number"),
    ("NaN", "5.cfg", "nan is not a number"),
    ('"\\ud83d"', "2.text", "half of a character"),
]


@pytest.mark.parametrize(("written", "address", "message"), JSONL)
def test_json_lines_that_are_refused(written: str, address: str, message: str) -> None:
    Path("rows.jsonl").write_text(f'{{"value": {written}}}\n', "utf-8")
    with pytest.raises(BadTable) as refused:
        values(address, file="rows.jsonl")
    assert message in str(refused.value)


def test_json_lines_keep_big_numbers() -> None:
    Path("rows.jsonl").write_text(f'{{"value": {BIG}}}\n{{"value": "{BIG}"}}\n{{"value": 5.0}}\n', "utf-8")
    assert values("5.seed", file="rows.jsonl") == [BIG, BIG, 5]
