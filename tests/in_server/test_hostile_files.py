"""Malicious files and names in the real server: nothing in them runs, nothing outside is read, and the error explains the problem."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay_dev.model_folders import SmallModels
from relay_host.server import HostServer, PromptRejected
from support.graph import Graph, Out, saved

NAME = "hostile.safetensors"


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def a_pickle(marker: Path) -> bytes:
    return pickle.dumps(Touch(marker), protocol=2)


def a_zip(marker: Path) -> bytes:
    return b"PK\x03\x04" + a_pickle(marker)


def an_endless_header(marker: Path) -> bytes:
    return struct.pack("<Q", 10**15) + b"{}"


def headed(header: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def a_tensor_that_is_not_there(marker: Path) -> bytes:
    return headed({"unet.x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}, b"\0" * 64)


def tensors_over_each_other(marker: Path) -> bytes:
    one = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    return headed({"a": one, "b": one}, b"\0" * 64)


def cut_short(marker: Path) -> bytes:
    return headed({"a": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}, b"\0" * 100)


def nothing(marker: Path) -> bytes:
    return b""


CONTENTS: tuple[Callable[[Path], bytes], ...] = (
    a_pickle,
    a_zip,
    an_endless_header,
    a_tensor_that_is_not_there,
    tensors_over_each_other,
    cut_short,
    nothing,
)


def by_checkpoint(graph: Graph) -> Out:
    return graph.load(NAME)


def by_lora(graph: Graph) -> Out:
    return graph.add("RelayLoadLora", model=graph.load("sd15"), lora=NAME, strength=1.0, text_strength=1.0)


def by_embedding(graph: Graph) -> Out:
    return graph.add("RelayLoadTextualInversion", model=graph.load("sd15"), embedding=NAME, token="<x>")


def by_vae(graph: Graph) -> Out:
    return graph.add("RelaySetVae", model=graph.load("sd15"), vae_file=NAME)


def by_folder(graph: Graph) -> Out:
    return graph.load("hostile")


def by_controlnet(graph: Graph) -> Out:
    graph.add("RelayLoadControlNet", controlnet="hostile", dtype="float32")
    return graph.load("sd15")


PLACES: dict[str, tuple[str, Callable[[Graph], Out]]] = {
    "checkpoint": (f"checkpoints/{NAME}", by_checkpoint),
    "lora": (f"loras/{NAME}", by_lora),
    "embedding": (f"embeddings/{NAME}", by_embedding),
    "vae": (f"vae/{NAME}", by_vae),
    "folder": ("diffusers/hostile/unet/diffusion_pytorch_model.safetensors", by_folder),
    "controlnet": ("controlnet/hostile/diffusion_pytorch_model.safetensors", by_controlnet),
}


@pytest.fixture
def put(server: HostServer, models: SmallModels) -> Iterator[Callable[[str, bytes], None]]:
    made: list[Path] = []

    def put(place: str, content: bytes) -> None:
        top = server.models / Path(*Path(place).parts[:2])
        made.append(top)
        if place.startswith("diffusers/"):
            shutil.copytree(models.named["sd15"], top)
        if place.startswith("controlnet/"):
            shutil.copytree(models.controlnets["sd15_depth"], top)
        file = server.models / place
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    yield put
    for path in made:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content.__name__)
def test_what_is_no_safetensors_file_is_not_read(
    server: HostServer,
    put: Callable[[str, bytes], None],
    content: Callable[[Path], bytes],
    place: str,
    tmp_path: Path,
) -> None:
    path, load = PLACES[place]
    put(path, content(tmp_path / "it-ran"))
    graph = Graph()
    if place == "controlnet":
        net = graph.add("RelayLoadControlNet", controlnet="hostile", dtype="float32")
        picture = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)
        control = graph.add(
            "RelayApplyControlNet",
            controlnet=net,
            image=picture,
            conditioning_scale=1.0,
            start=0.0,
            end=1.0,
            guess_mode=False,
        )
        model = graph.load("sd15")
        latent = graph.text_to_image(model, graph.encode(model, "a cat"), control=control, steps=1)
    else:
        model = load(graph)
        latent = graph.text_to_image(model, graph.encode(model, "a cat"), steps=1)
    graph.save(graph.decode(model, latent))
    error = server.run(graph.prompt).error
    assert error is not None
    assert error.exception_type.startswith("diffusers_relay."), error.traceback
    said = {a_pickle: "is a pickle", a_zip: "is an archive: unpack it", nothing: "is empty: download it again"}
    assert said.get(content, "is damaged or cut short") in error.message, error.message
    assert not (tmp_path / "it-ran").exists()


def a_pipeline_as_scheduler(folder: Path, marker: Path) -> None:
    """Has code next to it, which some diffusers versions ran."""
    write(folder / "model_index.json", scheduler=["diffusers", "DiffusionPipeline"])
    write(folder / "scheduler" / "model_index.json", _class_name=["evil", "Evil"], evil=["evil", "Evil"])
    (folder / "scheduler" / "evil.py").write_text(f"open({str(marker)!r}, 'w')", "utf-8")


def a_class_of_its_own(folder: Path, marker: Path) -> None:
    write(folder / "model_index.json", unet=["evil", "Evil"])
    (folder / "unet" / "evil.py").write_text(f"open({str(marker)!r}, 'w')", "utf-8")


def twenty_thousand_layers(folder: Path, marker: Path) -> None:
    write(folder / "unet" / "config.json", layers_per_block=20_000)


def a_hundred_million_timesteps(folder: Path, marker: Path) -> None:
    write(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**8)


def nested_deeply(folder: Path, marker: Path) -> None:
    (folder / "text_encoder" / "config.json").write_text("[" * 500_000, "utf-8")


REFUSED: tuple[tuple[Callable[[Path, Path], None], str], ...] = (
    (a_pipeline_as_scheduler, "its scheduler is declared as 'DiffusionPipeline' of 'diffusers'"),
    (a_class_of_its_own, "its unet is declared as 'Evil' of 'evil'"),
    (twenty_thousand_layers, "layers_per_block is 20000"),
    (a_hundred_million_timesteps, "num_train_timesteps is 100000000"),
    (nested_deeply, "nested too deeply"),
)


def an_adapter(folder: Path, marker: Path) -> None:
    config = {
        "peft_type": "LORA",
        "megatron_core": "evil",
        "base_model_name_or_path": str(marker),
        "target_modules": "(a*)*b",
    }
    write(folder / "text_encoder" / "adapter_config.json", **config, r=1, lora_alpha=1)


def paths(folder: Path, marker: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        write(
            folder / "tokenizer" / name, **dict.fromkeys(("vocab", "merges", "vocab_file", "merges_file"), "/dev/zero")
        )


def a_kernel(folder: Path, marker: Path) -> None:
    for name in ("text_encoder", "unet", "vae"):
        write(folder / name / "config.json", attn_implementation="owner/kernel", auto_map={"AutoModel": "evil.Evil"})


def an_index_of_pickles(folder: Path, marker: Path) -> None:
    (folder / "unet" / "evil.bin").write_bytes(a_pickle(marker))
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    write(index, metadata={}, weight_map={"conv_in.weight": "evil.bin"})


DROPPED: tuple[Callable[[Path, Path], None], ...] = (an_adapter, paths, a_kernel, an_index_of_pickles)


def write(file: Path, **entries: object) -> None:
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**before, **entries}), "utf-8")


def hostile_folder(server: HostServer, models: SmallModels, change: Callable[[Path, Path], None], marker: Path) -> Path:
    folder = Path(shutil.copytree(models.named["sd15"], server.models / "diffusers" / "hostile"))
    change(folder, marker)
    return folder


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=lambda change: getattr(change, "__name__", ""))
def test_a_model_s_files_decide_nothing(
    server: HostServer, models: SmallModels, change: Callable[[Path, Path], None], says: str, tmp_path: Path
) -> None:
    folder = hostile_folder(server, models, change, tmp_path / "it-ran")
    try:
        graph = Graph()
        model = graph.load("hostile")
        graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a cat"), steps=1)))
        began = time.monotonic()
        assert says in refusal(server, graph)
        assert time.monotonic() - began < 10
        assert not (tmp_path / "it-ran").exists()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("change", DROPPED, ids=lambda change: change.__name__)
def test_what_is_no_data_of_a_model_changes_no_picture(
    server: HostServer, models: SmallModels, change: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    folder = hostile_folder(server, models, change, tmp_path / "it-ran")
    try:
        pictures = []
        for name in ("sd15", "hostile"):
            graph = Graph()
            model = graph.load(name)
            saving = graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a cat"), steps=2)))
            pictures.append(saved(server.run(graph.prompt), saving))
        assert (pictures[0] == pictures[1]).all()
        assert not (tmp_path / "it-ran").exists()
    finally:
        shutil.rmtree(folder)


NAMES = (
    "../secret",
    "..\\secret",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "\\\\server\\share\\model",
    "sd15/../../secret",
    "sd15\0.safetensors",
    "a" * 5000,
    "~/model",
    "$HOME/model",
    "%USERPROFILE%\\model",
    "file:///etc/passwd",
)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:20].replace("\0", "NUL"))
@pytest.mark.parametrize(
    ("node", "key"),
    [
        ("RelayLoadModel", "model"),
        ("RelayLoadLora", "lora"),
        ("RelayLoadTextualInversion", "embedding"),
        ("RelaySetVae", "vae_file"),
        ("RelayLoadControlNet", "controlnet"),
        ("RelayLoadModelFromHub", "repo_id"),
        ("RelayLoadControlNetFromHub", "repo_id"),
        ("RelayLoadModelFromHub", "revision"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(server: HostServer, node: str, key: str, name: str) -> None:
    graph = Graph()
    model = graph.load("sd15")
    defaults = {
        "RelayLoadModel": {"dtype": "float32"},
        "RelayLoadLora": {"model": model, "strength": 1.0, "text_strength": 1.0},
        "RelayLoadTextualInversion": {"model": model, "token": "<x>"},
        "RelaySetVae": {"model": model},
        "RelayLoadControlNet": {"dtype": "float32"},
        "RelayLoadModelFromHub": {"repo_id": "a/b", "revision": "", "variant": "auto", "dtype": "float32"},
        "RelayLoadControlNetFromHub": {"repo_id": "a/b", "revision": "", "variant": "auto", "dtype": "float32"},
    }[node]
    loaded = graph.add(node, **{**defaults, key: name})
    if "ControlNet" in node:
        picture = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)
        settings = {"conditioning_scale": 1.0, "start": 0.0, "end": 1.0, "guess_mode": False}
        control = {"control": graph.add("RelayApplyControlNet", controlnet=loaded, image=picture, **settings)}
        loaded = model
    else:
        control = {}
    latent = graph.text_to_image(loaded, graph.encode(loaded, "a cat"), steps=1, **control)
    graph.save(graph.decode(loaded, latent))
    said = refusal(server, graph)
    assert key in said
    assert "root:" not in said


def refusal(server: HostServer, graph: Graph) -> str:
    """The error message, from the queue or from the node."""
    try:
        error = server.run(graph.prompt).error
    except PromptRejected as refused:
        return json.dumps(refused.node_errors)
    assert error is not None
    assert error.exception_type.startswith("diffusers_relay."), error.traceback
    return error.message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 10**9}, "steps"),
        ({"batch_size": 10**6}, "batch_size"),
        ({"width": 10**8}, "width"),
        ({"height": 2**63}, "height"),
        (
            {"width": 16384, "height": 16384, "batch_size": 4096},
            "width, height, batch_size: 4096 pictures of 16384x16384",
        ),
    ],
)
def test_numbers_that_would_take_the_machine_down_cost_nothing(
    server: HostServer, settings: dict[str, int], named: str
) -> None:
    graph = Graph()
    model = graph.load("sd15")
    graph.save(graph.decode(model, graph.text_to_image(model, graph.encode(model, "a cat"), **settings)))
    began = time.monotonic()
    assert named in refusal(server, graph)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1/system_stats", "local network"),
        ("http://2130706433/x.png", "local network"),
        ("http://0x7f.1/x.png", "local network"),
        ("http://0177.0.0.1/x.png", "local network"),
        ("http://[::ffff:127.0.0.1]/x.png", "local network"),
        ("http://[::ffff:a9fe:a9fe]/latest/meta-data", "local network"),
        ("http://169.254.169.254/latest/meta-data", "local network"),
        ("http://localhost./x.png", "local network"),
        ("file:///etc/passwd", "not file:"),
        ("http://name:word@example.com/x.png", "name or password"),
        ("http://example.com:8188/x.png", "port 8188"),
    ],
)
def test_an_address_that_leads_inside_is_not_asked(server: HostServer, url: str, says: str) -> None:
    """For redirects and changing name servers, see tests/no_host/test_url_fetch.py, which has its own servers."""
    graph = Graph()
    graph.save(graph.add("RelayLoadImageFromUrl", url=url))
    refused = refusal(server, graph)
    assert says in refused
    assert "url: " in refused
    assert "name:word" not in refused
