"""Checks the direction of imports: root -> nodes -> script -> weighting -> pipelines, that scripts are written without torch, between the rooms of pipelines, between the packages of devtools, and that the batch package stands alone; no cycles.

It reads imports from the source, including those inside functions and those only for types, so nothing has to be installed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relay_host.paths import ROOT

LAYERS = ("", "nodes", "script", "weighting", "pipelines")
"""From top (the root's own modules) to bottom; a layer may import the layers after it."""
ROOMS = (
    *("runs", "families", "loading", "denoising", "adapters", "downloads", "control", "latents"),
    *("files", "model", "device", "base"),
)
"""The folders of pipelines, from top to bottom; a room may import the rooms after it."""
DEVTOOLS = ("benchmarks", "relay_dev", "tiny_world", "small_models", "relay_host")
"""The packages of devtools, from top to bottom."""
BATCH = "relay_batch"
"""The package in the folder batch: it imports itself and these libraries, and nobody imports it."""
BATCH_LIBRARIES = {"PIL", "boto3", "botocore", "psutil", "pyarrow", "ray"}
FAMILY_TABLE = "pipelines/families/family_runs.py"
"""The only family module that imports the others."""
HOST_MODULES = {
    *("comfy", "comfy_execution", "comfy_extras", "comfy_config", "app", "api_server", "middleware", "utils"),
    *("folder_paths", "latent_preview", "node_helpers", "nodes", "server", "execution", "protocol", "main"),
}
HOST_IMPORTER = "nodes/comfy_host/"
NODE_API = "comfy_api"
NODE_API_LAYERS = ("", "nodes")
NOT_THE_PACK = {"devtools", "tests"}
PARTS = "script/parts/"
"""What is copied into scripts: read as text, so nobody imports it."""
ONLY_IN_SCRIPTS = {"torch", "diffusers", "transformers", "compel", "peft", "numpy", "safetensors"}
"""The layer that writes scripts works without these."""


@dataclass(frozen=True)
class Import:
    """`module` is absolute ("torch.nn") or, if `relative`, relative to the pack's root ("pipelines.model.family")."""

    module: str
    relative: bool
    line: int


def violations(root: Path = ROOT) -> list[str]:
    """One line for each import in the wrong direction and for each import cycle; empty if there are none."""
    found = []
    arrows: dict[str, set[str]] = {}
    for file in pack_files(root):
        name = file.relative_to(root).as_posix()
        arrows[name] = set()
        for entry in imports_of(file, root):
            if reason := _objection(name, entry):
                found.append(f"{name}:{entry.line}: imports {entry.module}: {reason}")
            if entry.relative and (target := _file_of(root, entry.module)):
                arrows[name].add(target)
    return found + circles(arrows) + devtools_violations(root / "devtools") + batch_violations(root / "batch")


def batch_violations(folder: Path) -> list[str]:
    """The same for the batch package."""
    found = []
    arrows: dict[str, set[str]] = {}
    for file in sorted((folder / BATCH).rglob("*.py")):
        name = file.relative_to(folder).as_posix()
        arrows[name] = set()
        for entry in imports_of(file, folder):
            top = entry.module.split(".")[0]
            if not entry.relative and top not in sys.stdlib_module_names | BATCH_LIBRARIES:
                found.append(
                    f"batch/{name}:{entry.line}: imports {entry.module}: {BATCH} imports only itself, relatively, and {', '.join(sorted(BATCH_LIBRARIES))}"
                )
            if entry.relative and (target := _file_of(folder, entry.module)):
                arrows[name].add(target)
    return found + [f"batch/{circle}" for circle in circles(arrows)]


def devtools_violations(devtools: Path) -> list[str]:
    """The same for the packages of devtools, which import each other by their names."""
    found = []
    arrows: dict[str, set[str]] = {}
    files = [file for package in DEVTOOLS for file in sorted((devtools / package).rglob("*.py"))]
    for file in files:
        name = file.relative_to(devtools).as_posix()
        own = name.split("/")[0]
        arrows[name] = set()
        for entry in imports_of(file, devtools):
            top = entry.module.split(".")[0]
            if top == BATCH:
                found.append(f"devtools/{name}:{entry.line}: imports {entry.module}: the batch package stands alone")
            if top in DEVTOOLS and DEVTOOLS.index(top) < DEVTOOLS.index(own):
                allowed = ", ".join(DEVTOOLS[DEVTOOLS.index(own) :])
                found.append(f"devtools/{name}:{entry.line}: imports {entry.module}: {own} may import only {allowed}")
            if top in DEVTOOLS and (target := _file_of(devtools, entry.module)):
                arrows[name].add(target)
    return found + [f"devtools/{circle}" for circle in circles(arrows)]


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """One line for each import cycle (Tarjan's strongly connected components).

    Args:
        arrows: {file: the files that it imports}.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(arrows.get(name, ())):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(f"{group[0]}: imports itself in a circle of files: {' -> '.join(group)}")

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def pack_files(root: Path = ROOT) -> list[Path]:
    """The pack's own Python files: root/__init__.py and the subpackages."""
    packages = sorted(folder for folder in root.iterdir() if (folder / "__init__.py").is_file())
    inside = (file for folder in packages if folder.name not in NOT_THE_PACK for file in sorted(folder.rglob("*.py")))
    return [file for file in (root / "__init__.py",) if file.is_file()] + list(inside)


def imports_of(file: Path, root: Path) -> Iterator[Import]:
    """The imports of `file`. `from package import x` counts as the module x if there is one, otherwise as a name in the package."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, False, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = node.level - 1
            if above > len(package):
                yield Import("." * node.level + (node.module or ""), False, node.lineno)
                continue
            base = [*(package[: len(package) - above] if node.level else ()), *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                is_module = _file_of(root, ".".join([*base, alias.name])) is not None
                yield Import(".".join([*base, alias.name] if is_module else base), node.level > 0, node.lineno)


def _file_of(root: Path, module: str) -> str | None:
    """The path of a dotted module's file, relative to `root`."""
    place = root.joinpath(*module.split("."))
    found = (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())
    return next((file.relative_to(root).as_posix() for file in found), None)


def _objection(name: str, entry: Import) -> str | None:
    layer = name.split("/")[0] if "/" in name else ""
    top = entry.module.split(".")[0]
    if not entry.relative:
        if entry.module.startswith("."):
            return "the relative import leaves the pack"
        if top in HOST_MODULES and not name.startswith(HOST_IMPORTER):
            return f"only {HOST_IMPORTER} imports the host's modules"
        if top == NODE_API and layer not in NODE_API_LAYERS:
            return "nothing below nodes may import the host's modules"
        if top == BATCH:
            return "the pack never imports the batch package"
        if layer == "script" and top in ONLY_IN_SCRIPTS and not name.startswith(PARTS):
            return "scripts are written without the libraries that they use"
        if top in LAYERS[1:]:
            return "the host loads the pack by its path: use a relative import"
        return None
    target = top if top in LAYERS else ""
    if entry.module.startswith(PARTS.rstrip("/").replace("/", ".")) and not name.startswith(PARTS):
        return f"{PARTS} is read as text"
    if layer not in LAYERS:
        return f"{layer} is not a layer of the pack (the layers are {', '.join(LAYERS[1:])})"
    if LAYERS.index(target) < LAYERS.index(layer):
        return f"{layer} may import only {', '.join(LAYERS[LAYERS.index(layer) :])}"
    if layer == target == "pipelines":
        return _objection_inside_pipelines(name, entry.module.split("."))
    return None


def _objection_inside_pipelines(name: str, imported: Sequence[str]) -> str | None:
    parts = name.split("/")
    if len(parts) == 2:
        return None if parts[1] == "__init__.py" else "a module of pipelines must be in one of its rooms"
    room, target = parts[1], imported[1] if len(imported) > 1 else ""
    if room not in ROOMS or target not in ROOMS:
        return f"the rooms of pipelines are {', '.join(ROOMS)}"
    if ROOMS.index(target) < ROOMS.index(room):
        return f"{room} may import only {', '.join(ROOMS[ROOMS.index(room) :])}"
    if room == target == "families" and name != FAMILY_TABLE:
        return "families never import each other"
    return None


def main() -> int:
    found = violations()
    print("\n".join(found) or f"{len(pack_files())} files of the pack import in the right direction")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
