"""Formats rows as text for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .rows import Row

HEAD = ("what", "ours", "against", "ratio", "to reach", "")


def number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "":
        return f"{value:g}"
    digits = 0 if unit == "MB" else 3 if value < 10 else 1
    return f"{value:.{digits}f} {unit}"


def cells(row: Row) -> tuple[str, ...]:
    aim = ""
    if row.aim is not None:
        limit = f"{row.aim.most:g}" if row.aim.of == "ratio" else number(row.aim.most, row.unit)
        aim = f"{'ratio ' if row.aim.of == 'ratio' else ''}<= {limit}"
        aim += {True: ", reached", False: ", NOT reached", None: ""}[row.reached]
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    return row.what, number(row.ours, row.unit), number(row.other, row.unit), ratio, aim, row.note


def text_table(rows: Sequence[Row]) -> str:
    lines = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def markdown_table(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(tuple(cell.replace("|", "\\|") for cell in cells(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
