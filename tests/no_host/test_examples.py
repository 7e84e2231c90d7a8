"""The example workflow files: complete, readable, and free of anything that exists only on one machine."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from PIL import Image

from relay_dev.examples import SHEETS
from relay_dev.hub_cache import HUB_CONTROLNETS, HUB_IDS
from relay_host.comfyui import HOST_VERSION
from relay_host.paths import ROOT
from tiny_world.layout import LCM_LORA_FILE, LORA_FILE

EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
TITLE_HEIGHT = 30
THUMBNAIL_BYTES = 60_000
IN_NO_EXAMPLE = {
    "RelayLoadModel": "the user's folders aren't known",
    "RelayLoadControlNet": "the user's folders aren't known",
    "RelayLoadTextualInversion": "the user's files aren't known",
    "RelayLoadImageFromUrl": "the examples use the network only for the models",
    "RelayEncode": "the samplers encode",
    "RelayConvertLatent": "the samplers convert",
    "RelayOptimize": "the best option depends on the machine",
    "RelaySetVae": "the guide's models don't need another VAE",
    "RelayLoadIpAdapter": "the user's files aren't known",
    "RelaySdxlSize": "the guide doesn't use it",
}
APPS = {
    "sd15_image_to_image": [
        ("The picture to start from", "image"),
        ("What to paint", "prompt"),
        ("What to paint", "negative_prompt"),
        ("Repaint", "strength"),
        ("Repaint", "guidance_scale"),
        ("Repaint", "seed"),
    ],
    "image_to_x2_to_x4": [
        ("The picture to start from", "image"),
        ("To repaint", "prompt"),
        ("For x4", "prompt"),
        ("Repaint", "strength"),
        ("Four times as large", "noise_level"),
        ("Four times as large", "tile_size"),
    ],
}
OF_ONE_MACHINE = re.compile(r"/(home|root|work|Users|tmp|mnt)/|[A-Za-z]:\\\\|localhost|127\.0\.0\.1")

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@pytest.fixture(params=EXAMPLES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def workflow(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def box(node: dict[str, Any]) -> Box:
    """Includes the title, which is drawn above the node's position."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE_HEIGHT, left + width, top + height


