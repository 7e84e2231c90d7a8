"""What a user sees: every node with its help, and every example workflow loading without a dialog, unchanged, and running."""

import json
from pathlib import Path

import pytest

from relay_dev.make_examples import saved_again
from relay_host.page import HostPage
from relay_host.paths import ARTIFACTS, PACK_FOLDER, ROOT
from relay_host.server import HostServer
from support.workflows import essence

FEW_STEPS = 4
"""Steps for each run of an example: the number doesn't affect what these tests check."""
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))


@pytest.fixture(scope="module")
def pack_nodes(server: HostServer) -> dict[str, dict]:
    """{node id: the server's description} for the pack's nodes."""
    return {
        name: info
        for name, info in server.object_info().items()
        if info["python_module"] == f"custom_nodes.{PACK_FOLDER}"
    }


def test_the_host_loads_the_pack(server: HostServer, pack_nodes: dict[str, dict]) -> None:
    assert pack_nodes, server.log_tail(100)
    failed = [line for line in server.log_text().splitlines() if "IMPORT FAILED" in line and PACK_FOLDER in line]
    assert failed == []
    assert all(name.startswith("Relay") for name in pack_nodes)
    assert all(info["category"].split("/")[0] == "Diffusers Relay" for info in pack_nodes.values())


def test_every_node_is_on_the_page(page: HostPage, pack_nodes: dict[str, dict]) -> None:
    assert set(pack_nodes) <= set(page.registered_nodes())


def test_every_node_and_every_input_is_explained(page: HostPage, pack_nodes: dict[str, dict]) -> None:
    unexplained = []
    for name in pack_nodes:
        help_text = page.node_help(name)
        if not help_text["description"]:
            unexplained.append(name)
        unexplained += [f"{name}.{key}" for key, tooltip in help_text["inputs"].items() if not tooltip]
    assert unexplained == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_workflow_is_saved_as_it_was_loaded_and_runs(page: HostPage, file: Path) -> None:
    workflow = json.loads(file.read_text("utf-8"))
    assert essence(saved_again(page, workflow)) == essence(workflow)
    page.take_fewer_steps(FEW_STEPS)
    page.fit_view()
    run = page.queue_and_wait(200).raise_for_error()
    page.page.wait_for_timeout(500)
    page.screenshot(ARTIFACTS / "page" / f"{file.stem}.png")
    pictures = [entry for output in run.outputs.values() for entry in output.get("images", [])]
    assert pictures, "the workflow made no picture"
    assert page.errors == []
