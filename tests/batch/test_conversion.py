"""Workflows in UI format become the prompts that the page made of them, and what can't be converted is refused by name."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from relay_batch.errors import UnreadableWorkflow
from relay_batch.node_table import NodeTable
from relay_batch.ui_convert import convert
from relay_batch.ui_text import filled, format_date
from relay_batch.workflow_file import read_workflow
from support.batch_nodes import api_workflow, recorded, recorded_nodes
from support.saved_workflows import MUTED, chain, node, sampling, saved_workflows, scaled, twice, with_subgraph

NOW = datetime(2026, 3, 9, 14, 5, 7)
PROMPTS = recorded()["prompts"]


@pytest.mark.parametrize("name", [name for name in saved_workflows() if name != "date"])
def test_as_the_page_converts(name: str) -> None:
    assert convert(saved_workflows()[name], recorded_nodes(), NOW).prompt == PROMPTS[name]


MADE_OTHERWISE = {
    "subgraph, muted": "is a muted or bypassed subgraph",
    "subgraph, bypassed": "is a muted or bypassed subgraph",
    "subgraph, another proxy value": "has another .* than the node inside of it",
    "subgraph, proxy widgets first": "has another .* than the node inside of it",
    "subgraph, own widget not listed": "has another .* than the node inside of it",
    "nested, inner muted": "is a muted or bypassed subgraph",
    "nested, outer bypassed": "is a muted or bypassed subgraph",
    "nested, inner bypassed": "is a muted or bypassed subgraph",
}
"""What newer pages make another prompt of, or may."""


@pytest.mark.parametrize("name", [name for name in saved_workflows() if name != "date"])
def test_a_newer_page_s_file_is_refused_where_that_page_makes_something_else(name: str) -> None:
    workflow = saved_workflows()[name]
    workflow["extra"] = {"frontendVersion": "1.58.1"}
    if name in MADE_OTHERWISE:
        with pytest.raises(UnreadableWorkflow, match=MADE_OTHERWISE[name]):
            convert(workflow, recorded_nodes(), NOW)
    else:
        assert convert(workflow, recorded_nodes(), NOW).prompt == PROMPTS[name]
    workflow["extra"] = {"frontendVersion": "1.32.9"}
    assert convert(workflow, recorded_nodes(), NOW).prompt == PROMPTS[name]


def test_nothing_recorded_is_left_out() -> None:
    assert PROMPTS.keys() == saved_workflows().keys() - {"date"}


def test_the_date_is_the_time_given() -> None:
    prompt = convert(saved_workflows()["date"], recorded_nodes(), NOW).prompt
    assert prompt["3"]["inputs"]["filename_prefix"] == "2026-03-09/26 3 9_64_%Nobody.width%_%width%"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yyyy-MM-dd", "2026-03-09"),
        ("yy M d", "26 3 9"),
        ("hhmmss", "140507"),
        ("h:m:s", "14:5:7"),
        ("yyy", "yyy"),
        ("week", "week"),
    ],
)
def test_dates(text: str, wanted: str) -> None:
    assert format_date(text, NOW) == wanted


def test_what_a_file_name_can_not_hold_becomes_a_line() -> None:
    assert filled("%a.b%", lambda *_: 'x/y\\z:"*?<>|\n', NOW) == "x_y_z________"


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        chain(node(2, "OfAnotherPack", [("image", "IMAGE")], [("IMAGE", "IMAGE")], title="Mine")),
        "2 'Mine' (OfAnotherPack)",
    ),
    (chain(node(2, "workflow>old", [("image", "IMAGE")], [("IMAGE", "IMAGE")])), "an old group node"),
    (sampling("a {red|blue} cat"), "The node 2 'Text' (CLIPTextEncode): text has a random choice"),
    (chain(scaled(2, mode=MUTED), scaled(1, mode=MUTED)) | {"nodes": []}, "no node that runs"),
]


@pytest.mark.parametrize(("workflow", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused_by_name(workflow: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableWorkflow) as refused:
        convert(workflow, recorded_nodes(), NOW)
    assert message in str(refused.value)


def test_an_input_that_the_page_makes_is_refused() -> None:
    table = NodeTable({"WebcamCapture": {"input": {"required": {"image": ["WEBCAM", {}]}}}})
    made = node(1, "WebcamCapture", [], [("IMAGE", "IMAGE")], [""])
    with pytest.raises(UnreadableWorkflow, match=r"The node 1 \(WebcamCapture\): its input image"):
        convert(chain(made), table, NOW)


def test_an_unknown_node_that_does_not_run_is_no_matter() -> None:
    middle = node(2, "OfAnotherPack", [("image", "IMAGE")], [("IMAGE", "IMAGE")], mode=MUTED)
    assert convert(chain(middle), recorded_nodes(), NOW).prompt.keys() == {"1", "3"}


def test_a_subgraph_that_contains_itself_is_refused() -> None:
    workflow = with_subgraph()
    workflow["definitions"]["subgraphs"][0]["nodes"][1]["type"] = workflow["definitions"]["subgraphs"][0]["id"]
    with pytest.raises(UnreadableWorkflow, match="Two scalings contains itself"):
        convert(workflow, recorded_nodes(), NOW)


def test_bypassed_nodes_in_a_circle_are_refused() -> None:
    workflow = chain(scaled(2, mode=4))
    workflow["nodes"][1]["inputs"][0]["link"] = 2  # its own output
    with pytest.raises(UnreadableWorkflow, match="run in a circle"):
        convert(workflow, recorded_nodes(), NOW)


def test_links_of_version_1() -> None:
    workflow = chain(scaled(2))
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    workflow["links"] = [dict(zip(keys, link)) for link in workflow["links"]]
    assert convert(workflow, recorded_nodes(), NOW).prompt == PROMPTS["plain"]


def test_promoted_widgets_name_the_inputs_that_they_set() -> None:
    promoted = {name: convert(saved_workflows()[name], recorded_nodes(), NOW).promoted for name in saved_workflows()}
    assert promoted["subgraph"] == {("2", "scale_by"): [("2:1", "scale_by")]}
    assert promoted["nested"] == {("9", "scale_by"): [("9:4:1", "scale_by")]}
    assert promoted["subgraph, linked"] == {}
    assert promoted["subgraph, proxy widgets"][("2", "upscale_method")] == [("2:2", "upscale_method")]
    assert convert(twice(), recorded_nodes(), NOW).promoted.keys() == {("2", "scale_by"), ("4", "scale_by")}


def picture_with(file: Path, **texts: Any) -> Path:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, json.dumps(value))
    Image.new("RGB", (8, 8), "red").save(file, pnginfo=info)
    return file


def test_a_saved_picture_gives_the_prompt_that_was_run(tmp_path: Path) -> None:
    ran = api_workflow()
    shown = chain(scaled(2)) | {"extra": {"linearData": {"inputs": [[2, "text"], ["5", "seed"]], "outputs": [3]}}}
    found = read_workflow(picture_with(tmp_path / "made.png", prompt=ran, workflow=shown), recorded_nodes(), NOW)
    assert found.prompt == ran
    assert found.app_inputs == (("2", "text"), ("5", "seed"))


def test_a_picture_with_only_the_workflow(tmp_path: Path) -> None:
    file = picture_with(tmp_path / "made.png", workflow=chain(scaled(2)))
    assert read_workflow(file, recorded_nodes(), NOW).prompt == PROMPTS["plain"]


def test_files_in_either_format(tmp_path: Path) -> None:
    for name, content in (("api", api_workflow()), ("ui", chain(scaled(2)))):
        (tmp_path / name).write_text(json.dumps(content), "utf-8")
    assert read_workflow(tmp_path / "api", recorded_nodes(), NOW).prompt == api_workflow()
    assert read_workflow(tmp_path / "ui", recorded_nodes(), NOW).prompt == PROMPTS["plain"]


def test_files_that_are_no_workflow(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "bare.png").read_bytes()[:40])
    (tmp_path / "text").write_text("a cat")
    (tmp_path / "list.json").write_text("[1]")
    dangling = {"3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0]}}}
    (tmp_path / "dangling.json").write_text(json.dumps(dangling))
    (tmp_path / "unknown.json").write_text(json.dumps({"3": {"class_type": "Other", "inputs": {}}}))
    for name, message in (
        ("bare.png", "carries no workflow"),
        ("broken.png", "broken PNG"),
        ("text", "neither a PNG nor JSON"),
        ("list.json", "no workflow of ComfyUI"),
        ("missing.json", "can't be read"),
        ("dangling.json", "images of the node 3 (SaveImage) is linked to 9"),
        ("unknown.json", "The node 3 (Other) is not known"),
    ):
        with pytest.raises(UnreadableWorkflow) as refused:
            read_workflow(tmp_path / name, recorded_nodes(), NOW)
        assert message in str(refused.value), name
