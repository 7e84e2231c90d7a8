"""What can be set is found by an app's input, a title or an id; what is ambiguous or unknown is answered with candidates."""

from __future__ import annotations

from datetime import datetime

import pytest

from relay_batch.addresses import Settings
from relay_batch.errors import BadAddress
from relay_batch.ui_convert import convert
from relay_batch.workflow_file import Workflow
from support.batch_nodes import api_workflow, recorded_nodes
from support.saved_workflows import nested, with_subgraph


def settings_of(*app_inputs: tuple[str, str]) -> Settings:
    return Settings(Workflow(api_workflow(), app_inputs=app_inputs), recorded_nodes())


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("What to paint.text", [("2", "text")]),
        ("2.text", [("2", "text")]),
        ("6.seed", [("6", "seed")]),
        ("SaveImage.filename_prefix", [("3", "filename_prefix")]),
    ],
)
def test_titles_and_ids(address: str, targets: list[tuple[str, str]]) -> None:
    assert list(settings_of().find(address).targets) == targets


def test_the_inputs_of_an_app_come_first() -> None:
    settings = settings_of(("6", "seed"), ("2", "text"))
    assert settings.find("seed").by_id == "6.seed"
    assert settings.best_address(settings.find("2.text")) == "text"
    assert settings.best_address(settings.find("5.seed")) == "5.seed"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("Paint.seed", "names 2 inputs: 5.seed, 6.seed. Use one of these"),
        ("What to pant.text", "names no input. There are: What to paint.text"),
        ("seed", "There are: 5.seed, 6.seed."),
        ("SaveImage.images", "can't be set: the input is linked"),
        ("nothing at all", "There are: Start.image, What to paint.text, SaveImage.filename_prefix, "),
    ],
)
def test_candidates(address: str, message: str) -> None:
    with pytest.raises(BadAddress) as refused:
        settings_of().find(address)
    assert message in str(refused.value)


def test_an_app_with_two_inputs_of_a_name() -> None:
    with pytest.raises(BadAddress, match=r"'seed' names 2 inputs: 5\.seed, 6\.seed"):
        settings_of(("5", "seed"), ("6", "seed")).find("seed")


@pytest.mark.parametrize(
    ("workflow", "address", "targets"),
    [
        (with_subgraph(), "Two scalings.scale_by", (("2:1", "scale_by"),)),
        (with_subgraph(), "2.scale_by", (("2:1", "scale_by"),)),
        (with_subgraph(), "2:2.upscale_method", (("2:2", "upscale_method"),)),
        (nested(), "Three scalings.scale_by", (("9:4:1", "scale_by"),)),
        (nested(), "9:9.scale_by", (("9:9", "scale_by"),)),
    ],
)
def test_inside_of_subgraphs(workflow: dict, address: str, targets: tuple) -> None:
    done = convert(workflow, recorded_nodes(), datetime(2026, 1, 1))
    assert (
        Settings(Workflow(done.prompt, done.promoted, done.titles), recorded_nodes()).find(address).targets == targets
    )


def test_everything_has_an_address() -> None:
    settings = settings_of()
    addresses = [settings.best_address(one) for one in settings.all]
    assert len(set(addresses)) == len(addresses) == 18
    assert [settings.find(address) for address in addresses] == settings.all
