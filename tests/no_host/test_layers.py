"""The direction of imports, and that the lower layers run with no host."""

import subprocess
import sys
from pathlib import Path

import pytest

from relay_dev import layers
from relay_host.paths import ROOT

BELOW_NODES = [file for file in layers.pack_files() if file.relative_to(ROOT).parts[0] in ("pipelines", "weighting")]

IMPORT_ALL_WITH_NO_HOST = """
import importlib, sys
sys.path.insert(0, {devtools!r})
from relay_dev.layers import HOST_MODULES, NODE_API
from relay_host.pack import prepare_pack

class NoHost:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HOST_MODULES | {{NODE_API}}:
            raise AssertionError(f"{{name}} was imported")

prepare_pack()
sys.meta_path.insert(0, NoHost())
for name in {names!r}:
    importlib.import_module(name)
print(len({names!r}))
"""


def test_imports_go_in_one_direction() -> None:
    assert layers.violations() == []


def test_what_is_below_nodes_imports_with_no_host() -> None:
    names = [
        ".".join(["diffusers_relay", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        for file in BELOW_NODES
    ]
    assert names
    code = IMPORT_ALL_WITH_NO_HOST.format(devtools=str(ROOT / "devtools"), names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.anchor)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(names))]


@pytest.mark.parametrize(
    ("file", "line", "objection"),
    [
        ("pipelines/run.py", "import comfy.utils", "only nodes/comfy_host/ imports the host's modules"),
        ("pipelines/run.py", "from comfy_api.latest import io", "below nodes nothing knows the host"),
        (
            "weighting/encode.py",
            "def f():\n    import folder_paths",
            "only nodes/comfy_host/ imports the host's modules",
        ),
        ("nodes/comfy_hosts.py", "import folder_paths", "only nodes/comfy_host/ imports the host's modules"),
        ("nodes/loaders.py", "import folder_paths", "only nodes/comfy_host/ imports the host's modules"),
        ("nodes/loaders.py", "from nodes import MAX_RESOLUTION", "only nodes/comfy_host/ imports the host's modules"),
        ("pipelines/run.py", "from ..weighting import syntax", "pipelines may import only pipelines"),
        ("pipelines/run.py", "from ..nodes.loaders import f", "pipelines may import only pipelines"),
        ("weighting/encode.py", "from ..nodes import loaders", "weighting may import only weighting, pipelines"),
        ("nodes/loaders.py", "from .. import comfy_entrypoint", "nodes may import only nodes, weighting, pipelines"),
        ("nodes/loaders.py", "from pipelines import run", "the host loads the pack by its path"),
        ("pipelines/sdxl.py", "from .stable_diffusion import f", "families never import each other"),
        ("pipelines/sdxl.py", "from . import stable_diffusion", "families never import each other"),
        ("pipelines/run.py", "from . import sdxl", "only layers above import a family"),
        ("pipelines/errors.py", "from .run import f", "a leaf imports nothing of the pack"),
        ("nodes/loaders.py", "from ...elsewhere import f", "the relative import leaves the pack"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, line: str, objection: str) -> None:
    plant_pack(tmp_path, file, line)
    (found,) = layers.violations(tmp_path)
    assert found.startswith(f"{file}:")
    assert objection in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("__init__.py", "from comfy_api.latest import io"),
        ("__init__.py", "from .nodes.loaders import f"),
        ("nodes/comfy_host/folders.py", "import comfy.utils, folder_paths"),
        ("nodes/loaders.py", "from ..pipelines.sdxl import f"),
        ("nodes/loaders.py", "from comfy_api.latest import io"),
        ("weighting/encode.py", "from ..pipelines import run"),
        ("pipelines/sdxl.py", "from .run import f"),
        ("pipelines/run.py", "from . import errors"),
    ],
)
def test_a_right_import_is_allowed(tmp_path: Path, file: str, line: str) -> None:
    plant_pack(tmp_path, file, line)
    assert layers.violations(tmp_path) == []


def plant_pack(root: Path, file: str, line: str) -> None:
    for name in ("pipelines/run", "pipelines/errors", "pipelines/sdxl", "pipelines/stable_diffusion"):
        (root / name).with_suffix(".py").parent.mkdir(exist_ok=True)
        (root / name).with_suffix(".py").touch()
    for layer in ("nodes", "nodes/comfy_host", "weighting", "pipelines"):
        (root / layer).mkdir(exist_ok=True)
        (root / layer / "__init__.py").touch()
    (root / "__init__.py").touch()
    (root / file).write_text(line + "\n", "utf-8")
