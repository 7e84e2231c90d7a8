"""The page takes each example as it is: no dialog, nothing lost, and what it saves again is what it loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from relay_dev.make_examples import saved_again
from relay_dev.page import HostPage
from relay_dev.paths import ROOT

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
OF_A_NODE = ("id", "type", "title", "pos", "mode", "widgets_values")
"""Not its size: that also depends on the fonts that the browser has."""


def essence(workflow: dict[str, Any]) -> dict[str, Any]:
    nodes = sorted(workflow["nodes"], key=lambda node: node["id"])
    return {
        "id": workflow["id"],
        "nodes": [{key: node.get(key) for key in OF_A_NODE} for node in nodes],
        "links": workflow["links"],
        "groups": workflow["groups"],
    }


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_second_save_is_the_first(page: HostPage, file: Path) -> None:
    workflow = json.loads(file.read_text("utf-8"))
    assert essence(saved_again(page, workflow)) == essence(workflow)
    assert page.errors == []
