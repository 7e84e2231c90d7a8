"""results.json, with the newest rows of each benchmark, and the tables made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .machine import machine
from .rows import Row
from .suite import BENCHMARKS
from .table import markdown_table

BEGIN, END = "<!-- results: written by dev.py bench --write -->", "<!-- end of results -->"

Results = dict[str, dict[str, Any]]
"""{benchmark: {"rows", "machine", "settings", "when", "load"}}"""


def load(file: Path) -> Results:
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def store(file: Path, name: str, rows: Sequence[Row], settings: str, load_average: float | None) -> None:
    """Replaces the rows of one benchmark in the file."""
    results = load(file)
    results[name] = {
        "rows": [row.to_json() for row in rows],
        "machine": machine(),
        "settings": settings,
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "load": load_average,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1), "utf-8")


def markdown(results: Results) -> str:
    """One section per benchmark; the machine is shown only if it differs from the previous section's."""
    parts, before = [], ""
    for name in [name for name in BENCHMARKS if name in results]:
        entry = results[name]
        measured_on = ", ".join(f"{key} {value}" for key, value in entry["machine"].items())
        parts.append(f"### {name}\n\n{BENCHMARKS[name]}\n")
        if measured_on != before:
            parts.append(f"Measured on: {measured_on}.\n")
        before = measured_on
        busy = "" if entry["load"] is None else f", load average {entry['load']:.1f} at its start"
        parts.append(f"{entry['when']}, {entry['settings']}{busy}.\n")
        parts.append(markdown_table([Row.from_json(row) for row in entry["rows"]]) + "\n")
    return "\n".join(parts)


def write_into(readme: Path, results: Results) -> None:
    """Writes the tables between the two markers in the README."""
    text = readme.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(
            f"{readme} must have the lines {BEGIN!r} and {END!r} exactly once: the tables go between them."
        )
    head, rest = text.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n\n{markdown(results)}\n{END}{rest.split(END)[1]}", "utf-8")
