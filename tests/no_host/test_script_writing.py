"""Graphs written as scripts: what is in the text. tests/in_server/test_scripts.py runs scripts and compares their pictures."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusers_relay.script.errors import NoScript
from diffusers_relay.script.known_models import Shelf
from diffusers_relay.script.literals import comment, literal, variable
from diffusers_relay.script.part_texts import all_parts
from diffusers_relay.script.write import GRAPH_MARK, graph_in, write_script
from diffusers_relay.script.writers.table import OURS, WRITERS
from relay_host.paths import ROOT
from support.script_runs import NOT_WRITTEN, RECORDED

EXAMPLES: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text("utf-8"))
WRITTEN = sorted(set(EXAMPLES) - set(NOT_WRITTEN))
LIBRARIES = {"torch", "diffusers", "transformers", "compel", "peft", "PIL", "numpy", "safetensors"}
STANDARD = {"collections", "copy", "math", "pathlib", "typing"}
FROZEN = ROOT / "tests" / "in_host" / "frozen_nodes.txt"
NO_CACHE = Shelf(hub=Path("no such folder"))
"""Only the published models are known, whatever this machine has."""
LINT = ("--isolated", "--select", "E4,E7,E9,F,W,I,UP,B,C4,SIM,RUF100")
NASTY = st.sampled_from(
    (
        '"""',
        "'''",
        "\\",
        "\\\\'",
        "\n",
        "\r",
        "\x0c",
        "\u2028",
        "\x00",
        "__import__('os').system('true')",
        '" + __import__("os").getcwd() + "',
        "# relay-graph: {}",
        "{x}",
        "%s",
        "\ud800",
        "漢字",
        "\u202e",
        "') ; raise SystemExit #",
        "import os",
    )
)
TEXTS = st.lists(NASTY | st.text(max_size=6), min_size=1, max_size=4).map("".join)


def example(name: str = "sd15_image_to_image") -> dict[str, Any]:
    return copy.deepcopy(EXAMPLES[name])


def node_of(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(node for node in prompt.values() if node["class_type"] == kind)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: write_script(EXAMPLES[name], NO_CACHE) for name in WRITTEN}


def test_there_is_a_recorded_prompt_for_each_example() -> None:
    assert set(EXAMPLES) == {file.stem for file in (ROOT / "example_workflows").glob("*.json")}


def test_the_scripts_are_as_a_person_would_write_them(texts: dict[str, str], tmp_path: Path) -> None:
    """ruff's linter, with the order of imports, and its formatter find nothing."""
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    for command in (("check", "-q", *LINT), ("format", "--isolated", "--check", "-q")):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", WRITTEN)
def test_a_script_imports_only_the_libraries_and_runs_no_text(texts: dict[str, str], name: str) -> None:
    tree = ast.parse(texts[name])
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in imported} <= LIBRARIES | STANDARD
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__", "globals", "open"}
    assert graph_in(texts[name]) == {"prompt": EXAMPLES[name]}


@pytest.mark.parametrize("name", WRITTEN)
def test_each_pipeline_is_loaded_once(texts: dict[str, str], name: str) -> None:
    loaders = {
        node["inputs"]["repo_id"] for node in EXAMPLES[name].values() if node["class_type"] == "RelayLoadModelFromHub"
    }
    assert len(re.findall(r"Pipeline\.from_pretrained\(", texts[name])) == len(loaders)


def test_a_node_is_a_block_with_its_title(texts: dict[str, str]) -> None:
    blocks = re.findall(r"^# (.*)$", texts["sd15_image_to_image"].split(GRAPH_MARK)[0], re.MULTILINE)
    titles = [node["_meta"]["title"] for node in EXAMPLES["sd15_image_to_image"].values()]
    assert sorted(blocks) == sorted(titles)


def test_readme_shows_what_is_written(texts: dict[str, str]) -> None:
    """Each piece of code in README's table, as far as its dots, is in the script."""
    section = (ROOT / "README.md").read_text("utf-8").split("## A graph as a script")[1].split("\n## ")[0]
    rows = [line.split(" | ", 1)[1] for line in section.splitlines() if line.startswith("| ") and "`" in line]
    pieces = [part for row in rows for code in re.findall(r"`([^`]+)`", row) for part in code.split("...")]
    assert len(rows) == 6
    script = "".join(texts["latent_chain_of_three"].replace(",\n}", "}").replace(",\n)", ")").split())
    assert [one for one in pieces if "".join(one.split()).strip(",").strip(")") not in script] == []


