"""The advice for pickles works on real files: the command as it is printed, and the line of Python."""

from __future__ import annotations

import io
import pickle
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

from diffusers_relay.pipelines.adapters.textual_inversion import with_textual_inversion
from diffusers_relay.pipelines.base.errors import RelayError
from diffusers_relay.pipelines.files import safetensors as safetensors_file
from diffusers_relay.pipelines.files.safetensors import CONVERTER, HOW_TO_CONVERT_FILE, HOW_TO_CONVERT_WEIGHTS
from support.without_host import load

TURNED = torch.arange(6.0).reshape(2, 3).T
LORA = {"lora_unet_x.lora_up.weight": torch.randn(4, 2).half(), "lora_unet_x.alpha": torch.tensor(2.0)}
A1111 = {
    "string_to_token": {"*": 265},
    "string_to_param": {"*": torch.nn.Parameter(torch.randn(2, 32))},
    "name": "x",
    "step": 100,
    "sd_checkpoint": None,
}
FILES: dict[str, tuple[str, Any, dict[str, torch.Tensor]]] = {
    "an embedding of A1111's": ("bad.pt", A1111, {"*": A1111["string_to_param"]["*"]}),
    "one that is called safetensors": ("bad.safetensors", A1111, {"*": A1111["string_to_param"]["*"]}),
    "an embedding of diffusers'": ("learned.bin", {"<cat>": TURNED[0]}, {"<cat>": TURNED[0]}),
    "a LoRA": ("lora.pt", LORA, LORA),
    "a VAE in its wrapper": (
        "vae.ckpt",
        {"epoch": 3, "state_dict": {"encoder.a": TURNED, "decoder.b": TURNED}, "callbacks": {}},
        {"encoder.a": TURNED, "decoder.b": TURNED},
    ),
    "one memory for two": ("tied.bin", {"a": TURNED[:2], "b": TURNED}, {"a": TURNED[:2], "b": TURNED}),
    "bfloat16": ("b.pth", {"a": TURNED.bfloat16()}, {"a": TURNED.bfloat16()}),
}


def converted(name: str, folder: Path, way: str) -> dict[str, torch.Tensor]:
    title, content, _ = FILES[name]
    file = folder / title
    torch.save(content, file)
    if way == "the line of Python":
        line = re.search("`(.+?)`", HOW_TO_CONVERT_WEIGHTS)
        assert line is not None
        made = folder / "made.safetensors"
        eval(line[1], {"safetensors": safetensors, "torch": torch, "file": file, "name": made})  # noqa: S307
        return load_file(made)
    before = file.read_bytes()
    done = run(file)
    assert (done.returncode, file.read_bytes()) == (0, before), done.stderr
    made = Path(done.stdout.rsplit(": ", 1)[0])
    assert made.parent == folder
    again = run(file)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    return load_file(made)


PACK = Path(safetensors_file.__file__).parents[2]


def command() -> str:
    """The command's file, as seen from ComfyUI's folder; here it is the pack's own."""
    advised = re.search(r'python "custom_nodes/([^/"]+)/(convert_pickle\.py)" FILE', HOW_TO_CONVERT_WEIGHTS)
    assert advised is not None
    assert advised[0] in HOW_TO_CONVERT_FILE
    assert advised[1] == PACK.name
    return str(PACK / advised[2])


def run(file: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [command(), str(file)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        runpy.run_path(command(), run_name="__main__")
    return subprocess.CompletedProcess([], left.value.code, out.getvalue(), err.getvalue())


def test_the_command_in_a_terminal(tmp_path: Path) -> None:
    torch.save(LORA, tmp_path / "lora.pt")
    arguments = [sys.executable, command(), "lora.pt"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "lora.safetensors: 2 tensors\n"), done.stderr
    assert set(load_file(tmp_path / "lora.safetensors")) == set(LORA)


@pytest.mark.parametrize("way", ["the command", "the line of Python"])
@pytest.mark.parametrize("name", FILES)
def test_the_advice_works(tmp_path: Path, name: str, way: str) -> None:
    wanted = {key: tensor.detach() for key, tensor in FILES[name][2].items()}
    made = converted(name, tmp_path, way)
    if way == "the command" and set(wanted) == {"*"}:
        wanted = {"emb_params": wanted["*"]}
    assert set(made) == set(wanted)
    for key, tensor in wanted.items():
        assert made[key].dtype == tensor.dtype
        assert torch.equal(made[key], tensor)


@pytest.mark.parametrize("way", ["the command", "the line of Python"])
def test_a_converted_embedding_is_loaded(tmp_path: Path, way: str) -> None:
    converted("an embedding of A1111's", tmp_path, way)
    (made,) = tmp_path.glob("*.safetensors")
    view = with_textual_inversion(load("sd15"), made, title=made.name, token="")
    assert torch.equal(view.embeddings[0].vectors["text_encoder"], A1111["string_to_param"]["*"])
    assert view.embeddings[0].token == made.stem


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.write_text, (self.marker, "run")


@pytest.mark.parametrize("kind", ["torch", "bare", "wrapped", "text", "missing", "no tensors"])
def test_what_is_no_weights_is_said_and_not_run(tmp_path: Path, kind: str) -> None:
    file, marker = tmp_path / "x.pt", tmp_path / "marker"
    if kind == "torch":
        torch.save({"a": torch.zeros(1), "b": Touch(marker)}, file)
    elif kind == "bare":
        file.write_bytes(pickle.dumps(Touch(marker)))
    elif kind == "wrapped":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": {"x": Touch(marker)}}, file)
    elif kind == "text":
        file.write_text("hello")
    elif kind == "no tensors":
        torch.save({"a": 1, "b": "x"}, file)
    done = run(file)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(file) in done.stderr
    assert not marker.exists()
    assert not list(tmp_path.glob("*.safetensors"))


def test_no_node_runs_it(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    torch.save(A1111, file)
    with pytest.raises(RelayError, match="is a pickle") as refused:
        with_textual_inversion(load("sd15"), file, title="x", token="")
    assert CONVERTER in str(refused.value)
    for source in [path for part in ("nodes", "pipelines", "weighting") for path in (PACK / part).rglob("*.py")]:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"import\b.*convert_pickle|(torch|_torch)\.load\((?!open\()", text), source
