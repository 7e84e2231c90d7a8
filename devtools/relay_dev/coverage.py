"""Prints which rows of diffusers' AutoPipeline tables the pack runs: `python dev.py coverage [--write]`.

A row is a key, such as ``stable-diffusion-xl-pag``, and the pipeline class for it. The pack runs a row if a family in ``family_table.py`` names its
class for the task. ``--write`` puts the table into README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from relay_host.pack import prepare_pack
from relay_host.paths import ROOT

if TYPE_CHECKING:
    from diffusers_relay.pipelines.model.family import ModelFamily, Task

README = ROOT / "README.md"
BEGIN, END = "<!-- coverage -->\n", "<!-- /coverage -->\n"
RUN, NOT_RUN = "yes", "-"


@dataclass(frozen=True)
class Row:
    """One row of an AutoPipeline table."""

    task: Task
    key: str
    class_name: str
    """diffusers' class. Of a combined pipeline, which is two families here, the decoder's."""
    families: tuple[str, ...]
    """Titles of the families that run it."""


def rows() -> list[Row]:
    """All rows of the installed diffusers' tables, in their order."""
    from diffusers.pipelines import auto_pipeline

    from diffusers_relay.pipelines.model.family import Task
    from diffusers_relay.pipelines.model.family_table import FAMILIES

    tables: Mapping[Task, Mapping[str, type]] = {
        Task.TEXT_TO_IMAGE: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        Task.IMAGE_TO_IMAGE: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        Task.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    }
    found = []
    for task, table in tables.items():
        for key, pipeline in table.items():
            name = pipeline.__name__.replace("Combined", "")
            running = tuple(one.title for one in FAMILIES if (task, name) in classes_of(one))
            found.append(Row(task, key, name, running))
    return found


def classes_of(family: ModelFamily) -> set[tuple[Task, str]]:
    """Every pipeline class in the family's row, with its task, from whichever field."""
    from diffusers_relay.pipelines.model.family import Task

    values: list[Any] = [getattr(family, field.name) for field in fields(family)]
    tables = [value for value in values if isinstance(value, Mapping)]
    return {(task, name) for table in tables for task, name in table.items() if isinstance(task, Task)}


def table(found: list[Row]) -> str:
    """The keys of which the pack runs a row, in Markdown."""
    tasks = list(dict.fromkeys(row.task for row in found))
    lines = [f"| AutoPipeline | {' | '.join(task.value for task in tasks)} |", "|---" * (1 + len(tasks)) + "|"]
    for key in dict.fromkeys(row.key for row in found if row.families):
        by_task = {row.task: row for row in found if row.key == key}
        cells = ["" if task not in by_task else RUN if by_task[task].families else NOT_RUN for task in tasks]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def readme_table() -> str:
    """The table in README.md."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def write_readme(text: str) -> None:
    before, begin, rest = README.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, "README.md has no place for the table"
    README.write_text(before + begin + text + end + after, "utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py coverage", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    options = parser.parse_args(arguments)
    prepare_pack()
    found = rows()
    for task in dict.fromkeys(row.task for row in found):
        of_task = [row for row in found if row.task is task]
        print(f"\n{task.value}: {sum(bool(row.families) for row in of_task)} of {len(of_task)}")
        for row in of_task:
            print(f"  {row.key:40} {row.class_name:48} {', '.join(row.families) or NOT_RUN}")
    if options.write:
        write_readme(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