# --- every node and input is known


def frozen() -> dict[str, list[str]]:
    blocks = (block.splitlines() for block in FROZEN.read_text("utf-8").strip().split("\n\n"))
    return {
        first: [line.strip("[]").split()[0] for line in lines if not line.startswith("->")] for first, *lines in blocks
    }


NO_WRITER_YET = {
    "RelayLoadIpAdapter": "the adapter's parts are loaded apart from a pipeline",
    "RelayLoadIpAdapterFromHub": "the same",
    "RelayIpAdapterImage": "the same",
}
"""Nodes that stop the writing, and why."""


def test_every_node_of_the_pack_has_a_writer() -> None:
    assert set(OURS) == set(frozen()) - set(NO_WRITER_YET)


@pytest.mark.parametrize("node", OURS)
def test_every_input_is_read(node: str) -> None:
    """By its name, in the module of the node's writer."""
    source = Path(sys.modules[OURS[node].write.__module__].__file__ or "").read_text("utf-8")
    shared = ("{prefix}", "MORE_IMAGES")
    for name in frozen()[node]:
        known = f'"{name}"' in source or f'"{name.removeprefix("negative_")}"' in source
        assert known or any(part in source and name.startswith("image_") for part in shared), (
            f"{node} has a new input {name}"
        )


def test_an_input_that_no_writer_knows_stops_the_writing() -> None:
    prompt = example()
    node_of(prompt, "RelayImageToImage")["inputs"]["ip_adapter_of_next_year"] = 1
    with pytest.raises(NoScript, match=r"'Repaint' \(RelayImageToImage\): its input ip_adapter_of_next_year"):
        write_script(prompt, NO_CACHE)


SHORTER_IN_HELP = {
    *("AutoPipelineForText2Image", "AutoPipelineForImage2Image", "AutoPipelineForInpainting", "DiffusionPipeline"),
    *("return_dict", "vae_scale_factor", "preprocess", "make_image_grid", "cols"),
}
"""What a help page's script may have for classes and functions that a written script names in full."""
NOT_IN_SCRIPTS = {
    "RelayLoadModel": {"from_single_file"},
    "RelaySetVae": {"from_single_file", "AutoencoderKL"},
    "RelaySetGuidance": {"enable_pag"},
    "RelayOptimize": {"memory_format", "fullgraph", "enable_xformers_memory_efficient_attention"},
}
"""What help pages show and scripts can't have yet, or write otherwise."""
OF_CHOICES = {"use_karras_sigmas", "negative_original_size", "negative_crops_coords_top_left", "negative_target_size"}
"""Names that writers put together."""


