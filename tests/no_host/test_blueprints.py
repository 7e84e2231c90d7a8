"""The blueprint files: those that are described, complete, and free of anything that exists only on one machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay_dev.blueprints import BLUEPRINTS
from relay_dev.blueprints.blueprint import CATEGORY, Blueprint
from relay_host.paths import ROOT

FOLDER = ROOT / "subgraphs"


@pytest.fixture(params=BLUEPRINTS, ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest) -> Blueprint:
    return request.param()


@pytest.fixture
def workflow(made: Blueprint) -> dict[str, Any]:
    return json.loads((FOLDER / f"{made.name}.json").read_text("utf-8"))


def test_there_is_a_file_for_each_description() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == {make().name for make in BLUEPRINTS}


def test_it_is_one_node_with_the_inputs_of_the_description(workflow: dict[str, Any], made: Blueprint) -> None:
    (node,), (subgraph,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    assert node["title"] == subgraph["name"] == made.name
    assert [one["name"] for one in subgraph["inputs"]] == [name for name, _ in made.inputs]
    assert [one["name"] for one in subgraph["outputs"]] == [name for name, _ in made.outputs]
    inside = {one.title for one in made.sheet.nodes(made.sheet.preferred_sizes())}
    assert {one["title"] for one in subgraph["nodes"]} == inside
    places = sum(len(places) for _, places in made.inputs)
    assert len(subgraph["links"]) == len(made.sheet.links) + places + len(made.outputs)


def test_the_page_can_say_what_it_is_and_find_it(workflow: dict[str, Any], made: Blueprint) -> None:
    (subgraph,) = workflow["definitions"]["subgraphs"]
    assert subgraph["category"] == CATEGORY
    assert subgraph["description"] == workflow["extra"]["BlueprintDescription"] == made.description
    assert workflow["extra"]["BlueprintSearchAliases"] == list(made.aliases)
    assert "ds" not in workflow["extra"]


def test_nodes_inside_say_which_pack_they_are_from(workflow: dict[str, Any]) -> None:
    (subgraph,) = workflow["definitions"]["subgraphs"]
    for node in subgraph["nodes"]:
        pack = "diffusers-relay" if node["type"].startswith("Relay") else "comfy-core"
        assert node["properties"]["cnr_id"] == pack
        assert node["properties"]["ver"]
