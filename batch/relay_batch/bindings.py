"""Reads --set and --images: which address gets its values from where."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .addresses import Setting, Settings
from .columns import Computed, Listed, ListOf, PictureFolder, Seeds, Single, TableFile
from .errors import BadAddress, BadTable
from .rows import Column, RowTable

SEED = re.compile(r"seed:(\d+)\+i")
FORMS = "a value, @FILE:COLUMN, @[1, 2, 3] or @seed:1000+i (@@ begins a text with @)"


def read_bindings(settings: Settings, sets: Sequence[str], images: Sequence[str], product: bool) -> RowTable:
    """`sets` are ADDRESS=VALUE, `images` are FOLDER or ADDRESS=FOLDER."""
    columns = [_picture_column(settings, one) for one in images]
    columns += [_column(settings, one) for one in sets]
    taken: dict[tuple[str, str], str] = {}
    for column in columns:
        for target in column.setting.targets:
            if target in taken:
                raise BadAddress(f"{taken[target]!r} and {column.address!r} set the same input. Leave one out.")
            taken[target] = column.address
    return RowTable(_share_files(columns), product)


def _picture_column(settings: Settings, text: str) -> Column:
    address, is_named, folder = text.rpartition("=")
    if is_named:
        setting = settings.find(address)
        if not setting.spec.is_picture:
            raise BadAddress(f"--images {text}: {address!r} is no picture, but {setting.spec.type}.")
    else:
        found = settings.pictures()
        if len(found) != 1:
            names = ", ".join(settings.best_address(one) for one in found)
            problem = (
                f"several pictures: {names}. Name one: --images ADDRESS={folder}" if found else "no picture to set"
            )
            raise BadAddress(f"--images {folder}: the workflow has {problem}.")
        setting, address = found[0], settings.best_address(found[0])
    return Column(address, setting, PictureFolder(Path(folder)), text=f"{address}={folder}")


def _column(settings: Settings, text: str) -> Column:
    address, setting, value = _split(settings, text)
    column = ""
    source: Listed | Computed
    if value.startswith("@@"):
        source = Single(value[1:])
    elif not value.startswith("@"):
        source = Single(value)
    elif value.startswith("@["):
        source = ListOf(tuple(_json_list(text, value[1:])), f"the list of {address!r}")
    elif seed := SEED.fullmatch(value[1:]):
        source = Seeds(int(seed[1]))
    else:
        file, colon, column = value[1:].rpartition(":")
        if not colon or not file or not column:
            raise BadTable(f"--set {text}: write {FORMS}.")
        source = TableFile(Path(file), (column,))
    return Column(address, setting, source, text=text)


def _split(settings: Settings, text: str) -> tuple[str, Setting, str]:
    """The address ends at the first = that leaves an address: a title may contain one."""
    if "=" not in text:
        raise BadAddress(f"--set {text}: write ADDRESS=VALUE, where VALUE is {FORMS}.")
    ends = [match.start() for match in re.finditer("=", text)]
    for end in ends:
        try:
            return text[:end], settings.find(text[:end]), text[end + 1 :]
        except BadAddress:
            continue
    return text[: ends[0]], settings.find(text[: ends[0]]), text[ends[0] + 1 :]


def _json_list(text: str, value: str) -> list[Any]:
    try:
        found = json.loads(value)
    except ValueError as error:
        raise BadTable(f"--set {text}: {value} is no JSON list ({error}).") from error
    if not found:
        raise BadTable(f"--set {text}: the list is empty.")
    return list(found)


def _share_files(columns: Sequence[Column]) -> list[Column]:
    """Columns of one file come from one source, so that the file is read once, and its columns stay together in a product."""
    shared: dict[Path, list[str]] = {}
    for one in columns:
        if isinstance(one.source, TableFile):
            shared.setdefault(one.source.file, []).append(one.source.columns[0])
    made = []
    for one in columns:
        if isinstance(one.source, TableFile):
            names = tuple(dict.fromkeys(shared[one.source.file]))
            place = names.index(one.source.columns[0])
            one = Column(one.address, one.setting, TableFile(one.source.file, names), place, one.text)
        made.append(one)
    return made