def group_box(group: dict[str, Any]) -> Box:
    left, top, width, height = group["bounding"]
    return left, top, left + width, top + height


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def encloses(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def is_note(node: dict[str, Any]) -> bool:
    return node["type"] == "MarkdownNote"


def test_there_is_a_file_for_each_description() -> None:
    assert {file.stem for file in EXAMPLES} == {sheet().file for sheet in SHEETS}


def test_the_file_is_what_the_description_says(file: Path, workflow: dict[str, Any]) -> None:
    (sheet,) = (made for make in SHEETS if (made := make()).file == file.stem)
    nodes = {(node.type, node.title) for node in sheet.nodes(sheet.preferred_sizes())}
    assert {(node["type"], node.get("title")) for node in workflow["nodes"]} == nodes
    assert len(workflow["links"]) == len(sheet.links)
    (note,) = filter(is_note, workflow["nodes"])
    assert note["widgets_values"] == [sheet.note]


def test_a_note_says_what_it_shows_what_to_try_and_where_to_read_more(workflow: dict[str, Any]) -> None:
    (note,) = filter(is_note, workflow["nodes"])
    (text,) = note["widgets_values"]
    assert text.startswith("# ")
    assert "**Try**" in text
    assert "https://huggingface.co/docs/diffusers/" in text


def test_nothing_overlaps(workflow: dict[str, Any]) -> None:
    for one, other in combinations(workflow["nodes"], 2):
        assert not overlap(box(one), box(other)), f"{one['title']} and {other['title']}"
    for one, other in combinations(workflow["groups"], 2):
        assert not overlap(group_box(one), group_box(other)), f"{one['title']} and {other['title']}"


def test_every_node_has_a_title_and_is_in_one_group(workflow: dict[str, Any]) -> None:
    groups = workflow["groups"]
    for node in workflow["nodes"]:
        assert node.get("title"), f"{node['type']} has no title"
        around = [group["title"] for group in groups if overlap(group_box(group), box(node))]
        assert len(around) == (0 if is_note(node) else 1), f"{node['title']} is in {around}"
        assert all(encloses(group_box(group), box(node)) for group in groups if group["title"] in around)


def test_the_groups_are_numbered_from_left_to_right(workflow: dict[str, Any]) -> None:
    groups = sorted(workflow["groups"], key=lambda group: group["bounding"][0])
    assert [group["title"].split()[0] for group in groups] == [str(number + 1) for number in range(len(groups))]
    assert len({group["color"] for group in groups}) == len(groups)


def test_links_lead_from_left_to_right(workflow: dict[str, Any]) -> None:
    """Also where a wire is led around nodes."""
    boxes = {node["id"]: box(node) for node in workflow["nodes"]}
    points = {reroute["id"]: reroute for reroute in workflow["extra"].get("reroutes", [])}
    last = {one["id"]: one["parentId"] for one in workflow["extra"].get("linkExtensions", [])}
    for link, source, _, target, _, _ in workflow["links"]:
        path, at = [boxes[target][0]], last.get(link)
        while at:
            assert link in points[at]["linkIds"]
            path.append(points[at]["pos"][0])
            at = points[at].get("parentId")
        path.append(boxes[source][2])
        assert path == sorted(path, reverse=True)


def test_every_node_says_which_pack_it_is_from(workflow: dict[str, Any]) -> None:
    """So that a page without the pack offers to install it."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    name, version = (re.search(rf'^{key} = "(.+)"$', project, re.MULTILINE)[1] for key in ("name", "version"))
    for node in workflow["nodes"]:
        source = node["properties"].get("cnr_id"), node["properties"].get("ver")
        if node["type"].startswith("Relay"):
            assert source[0] == name
            assert Version(source[1]) <= Version(version)
        else:
            assert source == ((None, None) if is_note(node) else ("comfy-core", HOST_VERSION))


def test_a_file_that_is_published_can_be_downloaded(workflow: dict[str, Any]) -> None:
    """The page offers it if the host lacks it. A LoRA's name is only an example."""
    for node in workflow["nodes"]:
        files = node["properties"].get("models", [])
        assert len(files) == (node["type"] == "CheckpointLoaderSimple")
        for file in files:
            assert node["widgets_values"][0] == file["name"] == file["url"].split("/")[-1]
            assert file["url"].startswith("https://huggingface.co/")
            assert file["directory"] == "checkpoints"


def test_no_deprecated_node(workflow: dict[str, Any]) -> None:
    assert "ImageBatch" not in {node["type"] for node in workflow["nodes"]}


def test_two_are_apps() -> None:
    """In app mode, the page shows only these inputs and outputs; a name that a node lacks would be left out silently."""
    apps = {}
    for file in EXAMPLES:
        workflow = json.loads(file.read_text("utf-8"))
        if "linearData" in workflow["extra"]:
            titles = {node["id"]: node["title"] for node in workflow["nodes"]}
            data = workflow["extra"]["linearData"]
            apps[file.stem] = [(titles[node], widget) for node, widget in data["inputs"]]
            assert [node["type"] for node in workflow["nodes"] if node["id"] in data["outputs"]] == ["SaveImage"]
    assert apps == APPS


def test_models_are_those_of_the_guide(workflow: dict[str, Any]) -> None:
    loaders = [node for node in workflow["nodes"] if node["type"] == "RelayLoadModelFromHub"]
    assert loaders
    assert {node["widgets_values"][0] for node in loaders} <= set(HUB_IDS)
    controlnets = [node for node in workflow["nodes"] if node["type"] == "RelayLoadControlNetFromHub"]
    assert {node["widgets_values"][0] for node in controlnets} <= set(HUB_CONTROLNETS)
    loras = [node for node in workflow["nodes"] if node["type"] == "RelayLoadLora"]
    assert {node["widgets_values"][0] for node in loras} <= {LORA_FILE, LCM_LORA_FILE}


def test_seeds_are_fixed(file: Path, workflow: dict[str, Any]) -> None:
    (sheet,) = (made for make in SHEETS if (made := make()).file == file.stem)
    nodes = sheet.nodes(sheet.preferred_sizes())
    seeded = {node.title: node.widgets["seed"] for node in nodes if "seed" in node.widgets}
    assert seeded
    for node in workflow["nodes"]:
        values = node.get("widgets_values", [])
        if node["title"] in seeded:
            assert values[values.index("fixed") - 1] == seeded[node["title"]]
        else:
            assert "randomize" not in values


def test_it_saves_one_picture(workflow: dict[str, Any]) -> None:
    assert [node["type"] for node in workflow["nodes"]].count("SaveImage") == 1


def test_nothing_in_it_is_of_one_machine(file: Path) -> None:
    assert not OF_ONE_MACHINE.search(file.read_text("utf-8"))


def test_the_thumbnail_is_small(file: Path) -> None:
    thumbnail = file.with_suffix(".jpg")
    assert thumbnail.stat().st_size < THUMBNAIL_BYTES
    with Image.open(thumbnail) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) == 400


def test_every_node_of_the_pack_is_in_an_example() -> None:
    sources = (source.read_text("utf-8") for source in (ROOT / "nodes").glob("*.py"))
    ids = {node_id for source in sources for node_id in re.findall(r'node_id="(\w+)"', source)}
    shown = {node["type"] for file in EXAMPLES for node in json.loads(file.read_text("utf-8"))["nodes"]}
    assert ids - shown == set(IN_NO_EXAMPLE)
