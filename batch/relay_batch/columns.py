"""Where rows' values come from: tables (CSV, JSONL, Parquet), lists, seeds, folders of pictures, and single values."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadTable
from .pictures import SUFFIXES

BATCH_OF_ROWS = 4096
TABLES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class PictureFile:
    """A picture on this machine, which is sent to the host before the row runs. `name` is relative to its folder."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / self.name


@dataclass(frozen=True)
class TableFile:
    """Some columns of a file, read together, a row at a time."""

    file: Path
    columns: tuple[str, ...]

    @property
    def called(self) -> str:
        return self.file.name

    def rows(self) -> Iterator[tuple[Any, ...]]:
        try:
            if self.file.suffix.lower() == ".csv":
                yield from self._csv()
            elif self.file.suffix.lower() == ".jsonl":
                yield from self._jsonl()
            elif self.file.suffix.lower() == ".parquet":
                yield from self._parquet()
            else:
                raise BadTable(f"The table {self.file} is none of {', '.join(TABLES)}.")
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise BadTable(f"The table {self.file} can't be read ({error}).") from error

    def _csv(self) -> Iterator[tuple[Any, ...]]:
        with self.file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            header = next(reader, [])
            at = [self._place(column, header) for column in self.columns]
            for row in reader:
                if len(row) == 0:  # an empty line
                    continue
                if len(row) != len(header):
                    raise BadTable(
                        f"{self.file}, line {reader.line_num}: {len(row)} values, but the header has {len(header)} columns."
                    )
                yield tuple(row[place] for place in at)

    def _jsonl(self) -> Iterator[tuple[Any, ...]]:
        with self.file.open(encoding="utf-8-sig") as opened:
            for number, line in enumerate(opened, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise BadTable(f"{self.file}, line {number}: no JSON ({error}).") from error
                if not isinstance(row, dict):
                    raise BadTable(f"{self.file}, line {number}: an object {{column: value}} is expected.")
                missing = [column for column in self.columns if column not in row]
                if missing:
                    raise BadTable(f"{self.file}, line {number}: no {missing[0]!r}; it has {', '.join(row)}.")
                yield tuple(row[column] for column in self.columns)

    def _parquet(self) -> Iterator[tuple[Any, ...]]:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise BadTable(
                f"{self.file}: reading Parquet needs pyarrow: pip install diffusers-relay-batch[parquet]."
            ) from error
        try:
            with parquet.ParquetFile(self.file) as opened:
                names = opened.schema_arrow.names
                for column in self.columns:
                    self._place(column, names)
                for batch in opened.iter_batches(BATCH_OF_ROWS, columns=list(dict.fromkeys(self.columns))):
                    yield from zip(*(batch.column(column).to_pylist() for column in self.columns))
        except ArrowException as error:
            raise BadTable(f"The table {self.file} can't be read ({error}).") from error

    def _place(self, column: str, names: Sequence[str]) -> int:
        if names.count(column) != 1:
            problem = "no column" if column not in names else "several columns"
            raise BadTable(f"{self.file} has {problem} {column!r}; it has {', '.join(names) or 'none'}.")
        return names.index(column)


@dataclass(frozen=True)
class ListOf:
    """Values that were given on the command line."""

    values: tuple[Any, ...]
    called: str

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return ((value,) for value in self.values)


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder, by name. Other files and hidden ones are left out."""

    folder: Path

    @property
    def called(self) -> str:
        return f"{self.folder}/"

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return ((PictureFile(self.folder, name),) for name in self.names())

    def names(self) -> list[str]:
        try:
            found = sorted(
                entry.name
                for entry in self.folder.iterdir()
                if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
            )
        except OSError as error:
            raise BadTable(f"The folder {self.folder} can't be read ({error.strerror or error}).") from error
        if not found:
            raise BadTable(f"The folder {self.folder} has no pictures ({', '.join(SUFFIXES)}).")
        return found


@dataclass(frozen=True)
class Single:
    """The same value in every row."""

    value: Any

    def at(self, index: int) -> Any:
        return self.value


@dataclass(frozen=True)
class Seeds:
    """A number that grows by one a row."""

    start: int

    def at(self, index: int) -> int:
        return self.start + index


Listed = TableFile | ListOf | PictureFolder
"""Sources that say how many rows there are; each row has a value a column."""
Computed = Single | Seeds
"""Sources that have a value for any number of rows."""


def picture_beside(table: Path, name: Any) -> PictureFile:
    """A picture that a table names, relative to the table's folder and inside of it."""
    folder = table.parent
    if not isinstance(name, str) or not name:
        raise BadTable(f"{name!r} is no picture's file name")
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BadTable(f"{name!r} is outside of the table's folder {folder}")
    return PictureFile(folder, name)
