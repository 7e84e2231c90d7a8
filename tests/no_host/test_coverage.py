"""`python dev.py coverage`: which rows of diffusers' AutoPipeline tables the pack runs, as the families' rows say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffusers_relay.pipelines.families.family_runs import RUNS
from diffusers_relay.pipelines.model import family_table
from diffusers_relay.pipelines.model.family import Task
from diffusers_relay.pipelines.model.family_table import FAMILIES, STABLE_DIFFUSION
from relay_dev import coverage

ROWS = coverage.rows()
RUN = [row for row in ROWS if row.families]


def test_the_tables_are_the_three_of_autopipeline() -> None:
    by_task = {task: {row.key for row in ROWS if row.task is task} for task in (row.task for row in ROWS)}
    assert list(by_task) == [Task.TEXT_TO_IMAGE, Task.IMAGE_TO_IMAGE, Task.INPAINT]
    assert all({"stable-diffusion", "stable-diffusion-xl", "kandinsky22", "flux"} <= keys for keys in by_task.values())
    kandinsky = next(row for row in ROWS if row.key == "kandinsky22")
    assert kandinsky.class_name == "KandinskyV22Pipeline"
    assert kandinsky.families == ("Kandinsky 2.2 decoder",)


@pytest.mark.parametrize("task", [Task.IMAGE_TO_IMAGE, Task.INPAINT, Task.TEXT_TO_IMAGE])
def test_stable_diffusion_and_sdxl_run_all_their_rows(task: Task) -> None:
    """Except those with a ControlNet Union, as long as no family names a pipeline for it."""
    rows = [
        row
        for row in ROWS
        if row.task is task
        and (row.key == "lcm" or (row.key.startswith("stable-diffusion") and "stable-diffusion-3" not in row.key))
    ]
    runs_unions = any("Union" in name for family in FAMILIES for _, name in coverage.classes_of(family))
    missing = {row.key for row in rows if not row.families}
    assert missing <= (set() if runs_unions else {"stable-diffusion-xl-controlnet-union"})
    assert len(rows) >= 8


def test_a_row_runs_exactly_if_a_family_has_its_key() -> None:
    keys = {key for family in FAMILIES for key in family.auto_keys}
    assert {row.key for row in RUN} == keys
    for row in RUN:
        owners = {family.title for family in FAMILIES if row.key in family.auto_keys}
        assert owners & set(row.families), row


def test_a_row_that_runs_has_a_function_for_its_task() -> None:
    by_title = {family.title: family.name for family in FAMILIES}
    for row in RUN:
        for title in row.families:
            assert row.task in RUNS[by_title[title]]


def test_a_row_that_a_family_no_longer_names_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    less = replace(STABLE_DIFFUSION, pag_pipeline_classes={})
    monkeypatch.setattr(family_table, "FAMILIES", (less,))
    assert {row.key for row in coverage.rows() if row.families} == {
        "stable-diffusion",
        "stable-diffusion-controlnet",
        "stable-diffusion-controlnet-pag",
    }
    monkeypatch.setattr(family_table, "FAMILIES", ())
    assert not any(row.families for row in coverage.rows())


def test_the_readme_has_the_table() -> None:
    assert coverage.readme_table() == coverage.table(ROWS), "python dev.py coverage --write puts it there"


def test_the_table_is_written_into_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{coverage.BEGIN}old\n{coverage.END}after\n", "utf-8")
    monkeypatch.setattr(coverage, "README", readme)
    assert coverage.main(["--write"]) == 0
    text = readme.read_text("utf-8")
    assert text == f"before\n{coverage.BEGIN}{coverage.table(ROWS)}{coverage.END}after\n"
    printed = capsys.readouterr().out
    assert f"inpainting: {sum(row.task is Task.INPAINT for row in RUN)} of " in printed
