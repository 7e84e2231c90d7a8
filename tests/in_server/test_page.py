"""What a user sees: every node with its help, and every example workflow loading without a dialog, unchanged, and running."""

import json
from pathlib import Path

import pytest

from relay_dev.make_examples import SETTLE, saved_again
from relay_host.page import HostPage, NodeOnPage
from relay_host.paths import PACK_FOLDER, ROOT
from relay_host.server import HostServer
from support.pages import HOSTS_OWN, NODES_2, artifacts_of
from support.workflows import essence

FEW_STEPS = 4
"""Steps for each run of an example: the number doesn't affect what these tests check."""
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
RUN_ON_NODES_2 = ("sd15_image_to_image", "mixed_with_comfyui_nodes")
"""The host runs the same prompts from both pages, so two examples are enough on the second one."""


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


def test_nodes_2_draws_the_nodes_as_html(page: HostPage, page_name: str, pack_nodes: dict[str, dict]) -> None:
    page.build([NodeOnPage("node", min(pack_nodes), (100, 100))])
    page.page.wait_for_timeout(SETTLE)
    assert page.page.locator("[data-node-id]").count() == (1 if page_name == NODES_2 else 0)


def test_every_node_and_every_input_is_explained(page: HostPage, pack_nodes: dict[str, dict]) -> None:
    unexplained = []
    for name in pack_nodes:
        help_text = page.node_help(name)
        if not help_text["description"]:
            unexplained.append(name)
        unexplained += [f"{name}.{key}" for key, tooltip in help_text["inputs"].items() if not tooltip]
    assert unexplained == []


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_workflow_is_saved_as_it_was_loaded_and_runs(page: HostPage, page_name: str, file: Path) -> None:
    workflow = json.loads(file.read_text("utf-8"))
    assert essence(saved_again(page, workflow)) == essence(workflow)
    if page_name == HOSTS_OWN or file.stem in RUN_ON_NODES_2:
        page.take_fewer_steps(FEW_STEPS)
        page.fit_view()
        run = page.queue_and_wait(200).raise_for_error()
        page.page.wait_for_timeout(500)
        page.screenshot(artifacts_of(page_name) / f"{file.stem}.png")
        pictures = [entry for output in run.outputs.values() for entry in output.get("images", [])]
        assert pictures, "the workflow made no picture"
    assert page.errors == []
