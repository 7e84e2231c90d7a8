"""Imports the pack as the host does: by its folder's path, here under the name diffusers_relay."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .environment import enter_environment
from .paths import ROOT

NAME = "diffusers_relay"


def prepare_pack(root: Path = ROOT) -> ModuleType:
    """Makes `import diffusers_relay.pipelines...` work without running the pack's __init__.py, which needs the host."""
    take_off_path(root)
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            NAME, root / "__init__.py", submodule_search_locations=[str(root)]
        )
        assert spec is not None
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
    return sys.modules[NAME]


def load_pack(root: Path = ROOT) -> ModuleType:
    """Imports the pack and runs its __init__.py, as the host does. The host must be on sys.path."""
    pack = prepare_pack(root)
    if not hasattr(pack, "comfy_entrypoint"):
        assert pack.__spec__ is not None and pack.__spec__.loader is not None
        pack.__spec__.loader.exec_module(pack)
    return pack


def prepare_benchmarks(root: Path = ROOT) -> None:
    """Makes the pack and tests/support importable for the benchmarks, without the root on sys.path."""
    prepare_pack(root)
    if str(root / "tests") not in sys.path:
        sys.path.append(str(root / "tests"))


def take_off_path(root: Path) -> None:
    """Takes the root off sys.path, where its folder `nodes` would hide the host's module of that name."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != root]


def enter_host(host: Path, base: Path) -> None:
    """Makes the host's modules importable in this process, on the CPU, with the host's folders under `base`."""
    enter_environment(host)
    sys.path.insert(0, str(host))
    from comfy.cli_args import args

    args.cpu = True
    args.base_directory = str(base)
    # As main.py does: before the host's nodes.py puts the folder comfy, which has another `utils`, on sys.path.
    import utils.extra_config  # noqa: F401
