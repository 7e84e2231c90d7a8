"""The table of rows: sources joined into rows of checked values, read as a stream and never held whole."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .addresses import Setting
from .columns import Computed, Listed, PictureFile, TableFile, picture_beside
from .errors import BadTable, BadValue
from .ui_convert import Prompt
from .values import checked

KEPT = 10_000
"""Sources of up to this many rows are kept in memory where --product reads them again and again."""


@dataclass(frozen=True)
class Column:
    """A source, or one column of it, that sets one address."""

    address: str
    setting: Setting
    source: Listed | Computed
    place: int = 0
    """Which of the source's columns."""
    text: str = ""
    """What the user wrote."""


@dataclass(frozen=True)
class Row:
    """One row: {address: value}. A picture's value is a PictureFile."""

    index: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class RowTable:
    """All rows. Sources with a length of their own are zipped, or multiplied if `product`: the last changes fastest."""

    columns: Sequence[Column]
    product: bool = False

    @property
    def listed(self) -> list[Listed]:
        return list(dict.fromkeys(one.source for one in self.columns if isinstance(one.source, Listed)))

    def rows(self) -> Iterator[Row]:
        """Each row with its values checked. Raises BadTable, which names the row and the address."""
        sources = self.listed
        if not sources:
            joined: Iterator[tuple[tuple[Any, ...], ...]] = iter([()])
        else:
            joined = _product(sources) if self.product else _zipped(sources)
        places = [sources.index(one.source) if isinstance(one.source, Listed) else -1 for one in self.columns]
        for index, parts in enumerate(joined):
            values = {}
            for column, at in zip(self.columns, places):
                raw = column.source.at(index) if isinstance(column.source, Computed) else parts[at][column.place]
                values[column.address] = _value(column, index, raw)
            yield Row(index, values)


def _value(column: Column, index: int, value: Any) -> Any:
    try:
        if isinstance(value, PictureFile):
            return value
        if column.setting.spec.is_picture and isinstance(column.source, TableFile):
            return picture_beside(column.source.file, value)
        return checked(value, column.setting.spec)
    except (BadValue, BadTable) as error:
        raise BadTable(f"Row {index + 1}, {column.address}: {error}.") from error


def _zipped(sources: Sequence[Listed]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    streams = [source.rows() for source in sources]
    for count in itertools.count():
        row = [next(stream, None) for stream in streams]
        if any(part is None for part in row):
            if any(part is not None for part in row):
                rest = [0 if part is None else 1 + sum(1 for _ in stream) for part, stream in zip(row, streams)]
                lengths = ", ".join(f"{source.called} has {count + more}" for source, more in zip(sources, rest))
                raise BadTable(
                    f"What is zipped must have the same number of rows: {lengths}. Or multiply it: --product."
                )
            return
        yield tuple(part for part in row if part is not None)


def _product(sources: Sequence[Listed]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    if not sources:
        yield ()
        return
    inner: list[tuple[tuple[Any, ...], ...]] | None = None
    for part in sources[0].rows():
        if inner is not None:
            yield from ((part, *rest) for rest in inner)
            continue
        kept: list[tuple[tuple[Any, ...], ...]] = []
        for rest in _product(sources[1:]):
            if len(kept) <= KEPT:
                kept.append(rest)
            yield (part, *rest)
        inner = kept if len(kept) <= KEPT else None


def prompt_of(prompt: Prompt, columns: Sequence[Column], row: Row, sent: Mapping[PictureFile, str]) -> Prompt:
    """The workflow with a row's values.

    Args:
        sent: {a picture of the row: its name in the host's input folder}.
    """
    made = copy.deepcopy(prompt)
    for column in columns:
        value = row.values[column.address]
        for id, input in column.setting.targets:
            made[id]["inputs"][input] = sent[value] if isinstance(value, PictureFile) else value
    return made
