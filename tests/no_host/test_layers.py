"""The direction of imports, and that the lower layers import without a host."""

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
        ("pipelines/runs/sampling.py", "import comfy.utils", "only nodes/comfy_host/ imports the host's modules"),
        (
            "pipelines/runs/sampling.py",
            "from comfy_api.latest import io",
            "nothing below nodes may import the host's modules",
        ),
        (
            "weighting/encode.py",
            "def f():\n    import folder_paths",
            "only nodes/comfy_host/ imports the host's modules",
        ),
        ("nodes/comfy_hosts.py", "import folder_paths", "only nodes/comfy_host/ imports the host's modules"),
        ("nodes/loaders.py", "import folder_paths", "only nodes/comfy_host/ imports the host's modules"),
        ("nodes/loaders.py", "from nodes import MAX_RESOLUTION", "only nodes/comfy_host/ imports the host's modules"),
        ("pipelines/runs/sampling.py", "from ...weighting import syntax", "pipelines may import only pipelines"),
        ("pipelines/runs/sampling.py", "from ...nodes.loaders import f", "pipelines may import only pipelines"),
        ("weighting/encode.py", "from ..nodes import loaders", "weighting may import only weighting, pipelines"),
        (
            "nodes/loaders.py",
            "from .. import comfy_entrypoint",
            "nodes may import only nodes, script, weighting, pipelines",
        ),
        ("nodes/loaders.py", "from pipelines import runs", "the host loads the pack by its path"),
        ("pipelines/families/sdxl.py", "from .stable_diffusion import f", "families never import each other"),
        ("pipelines/families/sdxl.py", "from . import stable_diffusion", "families never import each other"),
        ("pipelines/families/sdxl.py", "from ..runs.sampling import f", "families may import only families, loading"),
        ("pipelines/model/family.py", "from ..latents import autoencoder", "model may import only model, device, base"),
        (
            "pipelines/model/family.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..runs.sampling import Run",
            "model may import only model, device, base",
        ),
        ("pipelines/base/errors.py", "from ..model.family import f", "base may import only base"),
        ("script/write.py", "def f():\n    import torch", "scripts are written without the libraries that they use"),
        ("script/write.py", "from .parts import masks", "script/parts/ is read as text"),
        ("script/write.py", "from ..nodes import images", "script may import only script, weighting, pipelines"),
        ("pipelines/loose.py", "from .base import errors", "a module of pipelines must be in one of its rooms"),
        ("pipelines/attic/old.py", "from ..base import errors", "the rooms of pipelines are runs"),
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
        ("nodes/loaders.py", "from ..pipelines.families.sdxl import f"),
        ("nodes/loaders.py", "from comfy_api.latest import io"),
        ("weighting/encode.py", "from ..pipelines.runs import sampling"),
        ("pipelines/runs/sampling.py", "from ..families.sdxl import f"),
        ("pipelines/runs/sampling.py", "from ..base import errors"),
        ("pipelines/families/family_runs.py", "from . import sdxl, stable_diffusion"),
    ],
)
def test_a_right_import_is_allowed(tmp_path: Path, file: str, line: str) -> None:
    plant_pack(tmp_path, file, line)
    assert layers.violations(tmp_path) == []


TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        (
            {"pipelines/base/errors.py": "from . import images", "pipelines/base/images.py": "from .errors import E"},
            "pipelines/base/errors.py -> pipelines/base/images.py",
        ),
        (
            {
                "pipelines/base/errors.py": TYPES_ONLY + "from .images import I",
                "pipelines/base/images.py": "from .errors import E",
            },
            "pipelines/base/errors.py -> pipelines/base/images.py",
        ),
        (
            {
                "nodes/a.py": "def f():\n    from . import b",
                "nodes/b.py": "from .c import x",
                "nodes/c.py": "from .a import f",
            },
            "nodes/a.py -> nodes/b.py -> nodes/c.py",
        ),
        (
            {"devtools/relay_host/a.py": "from .b import x", "devtools/relay_host/b.py": "from relay_host import a"},
            "relay_host/a.py -> relay_host/b.py",
        ),
    ],
    ids=["two files", "for types alone", "three files, one inside a function", "devtools"],
)
def test_a_circle_of_files_is_found(tmp_path: Path, files: dict[str, str], circle: str) -> None:
    plant_pack(tmp_path, "nodes/loaders.py", "")
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text + "\n", "utf-8")
    (found,) = layers.violations(tmp_path)
    assert found.endswith(f"imports itself in a circle of files: {circle}")


def test_a_package_of_devtools_imports_no_other_above_it(tmp_path: Path) -> None:
    for name in ("relay_host/server.py", "relay_dev/demo.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "relay_host" / "page.py").write_text("def f():\n    from relay_dev.demo import g\n", "utf-8")
    (tmp_path / "relay_dev" / "test.py").write_text("from relay_host import server\n", "utf-8")
    (found,) = layers.devtools_violations(tmp_path)
    assert found == "devtools/relay_host/page.py:2: imports relay_dev.demo: relay_host may import only relay_host"


def plant_pack(root: Path, file: str, line: str) -> None:
    modules = {
        "runs": ["sampling"],
        "families": ["sdxl", "stable_diffusion"],
        "latents": ["autoencoder"],
        "model": ["family"],
        "base": ["errors", "images"],
    }
    planted = [f"pipelines/{room}/{name}.py" for room, names in modules.items() for name in names]
    planted.append("script/parts/masks.py")
    for folder in (
        "",
        "nodes",
        "nodes/comfy_host",
        "script",
        "script/parts",
        "weighting",
        "pipelines",
        *(f"pipelines/{room}" for room in modules),
    ):
        planted.append(f"{folder}/__init__.py".lstrip("/"))
    for name in [*planted, file]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / file).write_text(line + "\n", "utf-8")
