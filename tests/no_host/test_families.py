"""The table of families is complete and agrees with diffusers' own tables."""

import inspect

import pytest
import torch
from diffusers.pipelines import auto_pipeline

from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.base.monitor import SilentMonitor
from diffusers_relay.pipelines.families.family_runs import RUNS
from diffusers_relay.pipelines.loading.folder import load_folder
from diffusers_relay.pipelines.model.family import ModelFamily, Task
from diffusers_relay.pipelines.model.family_table import FAMILIES
from relay_dev.model_folders import SmallModels

AUTO_TABLES = {
    Task.TEXT_TO_IMAGE: auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    Task.IMAGE_TO_IMAGE: auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    Task.INPAINT: auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}


def decoder_name(auto_class: type) -> str:
    """The decoder's class: AutoPipeline's Kandinsky combines a prior and a decoder, which are two families here."""
    return auto_class.__name__.replace("Combined", "")


NOT_COVERED: dict[str, set[Task]] = {}
"""Of the rows that a family names, the tasks that AutoPipeline has and the pack has not."""
BESIDE_DIFFUSERS = {"sdxl-refiner"}
"""Families that AutoPipeline treats as another one: a refiner is an SDXL without its first text encoder."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_task_of_a_family_has_its_run(family: ModelFamily) -> None:
    ours = set(family.pipeline_classes) - {Task.PRIOR}
    assert set(RUNS.get(family.name, {})) == ours
    for task in ours:
        assert list(inspect.signature(RUNS[family.name][task]).parameters) == ["job", "device"]


def test_no_run_is_left_over() -> None:
    assert set(RUNS) <= {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", [one for one in FAMILIES if one.auto_keys], ids=lambda family: family.name)
def test_a_familys_rows_of_autopipeline_are_its_classes(family: ModelFamily) -> None:
    """The first key is for the family's plain pipelines. What it ends with tells the others: ControlNets, Unions, perturbed attention."""
    of_kind = {
        "-controlnet-union": family.union_pipeline_classes,
        "-controlnet-pag": family.pag_control_pipeline_classes,
        "-controlnet": family.control_pipeline_classes,
        "-pag": family.pag_pipeline_classes,
        "": family.pipeline_classes,
    }
    for key in family.auto_keys:
        classes = next(classes for end, classes in of_kind.items() if key.endswith(end))
        theirs = {task: decoder_name(table[key]) for task, table in AUTO_TABLES.items() if key in table}
        assert set(theirs) - set(classes) == NOT_COVERED.get(key, set())
        assert dict(classes) == {task: name for task, name in theirs.items() if task in classes}


def test_every_family_that_autopipeline_knows_says_so() -> None:
    known = {decoder_name(cls) for table in AUTO_TABLES.values() for cls in table.values()}
    ours = {f.name for f in FAMILIES if known & set(f.pipeline_classes.values())}
    assert ours - BESIDE_DIFFUSERS == {f.name for f in FAMILIES if f.auto_keys}


def test_a_family_that_is_newer_than_diffusers_is_refused(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.__version__", "0.38.0")
    with pytest.raises(RelayError, match=r"needs diffusers 0\.39 or newer; 0\.38\.0 is installed"):
        load_folder(models.named["sd3"], dtype=torch.float32, monitor=SilentMonitor())