@pytest.mark.parametrize("node", OURS)
def test_a_help_page_shows_what_is_written(node: str) -> None:
    """The classes, methods and arguments in its section "In a script" are those of the writers."""
    page = (ROOT / "web" / "docs" / f"{node}.md").read_text("utf-8").split("## In a script")[1]
    tree = ast.parse("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    calls = [part for part in ast.walk(tree) if isinstance(part, ast.Call)]
    shown = {word.arg for one in calls for word in one.keywords if word.arg}
    shown |= {one.func.attr for one in calls if isinstance(one.func, ast.Attribute)}
    shown |= {name.name for part in ast.walk(tree) if isinstance(part, ast.ImportFrom) for name in part.names}
    files = [*(ROOT / "script").rglob("*.py"), *(ROOT / "pipelines" / "model").glob("*.py")]
    sources = "".join(file.read_text("utf-8") for file in files)
    known = SHORTER_IN_HELP | NOT_IN_SCRIPTS.get(node, set()) | OF_CHOICES
    assert shown
    assert {name for name in shown - known if not re.search(rf"\b{name}\b", sources)} == set()


# --- other nodes


def test_another_node_stops_the_writing_with_its_name_and_title() -> None:
    with pytest.raises(NoScript, match=r"'Stable Diffusion 1.5 \(ComfyUI\)' \(CheckpointLoaderSimple\)"):
        write_script(EXAMPLES["mixed_with_comfyui_nodes"], NO_CACHE)


def test_stubs_stand_for_other_nodes() -> None:
    prompt = example()
    decode = next(id for id, node in prompt.items() if node["class_type"] == "RelayDecode")
    prompt["50"] = {"class_type": "Sharpen", "inputs": {"image": [decode, 0], "amount": 0.5, "how": "it's"}}
    node_of(prompt, "SaveImage")["inputs"]["images"] = ["50", 0]
    text = write_script(prompt, NO_CACHE, stubs=True)
    assert "def do_sharpen(**inputs: object) -> object:" in text
    assert "raise NotImplementedError(" in text
    assert 'sharpen = do_sharpen(image=latent_to_picture, amount=0.5, how="it\'s")' in text
    assert 'save(sharpen, "relay/sd15_image_to_image")' in text
    compile(text, "script", "exec")


def test_an_input_of_any_name_is_in_the_stub() -> None:
    """Names that Python doesn't take as an argument's."""
    prompt = example()
    decode = next(id for id, node in prompt.items() if node["class_type"] == "RelayDecode")
    odd = {"None": 1, "lambda": "x", "a b": [decode, 0], '"': True}
    prompt["50"] = {"class_type": "Sharpen", "inputs": {"amount": 0.5, **odd}}
    node_of(prompt, "SaveImage")["inputs"]["images"] = ["50", 0]
    tree = ast.parse(write_script(prompt, NO_CACHE, stubs=True))
    (call,) = (
        one for one in ast.walk(tree) if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "do_sharpen"
    )
    named, more = call.keywords
    assert named.arg == "amount" and isinstance(more.value, ast.Dict)
    assert [key.value for key in more.value.keys] == list(odd)


def test_only_what_leads_to_a_chosen_node() -> None:
    prompt = EXAMPLES["controlnet_depth_then_restyle"]
    ends = [id for id, node in prompt.items() if node["class_type"] in ("SaveImage", "PreviewImage")]
    whole = write_script(prompt, NO_CACHE)
    parts = [write_script(prompt, NO_CACHE, chosen=[id]) for id in ends]
    assert len(ends) == 2
    assert min(map(len, parts)) < len(whole)
    with pytest.raises(NoScript, match="no node 'nothing'"):
        write_script(prompt, NO_CACHE, chosen=["nothing"])


# --- bad graphs


def changed(kind: str, **inputs: Any) -> dict[str, Any]:
    prompt = example()
    node_of(prompt, kind)["inputs"].update(inputs)
    return prompt


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "saves and shows no picture"),
        ({"1": "x"}, "not a node of a graph"),
        (
            {"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0]}}},
            "connected to the node 9, which the graph lacks",
        ),
        (
            {
                "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
                "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
            },
            "run in a circle",
        ),
        (changed("RelayImageToImage", steps="many"), "steps is 'many', but a script needs a whole number"),
        (changed("RelayImageToImage", steps=None), "steps is None"),
        (changed("RelayImageToImage", guidance_scale=float("inf")), "guidance_scale is inf"),
        (changed("RelayImageToImage", model=["3", 0]), "model is Picture, but a script needs a model"),
        (changed("RelayImageToImage", model=["2", 5]), "an output that the node 2 lacks"),
        (changed("RelayImageToImage", latent=["6", 0]), "run in a circle"),
        (changed("RelayImageToImage", denoising_end=0.5), "always runs to the end"),
        (changed("RelayLoadModelFromHub", repo_id="nobody/nothing"), "--model nobody/nothing="),
        (changed("LoadImage", image="../../etc/passwd"), "outside of the input folder"),
        (changed("LoadImage", image="x.png [output]"), "not in the input folder"),
        (changed("ImageScale", upscale_method="magic"), "one of nearest-exact"),
        (changed("RelayEncodePrompt", prompt="a (cat"), "never closed"),
    ],
)
def test_what_can_not_be_written_is_said(prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        write_script(prompt, NO_CACHE)


# --- values are never code


@settings(max_examples=25, deadline=None)
@given(prompt=TEXTS, negative=TEXTS, title=TEXTS, name=TEXTS, model=TEXTS, syntax=st.sampled_from(["plain", "a1111"]))
def test_texts_of_a_graph_stay_texts(
    prompt: str, negative: str, title: str, name: str, model: str, syntax: str
) -> None:
    graph = changed("SaveImage", filename_prefix=name)
    for node in graph.values():
        node["_meta"]["title"] = title
    node_of(graph, "LoadImage")["inputs"]["image"] = name
    node_of(graph, "RelayLoadModelFromHub")["inputs"] |= {"repo_id": model, "revision": title}
    node_of(graph, "RelayEncodePrompt")["inputs"] |= {"prompt": prompt, "negative_prompt": negative, "syntax": syntax}
    graph["60"] = {"class_type": prompt, "inputs": {negative: title, "image": ["5", 0]}, "_meta": {"title": name}}
    graph["61"] = {"class_type": "PreviewImage", "inputs": {"images": ["60", 0]}}
    shelf = Shelf(hub=Path("no such folder"), said={model.strip(): "StableDiffusionPipeline"})
    try:
        text = write_script(graph, shelf, stubs=True)
    except ValueError:  # a broken prompt, or a file outside of the folder
        return
    plain = write_script(example(), shelf)
    tree, usual = ast.parse(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")), ast.parse(plain)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not named & {"__import__", "SystemExit", "os"}
    imports = [ast.dump(node) for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert len(imports) <= len([node for node in ast.walk(usual) if isinstance(node, ast.Import)])
    if syntax == "plain":
        values = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert prompt.strip() in values or prompt in values or not prompt.strip()
    assert graph_in(text) == {"prompt": graph}


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS, st.lists
    )
)
def test_a_literal_reads_back_as_the_same_value(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": 1}, object(), b"x", [1, [float("-inf")]]])
def test_what_is_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(NoScript):
        literal(value)


@given(TEXTS)
def test_a_title_makes_a_comment_of_one_line_and_a_name(title: str) -> None:
    assert len(("#" + comment(title)).splitlines()) == 1
    assert variable(title, "value").isidentifier()


def test_variables_hide_no_name_that_the_script_uses() -> None:
    prompt = example()
    for node, title in zip(prompt.values(), ("torch", "decode", "Path", "print", "for", "DEVICE", "to tensor")):
        node["_meta"]["title"] = title
    tree = ast.parse(write_script(prompt, NO_CACHE))
    bound = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert len(bound) == len(set(bound))
    assert not set(bound) & {"torch", "Path", "print", *all_parts()} - {"INPUT", "OUTPUT"}


# --- the command


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG as ComfyUI saves it."""
    info = PngInfo()
    info.add_text("prompt", json.dumps(EXAMPLES["sd15_image_to_image"]))
    info.add_text("workflow", json.dumps({"nodes": [], "links": []}))
    file = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(file, pnginfo=info)
    return file


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process in which the large libraries and the host can't be imported."""
    blocked = [
        "torch",
        "diffusers",
        "transformers",
        "compel",
        "peft",
        "numpy",
        "comfy",
        "comfy_api",
        "folder_paths",
        "server",
    ]
    code = f"import sys, runpy; sys.modules |= dict.fromkeys({blocked}); runpy.run_module('relay_script', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )


def test_a_saved_picture_becomes_a_script(picture: Path, tmp_path: Path) -> None:
    done = command(picture, "-o", tmp_path / "picture.py")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "picture.py").read_text("utf-8")
    assert graph_in(text) == {"prompt": EXAMPLES["sd15_image_to_image"], "workflow": {"nodes": [], "links": []}}
    again = command(tmp_path / "picture.py")  # a script holds its graph
    assert again.stdout == text


def test_a_file_in_api_format_becomes_a_script(tmp_path: Path) -> None:
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(EXAMPLES["mixed_with_comfyui_nodes"]), "utf-8")
    done = command(file)
    assert done.returncode == 1
    assert "CheckpointLoaderSimple" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\nbroken", "broken PNG"),
        (b"nothing", "neither a PNG nor JSON"),
        (b'{"nodes": [], "links": []}', "Export (API)"),
        (b"[1]", "holds no graph"),
        (b"\xff\xfe\xff", "can't be read"),
        (GRAPH_MARK.encode() + b"{", "is damaged"),
    ],
)
def test_what_the_command_can_not_read(tmp_path: Path, content: bytes, message: str) -> None:
    from diffusers_relay.script.files import read_file

    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(NoScript, match=re.escape(message)):
        read_file(file)


def test_every_part_is_used() -> None:
    sources = "".join(
        file.read_text("utf-8") for file in (ROOT / "script").rglob("*.py") if file.parent.name != "parts"
    )
    needed = {name for part in all_parts().values() for name in part.needs}
    assert [
        name for name in all_parts() if f'"{name}"' not in sources and f"'{name}'" not in sources and name not in needed
    ] == []
    assert WRITERS
