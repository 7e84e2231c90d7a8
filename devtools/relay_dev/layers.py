"""Holds the direction of imports: root -> nodes -> weighting -> pipelines, and inside pipelines: families -> shared -> leaves.

Imports are read from the source, those inside functions too, so nothing has to be installed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .paths import ROOT

LAYERS = ("", "nodes", "weighting", "pipelines")
"""From the top (the root's own modules) to the bottom; a layer may import those after it."""
FAMILIES = {"stable_diffusion", "sdxl", "kandinsky22", "kandinsky22_prior", "kandinsky22_depth", "upscale"}
LEAVES = {"errors", "monitor"}
"""Modules of pipelines that import no other module of the pack."""
HOST_MODULES = {
    *("comfy", "comfy_execution", "comfy_extras", "comfy_config", "app", "api_server", "middleware", "utils"),
    *("folder_paths", "latent_preview", "node_helpers", "nodes", "server", "execution", "protocol", "main"),
}
HOST_IMPORTER = "nodes/comfy_host/"
NODE_API = "comfy_api"
NODE_API_LAYERS = ("", "nodes")
NOT_THE_PACK = {"devtools", "tests", "benchmarks"}


@dataclass(frozen=True)
class Import:
    """`module` is dotted and absolute ("torch.nn"), or, with `relative`, dotted from the pack's root ("pipelines.family")."""

    module: str
    relative: bool
    line: int


def violations(root: Path = ROOT) -> list[str]:
    """One line for each import that goes the wrong way; empty where all is well."""
    found = []
    for file in pack_files(root):
        name = file.relative_to(root).as_posix()
        for entry in imports_of(file, root):
            reason = _objection(name, entry)
            if reason:
                found.append(f"{name}:{entry.line}: imports {entry.module}: {reason}")
    return found


def pack_files(root: Path = ROOT) -> list[Path]:
    """The pack's own Python files: root/__init__.py and the sub-packages."""
    packages = sorted(folder for folder in root.iterdir() if (folder / "__init__.py").is_file())
    inside = (file for folder in packages if folder.name not in NOT_THE_PACK for file in sorted(folder.rglob("*.py")))
    return [file for file in (root / "__init__.py",) if file.is_file()] + list(inside)


def imports_of(file: Path, root: Path) -> Iterator[Import]:
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text("utf-8"), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, False, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield Import(node.module or "", False, node.lineno)
                continue
            above = node.level - 1
            if above > len(package):
                yield Import("." * node.level + (node.module or ""), False, node.lineno)
                continue
            base = [*package[: len(package) - above], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                # `from . import x` imports the module x where there is one, and a name of the package otherwise.
                target = root.joinpath(*base, alias.name)
                is_module = target.with_suffix(".py").is_file() or (target / "__init__.py").is_file()
                yield Import(".".join([*base, alias.name] if is_module else base), True, node.lineno)


def _objection(name: str, entry: Import) -> str | None:
    layer = name.split("/")[0] if "/" in name else ""
    top = entry.module.split(".")[0]
    if not entry.relative:
        if entry.module.startswith("."):
            return "the relative import leaves the pack"
        if top in HOST_MODULES and not name.startswith(HOST_IMPORTER):
            return f"only {HOST_IMPORTER} imports the host's modules"
        if top == NODE_API and layer not in NODE_API_LAYERS:
            return "below nodes nothing knows the host"
        if top in LAYERS[1:]:
            return "the host loads the pack by its path: import relatively"
        return None
    target = top if top in LAYERS else ""
    if layer not in LAYERS:
        return f"{layer} is no layer of the pack (they are {', '.join(LAYERS[1:])})"
    if LAYERS.index(target) < LAYERS.index(layer):
        return f"{layer} may import only {', '.join(LAYERS[LAYERS.index(layer) :])}"
    if layer == target == "pipelines":
        return _objection_inside_pipelines(name.split("/")[1].removesuffix(".py"), entry.module.split(".")[1:])
    return None


def _objection_inside_pipelines(importer: str, imported: list[str]) -> str | None:
    if not imported or imported[0] == importer:
        return None
    if importer in LEAVES:
        return "a leaf imports nothing of the pack"
    if imported[0] in FAMILIES:
        return "families never import each other" if importer in FAMILIES else "only layers above import a family"
    return None


def main() -> int:
    found = violations()
    print("\n".join(found) or f"{len(pack_files())} files import in the right direction")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
