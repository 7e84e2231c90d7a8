"""Puts the pack into sys.modules as the host does it, by the path of its folder, under the name diffusers_relay."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .paths import ROOT

NAME = "diffusers_relay"


def prepare_pack(root: Path = ROOT) -> ModuleType:
    """Makes `import diffusers_relay.pipelines...` work. The pack's __init__.py, which needs the host, is not run yet."""
    take_off_path(root)
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, root / "__init__.py", submodule_search_locations=[str(root)]
        )
        assert spec is not None
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
    return sys.modules[NAME]


def load_pack(root: Path = ROOT) -> ModuleType:
    """The pack with its __init__.py run, as the host has it. The host has to be on sys.path."""
    pack = prepare_pack(root)
    if not hasattr(pack, "comfy_entrypoint"):
        assert pack.__spec__ is not None and pack.__spec__.loader is not None
        pack.__spec__.loader.exec_module(pack)
    return pack


def prepare_benchmarks(root: Path = ROOT) -> None:
    """Makes what the benchmarks import of the pack and of tests/support importable, with the root off sys.path."""
    prepare_pack(root)
    if str(root / "tests") not in sys.path:
        sys.path.append(str(root / "tests"))


def take_off_path(root: Path) -> None:
    """With the root on sys.path its folder `nodes` would hide the host's module of that name."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != root]


def enter_host(host: Path, base: Path) -> None:
    """Makes this process one in which the host's modules can be imported, on the CPU, with its folders under `base`."""
    sys.path.insert(0, str(host))
    from comfy.cli_args import args

    args.cpu = True
    args.base_directory = str(base)
    # As main.py does, before the host's nodes.py puts the folder comfy, which has another `utils`, on sys.path.
    import utils.extra_config  # noqa: F401
